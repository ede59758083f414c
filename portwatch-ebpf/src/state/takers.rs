//! Who got which port: a note for each socket that was bound, listens or connects, whatever the
//! filters, so that a conflict names the same holders under any of them.
//!
//! A slot by the low bits of the socket's inode, which the kernel counts up (fs/inode.c,
//! `get_next_ino`, for sockets, pipes and the like): the latest sockets are here, and none has to be
//! taken out when it closes. An older one is overwritten; user space then finds its processes by the
//! inode.

use aya_ebpf::{macros::map, maps::Array};
use portwatch_ebpf::abi::record::TaskRecord;

use super::notes::{self, Note, Who};

const _: () = assert!(size_of::<Note<1>>() == 96);

#[map]
static TAKERS: Array<Note<1>> = Array::with_max_entries(SLOTS, 0);

/// 6 MiB.
const SLOTS: u32 = 1 << 16;

#[inline(always)]
fn slot(inode: u64) -> Option<*mut Note<1>> {
    TAKERS.get_ptr_mut(inode as u32 & (SLOTS - 1))
}

/// Writes the note of a socket.
#[inline(always)]
pub(crate) fn note(inode: u64, fill: impl FnOnce(&mut Who)) {
    if let Some(slot) = slot(inode) {
        // SAFETY: a slot of our map.
        unsafe { notes::write(slot, [inode], fill) };
    }
}

/// Copies the note of a socket, if it is there still; the bits of `present` of its task, else 0.
#[inline(always)]
pub(crate) fn copy(inode: u64, taken: &mut u64, task: &mut TaskRecord) -> u32 {
    // SAFETY: a slot of our map.
    slot(inode).map_or(0, |slot| unsafe { notes::copy(slot, [inode], taken, task) })
}

/// What identifies the process that a note names (`TaskRecord::process_key`); 0 where it is gone.
#[inline(always)]
pub(crate) fn process(inode: u64) -> u64 {
    // SAFETY: a slot of our map.
    slot(inode).map_or(0, |slot| unsafe { notes::process(slot, [inode]) })
}

/// The main thread of the process that a note names; 0 where it is gone.
#[inline(always)]
pub(crate) fn leader(inode: u64) -> u64 {
    // SAFETY: a slot of our map.
    slot(inode).map_or(0, |slot| unsafe { notes::leader(slot, [inode]) })
}
