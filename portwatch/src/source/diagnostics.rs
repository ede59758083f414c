//! What the kernel programs say of their work, at `-vv`: through aya-log, in a ring of its own.

use std::io;

use aya_log::EbpfLogger;
use log::{Log, Metadata, Record};
use portwatch_ebpf::abi::note;
use tokio::io::{Interest, unix::AsyncFd};

use crate::stderr::say;

/// Prints to stderr. The programs say numbers, nothing that a process chose.
#[derive(Clone, Copy, Debug)]
pub struct Stderr;

impl Log for Stderr {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let said = record.args().to_string();
        say(format_args!(
            "portwatch: kernel: {}",
            words(&said).unwrap_or(said)
        ));
    }

    fn flush(&self) {}
}

/// What three numbers mean: the note, the process, and one that belongs to the note.
fn words(said: &str) -> Option<String> {
    let mut numbers = said.split(' ').map(str::parse::<u64>);
    let (Some(Ok(what)), Some(Ok(pid)), Some(Ok(number)), None) = (
        numbers.next(),
        numbers.next(),
        numbers.next(),
        numbers.next(),
    ) else {
        return None;
    };
    let text = match u32::try_from(what).ok()? {
        note::LOST => format!("an event is lost, reason {number}"),
        note::ANNOUNCED => "announced".to_owned(),
        note::NOT_ANNOUNCED => "not announced, the buffer is full".to_owned(),
        note::OWNERS => format!("owners of port {number} looked up"),
        _ => return None,
    };
    Some(format!("process {pid}: {text}"))
}

/// The ring.
pub struct Diagnostics(AsyncFd<EbpfLogger<Stderr>>);

impl Diagnostics {
    /// Registers the ring with the runtime.
    ///
    /// # Errors
    /// When the runtime refuses its descriptor.
    pub fn new(logger: EbpfLogger<Stderr>) -> io::Result<Self> {
        // SAFETY: the logger owns its ring's descriptor, gives the same one every time, and closes it
        // only when it is dropped, after the registration.
        let ring = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE)? };
        Ok(Self(ring))
    }

    /// Waits for something that is said, and prints it. Cancel safe.
    ///
    /// # Errors
    /// When the runtime's poll fails.
    pub async fn print(&mut self) -> io::Result<()> {
        let mut guard = self.0.readable_mut().await?;
        guard.get_inner_mut().flush();
        guard.clear_ready();
        Ok(())
    }

    /// Prints what is there.
    pub fn drain(&mut self) {
        self.0.get_mut().flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_words_and_anything_else_stays() {
        for (said, meant) in [
            ("0 7 2", Some("process 7: an event is lost, reason 2")),
            ("1 7 0", Some("process 7: announced")),
            (
                "2 7 0",
                Some("process 7: not announced, the buffer is full"),
            ),
            ("3 7 8080", Some("process 7: owners of port 8080 looked up")),
            ("4 7 0", None),
            ("3 7", None),
            ("3 7 8080 1", None),
            ("", None),
        ] {
            assert_eq!(words(said).as_deref(), meant, "{said}");
        }
    }
}
