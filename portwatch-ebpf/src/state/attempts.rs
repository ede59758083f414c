//! Connection attempts: those whose outcome is open, and what the end of one leaves for its call.

use aya_ebpf::{
    macros::map,
    maps::{HashMap, LruHashMap, PerCpuArray},
};
use portwatch_ebpf::abi::record::SocketRecord;

use super::table::Table;
use crate::kernel::generation::ROOMS;

/// Connection attempts by socket: events, complete but for their outcome and local end, with their
/// start for `time`. Read by user space when the trace ends.
#[map]
pub(crate) static CONNECTING: HashMap<u64, SocketRecord> = HashMap::with_max_entries(8192, 0);

/// How an attempt stands in [`CONNECTING`]: bits of [`SocketRecord::phase`].
pub(crate) mod phase {
    /// Its call has not returned, and will be seen to.
    pub(crate) const CALLING: u8 = 1;
    /// When it began is not known: `time` is when its call returned.
    pub(crate) const LATE: u8 = 1 << 1;
}

/// What the last change of state of a socket leaves for the return of its connect(), which no longer
/// finds it in the socket. In a slot that another socket may take; then the return makes do without.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Note {
    /// The socket; 0 while the rest is written.
    pub(crate) sk: u64,
    /// When the outcome was known.
    pub(crate) at: u64,
    /// When the attempt began; 0 where the entry of the call tells.
    pub(crate) began: u64,
    /// The local end, the address as in a record.
    pub(crate) address: [u64; 2],
    pub(crate) port: u32,
    /// One of [`outcome`].
    pub(crate) outcome: u32,
    /// `sk_err` of a failure.
    pub(crate) error: u32,
    /// 1 in a copy: there must have been a note, and it was not found.
    pub(crate) gone: u32,
    /// 1 in a copy: there was a note.
    pub(crate) found: u32,
    /// Must be 0.
    pub(crate) reserved: u32,
}

/// What became of the attempt that a [`Note`] is about.
pub(crate) mod outcome {
    pub(crate) const FAILED: u32 = 0;
    pub(crate) const ESTABLISHED: u32 = 1;
}

#[unsafe(link_section = ".bss.NOTES")]
static NOTES: Table<Note, 1024> = Table::empty();

/// The slot of a socket.
#[inline(always)]
pub(crate) fn note_of(sk: u64) -> &'static mut Note {
    // Sockets of a slab lie a few kB apart.
    let slot = NOTES.slot(sk >> 6 ^ sk >> 16);
    // SAFETY: a slot of ours. Writers and readers say whose it is first and last: see `Note::sk`.
    unsafe { &mut *slot }
}

/// Room for a copy of the note that a program is telling from.
#[map]
static NOTE: PerCpuArray<Note> = PerCpuArray::with_max_entries(ROOMS, 0);

/// The room of a program on this CPU.
#[inline(always)]
pub(crate) fn note_room(room: u32) -> Option<&'static mut Note> {
    // SAFETY: as `super::scratch`.
    NOTE.get_ptr_mut(room).map(|room| unsafe { &mut *room })
}

/// A failure that is told, and that a call is yet to return with.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Told {
    /// Inode of the socket: an address is used again, this number is not.
    pub(crate) inode: u64,
    pub(crate) error: u64,
}

/// Such failures by socket, where attempts wait from SYN_SENT on. Not in slots: a call that does not find
/// its own tells the failure again. What no call picks up makes room for others in the end.
#[map]
pub(crate) static TOLD: LruHashMap<u64, Told> = LruHashMap::with_max_entries(4096, 0);

/// What need not be looked for as long as it has never happened: one word for each [`ever`].
#[unsafe(link_section = ".bss.EVER")]
static EVER: Table<u32, { ever::SLOTS }> = Table::empty();

/// Slots of [`EVER`].
pub(crate) mod ever {
    /// An attempt waits in `CONNECTING`.
    pub(crate) const WAITED: usize = 0;
    /// An open attempt went to SYN_RECV, where it may end.
    pub(crate) const MET: usize = 1;
    /// A failure was put into `TOLD`.
    pub(crate) const TOLD: usize = 2;
    pub(super) const SLOTS: usize = 4;
}

/// From now on it has happened.
#[inline(always)]
pub(crate) fn remember<const WHAT: usize>() {
    // SAFETY: one aligned word of ours, only ever set.
    unsafe { EVER.at::<WHAT>().write_volatile(1) };
}

/// Whether it may have happened: nothing needs to be looked for otherwise.
#[inline(always)]
pub(crate) fn happened<const WHAT: usize>() -> bool {
    // SAFETY: as above.
    unsafe { EVER.at::<WHAT>().read_volatile() != 0 }
}
