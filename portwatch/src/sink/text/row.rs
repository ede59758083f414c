//! One event, one row; a second where something does not fit or stood in the way.
//!
//! This is the hot path: bytes are appended to the batch in place and nothing is formatted twice.

use std::{borrow::Cow, io::Write};

use super::{
    Paint, Text, command, layout,
    note::{self, Accent},
};
use crate::{
    errno,
    event::{
        Errno, Event, Freed, Op, Outcome, PortFacts, Sighting, SocketOptions, Transport,
        UnknownReason, Via,
    },
    sink::{digits, escape::Escape},
};

/// What a command gets at least, where an address is long.
const MIN_COMMAND: usize = 8;
const ARROW: &str = " → ";

/// The line that is being written, and the column it has reached: bytes of colours take none, some
/// characters take more than a byte or more than a column.
struct Row<'a> {
    bytes: &'a mut Vec<u8>,
    column: usize,
}

impl Row<'_> {
    /// Spaces up to a column, at least one.
    fn to(&mut self, column: usize) {
        let missing = column.saturating_sub(self.column).max(1);
        self.bytes.resize(self.bytes.len() + missing, b' ');
        self.column += missing;
    }

    /// ASCII.
    fn text(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
        self.column += text.len();
    }

    /// Bytes that take no column.
    fn paint(&mut self, paint: &str) {
        self.bytes.extend_from_slice(paint.as_bytes());
    }

    /// What `write` appends is ASCII.
    fn ascii(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.bytes.len();
        write(self.bytes);
        self.column += self.bytes.len() - before;
    }
}

impl<W: Write, N: Write> Text<W, N> {
    pub(super) fn event(&mut self, sighting: &Sighting) {
        let Self {
            pending,
            args,
            clock,
            layout,
            paint,
            commands,
            peer: peer_text,
            note,
            ..
        } = self;
        let Sighting {
            event,
            time,
            process,
            local: local_facts,
            peer: peer_facts,
            explanation,
            warning,
            ..
        } = sighting;
        let mut pid = itoa::Buffer::new();
        let pid = if event.has_process() {
            pid.format(event.task.pid)
        } else {
            "-"
        };
        let result = Result::of(event);
        let width = layout.width.unwrap_or(usize::MAX);
        let (red, end) = match (result.is_failure, &*paint) {
            (true, Paint { failure, end, .. }) => (failure.as_str(), end.as_str()),
            (false, _) => ("", ""),
        };

        let mut row = Row {
            bytes: &mut pending.bytes,
            column: 0,
        };
        row.ascii(|bytes| clock.time_of_day(bytes, time.utc));
        row.to(layout::EVENT);
        row.paint(red);
        row.text(event_name(event.op));
        row.paint(end);
        row.to(layout::TRANSPORT);
        row.text(transport(event.transport, &event.socket.options));
        row.to(layout::ADDRESS);
        row.ascii(|bytes| digits::endpoint(bytes, &event.local));

        // A name for a port that the kernel picked would be a coincidence, and every connect has
        // such a port.
        let room = layout.pid_end.saturating_sub(pid.len() + 1);
        let named = match event.op {
            Op::Bind | Op::Listen if event.auto_port => Some("auto"),
            Op::Bind | Op::Listen | Op::Autobind | Op::Accept if !event.auto_port => {
                service(local_facts)
            }
            // Of the ports that the kernel picks a name would be a coincidence here too.
            Op::Release if local_facts.ephemeral != Some(true) => service(local_facts),
            _ => None,
        };
        if let Some(name) = named
            && row.column + 3 + name.len() <= room
        {
            row.text(" (");
            row.column += escaped(row.bytes, name);
            row.text(")");
        }

        // The peer stands in the row if the rest still fits behind it.
        let mut peer_below = false;
        if let Some(peer) = &event.peer {
            peer_text.clear();
            digits::endpoint(peer_text, peer);
            let behind = 1 + pid.len() + 1 + MIN_COMMAND + 1 + result.name.len();
            peer_below = row.column + 3 + peer_text.len() + behind > width;
            if !peer_below {
                row.bytes.extend_from_slice(ARROW.as_bytes());
                row.bytes.extend_from_slice(peer_text);
                row.column += 3 + peer_text.len();
                if let Some(name) = service(peer_facts)
                    && row.column + 3 + name.len() <= room
                {
                    row.text(" (");
                    row.column += escaped(row.bytes, name);
                    row.text(")");
                }
            }
        }

        row.to(layout.pid_end - pid.len());
        row.text(pid);
        row.to(layout.command());
        let room = match layout.width {
            None => usize::MAX,
            // Up to the result's column; pushed beyond it only by a long address.
            Some(width) => {
                let regular = (layout.result - 1).saturating_sub(row.column);
                let pushed = width.saturating_sub(row.column + 1 + result.name.len());
                let enough = match result.reason {
                    "" => layout.result - 1 - layout.command(),
                    _ => MIN_COMMAND,
                };
                regular.max(pushed.min(enough))
            }
        };
        // The room is at most a terminal's width, or no limit: the shift loses nothing.
        let variant = room << 1 | usize::from(event.via == Some(Via::Kernel));
        let (text, columns) = commands.get(&event.task, process, variant, |bytes| {
            let mut cut = Escape::new(bytes, room);
            command::command(&mut cut, &event.task, process, event.via, *args);
            cut.columns()
        });
        row.bytes.extend_from_slice(text);
        row.column += columns;

        row.to(layout.result);
        row.paint(red);
        row.text(&result.name);
        row.paint(end);
        let reason_below = row.column + result.reason_width() > width;
        if !reason_below {
            result.reason(&mut row);
        }
        row.bytes.push(b'\n');

        // Words that say no more than the errno's are not said twice.
        let explanation = explanation
            .as_deref()
            .filter(|explanation| explanation.message != result.reason);
        if peer_below || reason_below || explanation.is_some() {
            note.clear();
            if peer_below {
                note.extend_from_slice(b"to ");
                note.extend_from_slice(peer_text);
                if let Some(name) = service(peer_facts) {
                    note.extend_from_slice(b" (");
                    escaped(note, name);
                    note.push(b')');
                }
            }
            match explanation {
                Some(explanation) => {
                    note::separate(note, ": ");
                    note::explanation(note, explanation);
                }
                None if reason_below => {
                    note::separate(note, ": ");
                    note.extend_from_slice(result.reason.as_bytes());
                }
                None => {}
            }
            let name = explanation.and_then(note::holder);
            let accent = name.map(|name| Accent::name(name, paint));
            note::print(&mut pending.bytes, note, layout.width, accent, paint);
        }
        if let Some(warning) = warning {
            note.clear();
            note::warning(note, warning);
            let accent = Some(Accent::warning(paint));
            note::print(&mut pending.bytes, note, layout.width, accent, paint);
        }
    }
}

