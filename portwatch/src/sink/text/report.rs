//! A stream summed up, for a person who has a minute.

use std::{net::IpAddr, time::Duration};

use jiff::{Timestamp, tz::TimeZone};
use unicode_width::UnicodeWidthStr as _;

use super::{Paint, lost_reason};
use crate::{
    errno,
    event::{Endpoint, Errno, Hazard, Time, Transport, Word as _},
    report::{
        Automatic, ConflictGroup, FailureGroup, Flapping, Gap, Kept, Loss, Report, Resolution,
        Scope, Seen, Turnover, WarningGroup, Who,
    },
    sink::{digits, escape::Escape},
};

/// How it is to look.
#[derive(Clone, Debug)]
pub struct Look {
    /// Columns of the terminal; `None` is no terminal: lines are as long as they are.
    pub width: Option<usize>,
    /// Use colours.
    pub color: bool,
    /// Time zone of the times.
    pub zone: TimeZone,
}

/// The lines.
#[must_use]
pub fn lines(report: &Report, look: &Look) -> Vec<u8> {
    let mut page = Page {
        out: Vec::new(),
        paint: Paint::new(look.color),
        look,
    };
    let Report {
        host,
        seen,
        scope,
        runs,
        kept,
        unended,
        conflicts,
        warnings,
        failures,
        turnover,
        automatic,
        gaps,
        lost,
        more,
        unnamed,
    } = report;
    let [
        more_conflicts,
        more_warnings,
        more_failures,
        more_turnover,
        more_automatic,
        more_gaps,
    ] = *more;
    page.head(host.as_deref(), *seen, scope);
    page.totals(*seen, *runs, lost);
    page.kept(*kept);
    page.unended(*unended);
    page.unnamed(*unnamed);
    page.section("CONFLICTS", conflicts, more_conflicts, Page::conflict);
    page.section("WARNINGS", warnings, more_warnings, Page::warning);
    page.section("OTHER FAILURES", failures, more_failures, Page::failure);
    page.section(
        "PORTS TAKEN MOST OFTEN",
        turnover.as_deref().unwrap_or_default(),
        more_turnover,
        Page::turnover,
    );
    page.section(
        "PORTS CHOSEN BY THE KERNEL, BY PROGRAM",
        automatic.as_deref().unwrap_or_default(),
        more_automatic,
        Page::automatic,
    );
    page.section("TIMES WITHOUT A RECORDER", gaps, more_gaps, Page::gap);
    page.section("EVENTS LOST", lost, 0, Page::loss);
    page.out
}

struct Page<'a> {
    out: Vec<u8>,
    paint: Paint,
    look: &'a Look,
}

/// Columns of a number of times, and where what belongs to it stands.
const COUNT: usize = 8;

