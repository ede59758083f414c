//! Who got which port: a note for each socket that was bound, listens or connects, whatever the
//! filters, so that a conflict names the same holders under any of them.
//!
//! A slot by the low bits of the socket's inode, which the kernel counts up (fs/inode.c,
//! `get_next_ino`, for sockets, pipes and the like): the latest sockets are here, and none has to be
//! taken out when it closes. An older one is overwritten; user space then finds its processes by the
//! inode.

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
    // SAFETY: a slot of our map. Two write here at once only when two sockets share the slot within a
    // microsecond, or a thread binds what another one connects; a mixed note names no process that the
    // kernel knows under that id and start.
    unsafe {
        (&raw mut (*slot).inode).write_volatile(0);
        crate::kernel::memory::zero(&raw mut (*slot).task);
        (*slot).present = 0;
        fill(&mut *slot);
        (&raw mut (*slot).inode).write_volatile(inode);
    }
}

/// Copies the note of a socket, if it is there still; the bits of `present` of its task, else 0.
#[inline(always)]
pub(crate) fn copy(inode: u64, taken: &mut u64, task: &mut TaskRecord) -> u32 {
    let Some(slot) = slot(inode) else {
        return 0;
    };
    // SAFETY: a slot of our map, and a record of the ring: plain integers, whole numbers of words.
    unsafe {
        if (&raw const (*slot).inode).read_volatile() != inode {
            return 0;
        }
        *taken = (&raw const (*slot).taken).read_volatile();
        let from = (&raw const (*slot).task).cast::<u64>();
        let to = (&raw mut *task).cast::<u64>();
        for word in 0..size_of::<TaskRecord>() / 8 {
            to.add(word).write_volatile(from.add(word).read_volatile());
        }
        let present = (&raw const (*slot).present).read_volatile();
        // Written meanwhile, it is another socket's.
        if (&raw const (*slot).inode).read_volatile() != inode {
            return 0;
        }
        present
    }
}

/// The main thread of the process that a note names; 0 where it is gone.
#[inline(always)]
pub(crate) fn leader(inode: u64) -> u64 {
    let Some(slot) = slot(inode) else {
        return 0;
    };
    // SAFETY: as above. Whether it is of the process that was copied, its ids tell.
    unsafe {
        if (&raw const (*slot).inode).read_volatile() != inode {
            return 0;
        }
        (&raw const (*slot).leader).read_volatile()
    }
}
