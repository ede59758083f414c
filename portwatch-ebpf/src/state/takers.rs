//! Who got which port: a note for each socket that was bound, listens or connects, whatever the
//! filters, so that a conflict names the same holders under any of them.
//!
//! A slot by the low bits of the socket's inode, which the kernel counts up: the last so many
//! sockets are here, and none has to be taken out when it closes. An older one is overwritten;
//! user space then finds its processes by the inode.

use aya_ebpf::{macros::map, maps::Array};
use portwatch_ebpf::abi::record::TaskRecord;

/// A note.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Taker {
    /// Inode of the socket's file; 0 while the note is written.
    inode: u64,
    /// When it got its port, CLOCK_BOOTTIME, ns.
    pub(crate) taken: u64,
    /// struct task_struct of the main thread. It may be gone: see `kernel::owners`.
    pub(crate) leader: u64,
    /// Bits of `record::present` of the task.
    pub(crate) present: u32,
    /// Must be 0.
    reserved: u32,
    /// The process.
    pub(crate) task: TaskRecord,
}

const _: () = assert!(size_of::<Taker>() == 96);

#[map]
static TAKERS: Array<Taker> = Array::with_max_entries(SLOTS, 0);

/// 6 MiB.
const SLOTS: u32 = 1 << 16;

#[inline(always)]
fn slot(inode: u64) -> Option<*mut Taker> {
    TAKERS.get_ptr_mut(inode as u32 & (SLOTS - 1))
}

/// Writes the note of a socket: `fill` gets it with the task zeroed.
#[inline(always)]
pub(crate) fn note(inode: u64, fill: impl FnOnce(&mut Taker)) {
    let Some(slot) = slot(inode) else {
        return;
    };
    // SAFETY: a slot of our map. The socket is locked by whoever gets a port for it, so two write here at
    // once only when two sockets share the slot within a microsecond; then a note may be mixed, and its
    // process is not the one the kernel still knows under that id and start.
    unsafe {
        (&raw mut (*slot).inode).write_volatile(0);
        crate::kernel::memory::zero(&raw mut (*slot).task);
        (*slot).present = 0;
        fill(&mut *slot);
        (&raw mut (*slot).inode).write_volatile(inode);
    }
}

/// The note of a socket, if it is there still.
#[inline(always)]
pub(crate) fn of(inode: u64) -> Option<&'static Taker> {
    let slot = slot(inode)?;
    // SAFETY: as in `note`.
    unsafe {
        if (&raw const (*slot).inode).read_volatile() != inode {
            return None;
        }
        Some(&*slot)
    }
}