impl Page<'_> {
    fn head(&mut self, host: Option<&str>, seen: Seen, scope: &Scope) {
        let mut words = host.map_or_else(String::new, |host| format!("{host}: "));
        match seen.span {
            None => words.push_str(&self.nothing(scope)),
            Some((first, last)) => {
                let length = last.utc.duration_since(first.utc).unsigned_abs();
                words.push_str(&format!(
                    "{} to {} ({})",
                    self.time(first),
                    self.time(last),
                    rough(length)
                ));
            }
        }
        self.text(0, &words);
    }

    /// Where nothing was found, what was looked for.
    fn nothing(&self, scope: &Scope) -> String {
        let Scope {
            since,
            until,
            ports,
        } = scope;
        let mut words = "nothing happened".to_owned();
        if let [first, rest @ ..] = &ports[..] {
            let (low, high) = (first.start(), first.end());
            words.push_str(&match low == high {
                true => format!(" on port {low}"),
                false => format!(" on ports {low}-{high}"),
            });
            if !rest.is_empty() {
                words.push_str(&format!(
                    " and {} more",
                    many(rest.len() as u64, "range", "ranges")
                ));
            }
        }
        for (word, time) in [("since", since), ("before", until)] {
            if let Some(time) = time {
                words.push_str(&format!(" {word} {}", self.stamp(*time)));
            }
        }
        words
    }

    fn totals(&mut self, seen: Seen, runs: u64, lost: &[Loss]) {
        let Seen {
            events,
            failures,
            conflicts,
            span: _, // stands above
        } = seen;
        let lost: u64 = lost.iter().map(|loss| loss.count).sum();
        self.text(
            0,
            &format!(
                "{}, {}, {} of them; {}, {lost} lost",
                many(events, "event", "events"),
                many(failures, "failure", "failures"),
                many(conflicts, "conflict", "conflicts"),
                many(runs, "start of the recorder", "starts of the recorder"),
            ),
        );
    }

    /// What there is not may have happened all the same.
    fn kept(&mut self, kept: Kept) {
        let Some(mut words) = kept.words() else {
            return;
        };
        if kept.least.is_some() {
            words.push_str(": how often ports were taken is not known (record --keep all)");
        }
        self.text(0, &words);
    }

    fn unended(&mut self, last: Option<Time>) {
        if let Some(last) = last {
            let last = self.time(last);
            self.text(
                0,
                &format!("its recorder has not ended: it is at work, or was killed after {last}"),
            );
        }
    }

    fn unnamed(&mut self, count: u64) {
        if count > 0 {
            let words = "of kinds that were too many, and happened least often, are not told below";
            self.text(0, &format!("{} {words}", many(count, "event", "events")));
        }
    }

    fn section<T>(&mut self, title: &str, items: &[T], more: u64, print: fn(&mut Self, &T)) {
        if items.is_empty() {
            return;
        }
        self.out.push(b'\n');
        self.painted(title, |paint| &paint.name);
        if more > 0 {
            self.out
                .extend_from_slice(format!(" ({more} more: --top)").as_bytes());
        }
        self.out.push(b'\n');
        for item in items {
            print(self, item);
        }
    }

    fn conflict(&mut self, group: &ConflictGroup) {
        let ConflictGroup {
            op,
            errno,
            transport,
            address,
            port,
            loser,
            holder,
            kind,
            overlap: _, // seen in the words
            reason,
            count,
            first,
            last,
            message,
            hint,
            resolvable,
            resolution,
            flapping,
        } = group;
        let place = place(*transport, *address, port.or(Some(0)));
        let error = error(*errno);
        let mut words = format!("{} {place} {error}, {}", op.word(), who(loser));
        if let Some(holder) = holder {
            words.push_str(&format!(", held by {}", who(holder)));
        }
        let rule = reason.map_or("", |reason| reason.word());
        let comma = if rule.is_empty() { "" } else { ", " };
        words.push_str(&format!(" ({}{comma}{rule})", kind.word()));
        self.counted(*count, &words);
        let settled = match resolution {
            None if !resolvable => String::new(),
            None => "; not resolved".to_owned(),
            Some(Resolution {
                times,
                took,
                open_again,
            }) => {
                let took = took.map_or_else(String::new, |took| format!(" after {}", rough(took)));
                let times = match times {
                    1 => String::new(),
                    times => format!(" {times} times, the last time"),
                };
                let again = if *open_again { ", and open again" } else { "" };
                format!("; resolved{times}{took}{again}")
            }
        };
        self.text(COUNT, &format!("{}{settled}", self.span(*first, *last)));
        if let Some(Flapping { processes, every }) = flapping {
            let every =
                every.map_or_else(String::new, |every| format!(", one every {}", rough(every)));
            self.text(
                COUNT,
                &format!("started again and again: {processes} processes{every}"),
            );
        }
        self.words(message, hint.as_deref());
    }

    fn warning(&mut self, group: &WarningGroup) {
        let WarningGroup {
            hazard,
            transport,
            port,
            who: by,
            count,
            first,
            last,
            message,
            hint,
        } = group;
        let what = match hazard {
            Hazard::ListenAfterFailedBind => "listens though its bind was refused",
            Hazard::SharedPort => "shares its port with a stranger",
        };
        let port = port.map_or_else(String::new, |port| format!(" {port}"));
        let words = format!("{}{port}, {}: {what}", transport.word(), who(by));
        self.counted(*count, &words);
        self.text(COUNT, &self.span(*first, *last));
        self.words(message, hint.as_deref());
    }

    fn failure(&mut self, group: &FailureGroup) {
        let FailureGroup {
            op,
            errno,
            transport,
            address,
            port,
            who: by,
            count,
            first,
            last,
        } = group;
        let words = format!(
            "{} {} {}, {}; {}",
            op.word(),
            place(*transport, *address, *port),
            error(*errno),
            who(by),
            self.span(*first, *last),
        );
        self.counted(*count, &words);
    }

    fn turnover(&mut self, one: &Turnover) {
        let Turnover {
            transport,
            port,
            count,
        } = one;
        self.counted(*count, &format!("{} {port}", transport.word()));
    }

    fn automatic(&mut self, one: &Automatic) {
        let Automatic { who: by, count } = one;
        self.counted(*count, &who(by));
    }

    fn gap(&mut self, gap: &Gap) {
        let Gap { from, to, killed } = gap;
        // When one was killed nobody knows, only when it was last seen alive.
        let (at_most, killed) = if *killed {
            ("at most ", ": it was killed")
        } else {
            ("", "")
        };
        let length = Duration::try_from(to.utc.duration_since(from.utc)).map_or_else(
            |_| "the clock was set back".to_owned(),
            |length| format!("{at_most}{}", rough(length)),
        );
        self.text(
            COUNT,
            &format!("{} ({length}){killed}", self.span(*from, *to)),
        );
    }

    fn loss(&mut self, loss: &Loss) {
        let Loss {
            reason,
            count,
            first,
            last,
        } = loss;
        let words = format!("{}; {}", lost_reason(*reason), self.span(*first, *last));
        self.counted(*count, &words);
    }

    /// What happened in words, and what to do.
    fn words(&mut self, message: &str, hint: Option<&str>) {
        let text = match hint {
            Some(hint) => format!("↳ {message}. {hint}"),
            None => format!("↳ {message}"),
        };
        self.text(COUNT, &text);
    }

    /// A line that begins with a number of times.
    fn counted(&mut self, count: u64, text: &str) {
        let number = format!("{count}×");
        let pad = (COUNT - 1).saturating_sub(number.width());
        self.out.resize(self.out.len() + pad, b' ');
        self.painted(&number, |paint| &paint.failure);
        self.out.push(b' ');
        self.wrapped(COUNT, text);
    }

    fn text(&mut self, indent: usize, text: &str) {
        self.out.resize(self.out.len() + indent, b' ');
        self.wrapped(indent, text);
    }

    /// Text made harmless, wrapped at the width of the terminal, and the end of the line.
    fn wrapped(&mut self, indent: usize, text: &str) {
        let mut plain = Vec::new();
        Escape::new(&mut plain, usize::MAX).push(text);
        let plain = String::from_utf8_lossy(&plain);
        let room = self.look.width.map_or(usize::MAX, |width| {
            // Narrower, nothing could be read.
            width.saturating_sub(indent).max(20)
        });
        for (at, line) in textwrap::wrap(&plain, room).iter().enumerate() {
            if at > 0 {
                self.out.push(b'\n');
                self.out.resize(self.out.len() + indent, b' ');
            }
            self.out.extend_from_slice(line.as_bytes());
        }
        self.out.push(b'\n');
    }

    fn painted(&mut self, text: &str, paint: impl Fn(&Paint) -> &String) {
        let before = paint(&self.paint);
        self.out.extend_from_slice(before.as_bytes());
        self.out.extend_from_slice(text.as_bytes());
        self.out.extend_from_slice(self.paint.end.as_bytes());
    }

    fn span(&self, first: Time, last: Time) -> String {
        let (first, last) = (self.time(first), self.time(last));
        if first == last {
            return first;
        }
        format!("{first} to {last}")
    }

    fn time(&self, time: Time) -> String {
        self.stamp(time.utc)
    }

    fn stamp(&self, time: Timestamp) -> String {
        let zoned = time.to_zoned(self.look.zone.clone());
        zoned.strftime("%Y-%m-%d %H:%M:%S").to_string()
    }
}

fn who(who: &Who) -> String {
    let Who {
        name,
        unit,
        container,
    } = who;
    // Of an id the first twelve digits, as docker prints them.
    let container = container
        .as_ref()
        .map(|id| format!("container {}", id.get(..12).unwrap_or(id)));
    match unit.as_ref().or(container.as_ref()) {
        Some(of) => format!("{name} ({of})"),
        None => name.clone(),
    }
}

fn error(errno: Errno) -> String {
    errno::name(errno).map_or_else(|| format!("errno {}", errno.0), str::to_owned)
}

fn place(transport: Transport, address: Option<IpAddr>, port: Option<u16>) -> String {
    let mut text = Vec::new();
    digits::endpoint(&mut text, &Endpoint { address, port });
    format!("{} {}", transport.word(), String::from_utf8_lossy(&text))
}

fn many(count: u64, one: &str, more: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { more })
}

/// A length of time, as a person says it.
fn rough(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        0 => format!("{} ms", time.as_millis()),
        1..60 => format!("{seconds} s"),
        60..3600 if seconds.is_multiple_of(60) => format!("{minutes} min"),
        60..3600 => format!("{minutes} min {} s", seconds % 60),
        3600..86400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}
