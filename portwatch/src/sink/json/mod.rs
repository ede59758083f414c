//! JSON Lines for programs: the paths of the schema `portwatch/1`.

pub mod check;
pub mod check_range;
pub mod churn;
mod conflict;
mod line;
pub mod listing;
mod object;
mod process;
pub mod report;
mod socket;
pub(crate) mod stored;
#[cfg(test)]
mod tests;

use std::io::{self, Write};

use jiff::tz::TimeZone;

use super::{Sink, clock::Clock, kept::Kept, pending::Pending};
use crate::event::{End, Item, Lost, Start};
use object::{Object, key};

/// The name and version of the schema.
pub const SCHEMA: &str = "portwatch/1";

/// The JSON sink.
#[derive(Debug)]
pub struct Json<W> {
    pending: Pending<W>,
    args: bool,
    /// Lines written.
    lines: u64,
    /// Of the lines, and of the starts of processes: neither disturbs what the other keeps.
    clock: Clock,
    creation_clock: Clock,
    callers: Kept,
}

impl<W: Write> Json<W> {
    /// A sink that prints to `out`; `args`: with the arguments of processes.
    pub fn new(out: W, args: bool) -> Self {
        Self {
            pending: Pending::new(out),
            args,
            lines: 0,
            clock: Clock::new(TimeZone::UTC),
            creation_clock: Clock::new(TimeZone::UTC),
            callers: Kept::default(),
        }
    }
}

impl<W: Write> Sink for Json<W> {
    fn item(&mut self, item: &Item) -> io::Result<()> {
        let Self {
            pending,
            args,
            lines,
            clock,
            creation_clock,
            callers,
        } = self;
        *lines += 1;
        let time = match item {
            Item::Event(sighting) => sighting.time,
            Item::Start(Start { time, .. })
            | Item::Lost(Lost { time, .. })
            | Item::End(End { time, .. }) => *time,
        };
        Object::write(&mut pending.bytes, |line| {
            line.word(key!("schema"), SCHEMA);
            line.number(key!("seq"), *lines);
            line.time(key!("time"), clock, time.utc);
            line.number(key!("time_boot"), time.boot);
            match item {
                Item::Event(sighting) => {
                    line::event(line, sighting, *args, creation_clock, callers);
                }
                Item::Start(start) => line::start(line, start),
                Item::Lost(lost) => line::lost(line, lost),
                Item::End(end) => line::end(line, end),
            }
        });
        pending.bytes.push(b'\n');
        pending.relieve()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pending.flush()
    }
}
