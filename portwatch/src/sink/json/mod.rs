//! JSON Lines for programs: the paths of the schema `portwatch/1`.

mod line;
#[cfg(test)]
mod tests;

use std::io::{self, Write};

use super::{Sink, pending::Pending};
use crate::event::Item;

/// The JSON sink.
#[derive(Debug)]
pub struct Json<W> {
    pending: Pending<W>,
    args: bool,
    /// Lines written.
    lines: u64,
}

impl<W: Write> Json<W> {
    /// A sink that prints to `out`; `args`: with the arguments of processes.
    pub fn new(out: W, args: bool) -> Self {
        Self {
            pending: Pending::new(out),
            args,
            lines: 0,
        }
    }
}

impl<W: Write> Sink for Json<W> {
    fn item(&mut self, item: &Item) -> io::Result<()> {
        self.lines += 1;
        line::print(&mut self.pending.bytes, self.lines, item, self.args)?;
        self.pending.bytes.push(b'\n');
        self.pending.relieve()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pending.flush()
    }
}
