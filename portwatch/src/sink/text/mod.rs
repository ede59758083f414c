//! Columns for people.

pub mod check;
pub mod check_range;
pub mod churn;
mod command;
mod layout;
pub mod listing;
mod note;
pub mod report;
mod row;
#[cfg(test)]
mod tests;

use std::io::{self, Write};

use anstyle::{AnsiColor, Effects, Style};
use jiff::tz::TimeZone;

use super::{Sink, clock::Clock, escape::Escape, kept::Kept, pending::Pending};
use crate::event::{End, Item, Lost, LostReason, Start};
use layout::Layout;

/// How text is to look.
#[derive(Clone, Debug)]
pub struct TextOptions {
    /// Columns of the terminal; `None` is no terminal: lines are as long as they are.
    pub width: Option<usize>,
    /// Use colours.
    pub color: bool,
    /// Show the arguments of processes.
    pub args: bool,
    /// No header, no totals.
    pub quiet: bool,
    /// Time zone of the times.
    pub zone: TimeZone,
}

/// The text sink: data to `out`, header and totals to `notes`.
#[derive(Debug)]
pub struct Text<W, N> {
    pending: Pending<W>,
    notes: N,
    args: bool,
    quiet: bool,
    clock: Clock,
    layout: Layout,
    paint: Paint,
    commands: Kept,
    /// Scratch.
    peer: Vec<u8>,
    note: Vec<u8>,
}

/// Escape sequences, empty without colours.
#[derive(Debug, Default)]
struct Paint {
    failure: String,
    warning: String,
    /// Who has what the caller wanted.
    name: String,
    end: String,
}

impl Paint {
    /// Nothing is painted.
    fn is_none(&self) -> bool {
        self.end.is_empty()
    }

    fn new(color: bool) -> Self {
        if !color {
            return Self::default();
        }
        let bold = |color: AnsiColor| {
            Style::new()
                .fg_color(Some(color.into()))
                .effects(Effects::BOLD)
        };
        let failure = bold(AnsiColor::Red);
        Self {
            failure: failure.render().to_string(),
            warning: bold(AnsiColor::Yellow).render().to_string(),
            name: Style::new().effects(Effects::BOLD).render().to_string(),
            end: failure.render_reset().to_string(),
        }
    }
}

impl<W: Write, N: Write> Text<W, N> {
    /// A sink that prints to `out` and puts header and totals on `notes`.
    pub fn new(out: W, notes: N, options: TextOptions) -> Self {
        let TextOptions {
            width,
            color,
            args,
            quiet,
            zone,
        } = options;
        Self {
            pending: Pending::new(out),
            notes,
            args,
            quiet,
            clock: Clock::new(zone),
            layout: Layout::new(width),
            paint: Paint::new(color),
            commands: Kept::default(),
            peer: Vec::new(),
            note: Vec::new(),
        }
    }

    fn start(&mut self, start: &Start) {
        let Start {
            version,
            kernel_release,
            host_name,
            backend,
            degraded,
            time: _,
        } = start;
        if self.quiet {
            return;
        }
        let mut header = Vec::new();
        Escape::new(&mut header, usize::MAX).push_all(&[
            "portwatch ",
            version,
            " on ",
            host_name,
            ", Linux ",
            kernel_release,
            ", backend ",
            backend.as_str(),
        ]);
        header.push(b'\n');
        if !degraded.is_empty() {
            // The reasons do not change: doctor has them, and so has JSON.
            let features: Vec<&str> = degraded
                .iter()
                .map(|spot| {
                    spot.split_once(": ")
                        .map_or(spot.as_str(), |(name, _)| name)
                })
                .collect();
            Escape::new(&mut header, usize::MAX).push_all(&[
                backend.as_str(),
                " does not see: ",
                &features.join(", "),
                " (portwatch doctor says why)",
            ]);
            header.push(b'\n');
        }
        header.extend_from_slice(self.layout.header().as_bytes());
        // Notes that nobody can read are no reason to end.
        let _ = self.notes.write_all(&header);
        let _ = self.notes.flush();
    }

    fn lost(&mut self, lost: &Lost) {
        let Lost {
            count,
            reason,
            time,
        } = *lost;
        let line = &mut self.pending.bytes;
        self.clock.time_of_day(line, time.utc);
        let plural = if count == 1 { "" } else { "s" };
        let Paint { warning, end, .. } = &self.paint;
        // Writing to a Vec cannot fail.
        let _ = writeln!(
            line,
            " {warning}LOST     {count} event{plural} missing here: {}{end}",
            lost_reason(reason)
        );
    }

    fn end(&mut self, end: &End) -> io::Result<()> {
        let End {
            events,
            failures,
            lost,
            time: _,
        } = *end;
        // The totals stand behind what they count, also where both go to one terminal.
        self.pending.flush()?;
        if !self.quiet {
            let plural = |count| if count == 1 { "" } else { "s" };
            let _ = writeln!(
                self.notes,
                "{events} event{}, {failures} failure{}, {lost} lost",
                plural(events),
                plural(failures),
            );
            let _ = self.notes.flush();
        }
        Ok(())
    }
}

impl<W: Write, N: Write> Sink for Text<W, N> {
    fn item(&mut self, item: &Item) -> io::Result<()> {
        match item {
            Item::Event(sighting) => self.event(sighting),
            Item::Lost(lost) => self.lost(lost),
            Item::Start(start) => self.start(start),
            Item::End(end) => self.end(end)?,
        }
        self.pending.relieve()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pending.flush()
    }
}

const fn lost_reason(reason: LostReason) -> &'static str {
    match reason {
        LostReason::RingFull => "buffer full (see --buffer)",
        LostReason::TableFull => "too many calls at once",
        LostReason::Recursion => "the hook was running already",
        LostReason::ReturnMissed => "return not seen",
        LostReason::Unreadable => "socket unreadable",
        LostReason::Malformed => "record malformed",
        LostReason::StoreFull => "no room on the disk",
    }
}
