//! Ports that are held, for those who want to know when one is free again: since when, and the sockets
//! that are about to give theirs back. Of no use, and of one entry, where nobody does.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::map,
    maps::{LruHashMap, PerCpuArray},
};
use portwatch_ebpf::abi::record::SocketRecord;

use crate::kernel::generation::ROOMS;

/// A port: inode of the network namespace, number, low byte of IPPROTO_*.
pub(crate) fn key(netns: u32, port: u16, transport: u8) -> u64 {
    u64::from(netns) << 32 | u64::from(port) << 16 | u64::from(transport)
}

/// The first note of a port since it was free.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Held {
    /// When its first socket got it, CLOCK_BOOTTIME, ns; 0 where that was not seen.
    pub(crate) since: u64,
    /// Inode of that socket, by which `takers` knows its process.
    pub(crate) inode: u64,
}

/// More than a network namespace has ports to give out by itself.
#[map]
static HELD: LruHashMap<u64, Held> = LruHashMap::with_max_entries(1 << 16, 0);

/// Notes a port, unless it is noted already.
#[inline(always)]
pub(crate) fn hold(key: u64, held: &Held) {
    let _ = HELD.insert(key, held, u64::from(BPF_NOEXIST));
}

/// Notes that it is not known since when a port is held.
#[inline(always)]
pub(crate) fn forget(key: u64) {
    let _ = HELD.insert(key, Held { since: 0, inode: 0 }, 0);
}

/// Takes the note of a port that is free. Of all who find it free at once one gets it: a removal finds
/// what no other has removed. So of two sockets that go at the same moment one is the last.
#[inline(always)]
pub(crate) fn take(key: u64) -> Option<Held> {
    // SAFETY: copied at once. Somebody else may take the port in between and write the same entry anew:
    // then this note is of that moment, and so is the time told from it.
    let held = unsafe { HELD.get(key) }.copied()?;
    HELD.remove(key).ok().map(|()| held)
}

/// A socket on its way out of the kernel's table of ports.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Leaving {
    /// The event that it may be, complete but for its time.
    pub(crate) record: SocketRecord,
    /// See [`key`].
    pub(crate) key: u64,
    /// What the walk over the sockets of the port needs: see `kernel::occupied`.
    pub(crate) words: [u64; WORDS],
}

/// Words of [`Leaving::words`].
pub(crate) const WORDS: usize = 4;

/// By socket; where a return does not tell its socket, by call. What a missed return leaves here makes room
/// for others in the end.
#[map]
pub(crate) static LEAVING: LruHashMap<u64, Leaving> = LruHashMap::with_max_entries(1 << 12, 0);

/// Room to put one together.
#[map]
static DEPARTURE: PerCpuArray<Leaving> = PerCpuArray::with_max_entries(ROOMS, 0);

/// The room of a program on this CPU.
#[inline(always)]
pub(crate) fn room(room: u32) -> Option<&'static mut Leaving> {
    // SAFETY: as `super::scratch`.
    DEPARTURE
        .get_ptr_mut(room)
        .map(|room| unsafe { &mut *room })
}
