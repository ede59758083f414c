//! The ring buffer, read in batches.

use std::{io, time::Duration};

use aya::maps::{MapData, RingBuf};
use tokio::io::unix::AsyncFd;

/// How long events are collected after the kernel has woken us. The kernel wakes a reader that has
/// caught up at every event; one that waits a moment first is woken once per batch. Well below the
/// 100 ms in which a line must be out.
const BATCH: Duration = Duration::from_millis(5);

/// The ring buffer.
pub struct Ring {
    ring: AsyncFd<RingBuf<MapData>>,
}

impl Ring {
    /// Registers the ring with the runtime.
    ///
    /// # Errors
    /// When the runtime refuses its descriptor.
    pub fn new(ring: RingBuf<MapData>) -> io::Result<Self> {
        // SAFETY: the ring owns its descriptor, gives the same one every time, and closes it only when
        // it is dropped, after the registration.
        let ring = unsafe { AsyncFd::register_with_interest(ring, tokio::io::Interest::READABLE)? };
        Ok(Self { ring })
    }

    /// Waits until there are records. Cancel safe.
    ///
    /// # Errors
    /// When the runtime's poll fails.
    pub async fn ready(&mut self) -> io::Result<()> {
        let mut guard = self.ring.readable_mut().await?;
        tokio::time::sleep(BATCH).await;
        // Not before: where the sleep is cancelled the descriptor has to stay ready, because the
        // kernel wakes no reader again that has not caught up (kernel/bpf/ringbuf.c, bpf_ringbuf_commit).
        guard.clear_ready();
        Ok(())
    }

    /// Hands over every record that is there.
    pub fn drain(&mut self, mut each: impl FnMut(&[u8])) {
        let ring = self.ring.get_mut();
        while let Some(record) = ring.next() {
            each(&record);
        }
    }
}
