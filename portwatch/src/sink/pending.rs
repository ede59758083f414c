//! What was printed and not yet written.

use std::io::{self, Write};

/// Written out of turn when this much has come together, so that memory stays bounded.
const FULL: usize = 64 * 1024;

/// Bytes on their way to `out`.
#[derive(Debug)]
pub(super) struct Pending<W> {
    pub(super) bytes: Vec<u8>,
    out: W,
}

impl<W: Write> Pending<W> {
    pub(super) fn new(out: W) -> Self {
        Self {
            bytes: Vec::with_capacity(FULL + FULL / 4),
            out,
        }
    }

    /// Writes if there is a lot to write.
    pub(super) fn relieve(&mut self) -> io::Result<()> {
        if self.bytes.len() < FULL {
            return Ok(());
        }
        self.write()
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.write()?;
        self.out.flush()
    }

    fn write(&mut self) -> io::Result<()> {
        let written = self.out.write_all(&self.bytes);
        // Also after an error: part of it is out, and would be out twice.
        self.bytes.clear();
        written
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]
    use super::*;

    #[test]
    fn bytes_wait_for_the_flush_unless_they_are_many() {
        let mut out = Vec::new();
        let mut pending = Pending::new(&mut out);
        pending.bytes.extend_from_slice(b"few");
        pending.relieve().unwrap();
        assert_eq!(pending.bytes, b"few");
        pending.flush().unwrap();
        assert_eq!(*pending.out, b"few");

        pending.bytes.resize(FULL, b'x');
        pending.relieve().unwrap();
        assert!(pending.bytes.is_empty());
        assert_eq!(out.len(), 3 + FULL);
    }

    #[test]
    fn nothing_is_written_twice_after_an_error() {
        let mut room = [0; 2];
        let mut pending = Pending::new(&mut room[..]);
        pending.bytes.extend_from_slice(b"four");
        assert!(pending.flush().is_err());
        assert!(pending.flush().is_ok());
    }
}