fn escaped(out: &mut Vec<u8>, text: &str) -> usize {
    let mut escape = Escape::new(out, usize::MAX);
    escape.push(text);
    escape.columns()
}

fn service(facts: &PortFacts) -> Option<&str> {
    facts.service.as_deref()
}

const fn event_name(op: Op) -> &'static str {
    match op {
        Op::Bind => "BIND",
        Op::Listen => "LISTEN",
        Op::Connect => "CONNECT",
        Op::Autobind => "AUTOBIND",
        Op::Accept => "ACCEPT",
        Op::Release => "RELEASE",
    }
}

const fn transport(transport: Transport, options: &SocketOptions) -> &'static str {
    match (transport, options.mptcp) {
        (Transport::Tcp, Some(true)) => "mptcp",
        (transport, _) => transport.as_str(),
    }
}

const fn freed(freed: Freed) -> &'static str {
    match freed {
        Freed::Closed => "",
        Freed::TimeWait => "TIME_WAIT is over",
        Freed::GivenBack => "the socket is open still",
    }
}

/// The result column.
struct Result {
    name: Cow<'static, str>,
    reason: &'static str,
    is_failure: bool,
    in_brackets: bool,
}

impl Result {
    fn of(event: &Event) -> Self {
        let (name, reason) = match event.outcome {
            Outcome::Success => ("ok", event.freed.map_or("", freed)),
            Outcome::Unknown(UnknownReason::Closed) => ("unknown", "closed before it was known"),
            Outcome::Unknown(UnknownReason::TraceEnded) => ("unknown", "the trace ended first"),
            Outcome::Failure(errno) => return Self::failure(errno, event.refused_by_policy),
        };
        Self {
            name: Cow::Borrowed(name),
            reason,
            is_failure: false,
            in_brackets: true,
        }
    }

    fn failure(errno: Errno, by_policy: bool) -> Self {
        Self {
            name: errno::name(errno)
                .map_or_else(|| Cow::Owned(format!("errno {}", errno.0)), Cow::Borrowed),
            reason: if by_policy {
                "refused by policy"
            } else {
                errno::reason(errno).unwrap_or("")
            },
            is_failure: true,
            in_brackets: false,
        }
    }

    /// Columns that the reason takes behind the name.
    const fn reason_width(&self) -> usize {
        match (self.reason.len(), self.in_brackets) {
            (0, _) => 0,
            (length, false) => 1 + length,
            (length, true) => 3 + length,
        }
    }

    fn reason(&self, row: &mut Row<'_>) {
        if self.reason.is_empty() {
            return;
        }
        row.text(if self.in_brackets { " (" } else { " " });
        row.text(self.reason);
        row.text(if self.in_brackets { ")" } else { "" });
    }
}
