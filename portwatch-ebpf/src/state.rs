//! What the programs remember between two calls. Sizes are bounds: what does not fit is counted.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, PerCpuArray},
};
use portwatch_ebpf::abi::{config::MAX_CGROUPS, record::SocketRecord};

use crate::kernel::{generation::ROOMS, memory::add, task::Ids};

/// Processes already announced, by the low bits of their id: see `kernel::image`.
#[map]
pub(crate) static ANNOUNCED: Array<u64> = Array::with_max_entries(ANNOUNCED_SLOTS, 0);

/// Slots of [`ANNOUNCED`], a power of two.
pub(crate) const ANNOUNCED_SLOTS: u32 = 1024;

/// Process ids wanted.
#[map]
pub(crate) static PIDS: HashMap<u32, u8> = HashMap::with_max_entries(1024, 0);

/// User ids wanted.
#[map]
pub(crate) static UIDS: HashMap<u32, u8> = HashMap::with_max_entries(1024, 0);

/// Network namespaces wanted.
#[map]
pub(crate) static NETNS: HashMap<u32, u8> = HashMap::with_max_entries(1024, 0);

/// One bit for each port wanted: local ports, then peer ports.
#[map]
pub(crate) static PORTS: Array<u64> = Array::with_max_entries(2 * PORT_WORDS, 0);

/// Words of [`PORTS`] for one side.
pub(crate) const PORT_WORDS: u32 = 65536 / 64;

/// Cgroups wanted: id in the lower 56 bits, depth in the upper 8; 0 ends the list.
#[map]
pub(crate) static CGROUPS: Array<u64> = Array::with_max_entries(MAX_CGROUPS, 0);

/// The command that is followed and its descendants, by process id.
#[map]
pub(crate) static DESCENDANTS: HashMap<u32, u8> = HashMap::with_max_entries(65536, 0);

/// Arguments of a call, kept from its entry to its return.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) first: u64,
    pub(crate) second: u64,
    pub(crate) third: u64,
    /// When it began; 0 where nobody wants to know.
    pub(crate) started: u64,
}

/// The functions whose calls are kept; a nested call of another function has a key of its own.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum Function {
    Bind = 1,
    Listen = 2,
    Connect4 = 3,
    Connect6 = 4,
    ConnectDatagram = 5,
    ConnectStream = 6,
    Autobind = 7,
    RefuseBind = 8,
    RefuseListen = 9,
    RefuseConnect = 10,
    PreConnect = 11,
    ListenEarly = 12,
    ConnectAgain = 13,
}

impl Function {
    /// Whether the time of its entry is needed for more than a duration.
    pub(crate) fn tells_when(self) -> bool {
        matches!(
            self,
            Self::Connect4 | Self::Connect6 | Self::PreConnect | Self::ConnectDatagram
        )
    }

    /// Whether another function of these may be called inside it.
    fn is_outer(self) -> bool {
        matches!(
            self,
            Self::ListenEarly | Self::Connect6 | Self::ConnectDatagram | Self::ConnectAgain
        )
    }
}

fn key(ids: Ids, function: Function) -> u64 {
    u64::from(ids.tid) << 8 | function as u64
}

/// A place for a call in flight whose return cannot see its arguments, or whose being in flight
/// matters. A hash table for all calls would cost more than everything else that a kprobe does.
#[repr(C)]
struct Call {
    /// Calls that are in here or are about to see that another one is.
    claims: u64,
    /// Key of the call.
    who: u64,
    entry: Entry,
    /// 1 since a call that belongs here went to [`INFLIGHT`].
    spilled: u64,
    reserved: u64,
}

const _: () = assert!(size_of::<Call>() == 64);

#[map]
static CALLS: Array<Call> = Array::with_max_entries(CALL_SLOTS, 0);

/// Two for each thread, by the low bits of its id.
const CALL_SLOTS: u32 = 4096;

/// Calls in flight that found their place taken.
#[map]
static INFLIGHT: HashMap<u64, Entry> = HashMap::with_max_entries(8192, 0);

#[inline(always)]
fn place(ids: Ids, function: Function) -> Option<*mut Call> {
    CALLS.get_ptr_mut((ids.tid << 1 | u32::from(function.is_outer())) & (CALL_SLOTS - 1))
}

/// Remembers a call; false when the table is full.
#[inline(always)]
pub(crate) fn enter(ids: Ids, function: Function, entry: &Entry) -> bool {
    let key = key(ids, function);
    let Some(place) = place(ids, function) else {
        return false;
    };
    // SAFETY: a slot of our map. Whoever has added the only claim, and nobody else, writes `who` and
    // `entry` until it takes its claim back. Reads of others are of aligned words.
    unsafe {
        // Its own is there if the return of an earlier call was missed.
        if (&raw const (*place).who).read_volatile() != key {
            add(&raw mut (*place).claims, 1);
            // An addition is a full barrier on x86: of two calls at least one sees the other.
            if (&raw const (*place).claims).read_volatile() != 1 {
                add(&raw mut (*place).claims, u64::MAX);
                (&raw mut (*place).spilled).write_volatile(1);
                return INFLIGHT.insert(key, entry, 0).is_ok();
            }
            (&raw mut (*place).who).write_volatile(key);
        }
        (*place).entry = *entry;
        if (&raw const (*place).spilled).read_volatile() != 0 {
            // What an earlier call has left there whose return was missed.
            let _ = INFLIGHT.remove(key);
        }
    }
    true
}

/// Forgets a call and returns what was remembered.
#[inline(always)]
pub(crate) fn leave(ids: Ids, function: Function) -> Option<Entry> {
    let key = key(ids, function);
    let place = place(ids, function)?;
    // SAFETY: as in `enter`.
    unsafe {
        if (&raw const (*place).who).read_volatile() == key {
            let entry = (*place).entry;
            (&raw mut (*place).who).write_volatile(0);
            add(&raw mut (*place).claims, u64::MAX);
            return Some(entry);
        }
        if (&raw const (*place).spilled).read_volatile() == 0 {
            return None;
        }
    }
    // SAFETY: the value is copied before the entry goes; nobody else writes an entry of this task.
    let entry = unsafe { INFLIGHT.get(key) }.copied();
    if entry.is_some() {
        let _ = INFLIGHT.remove(key);
    }
    entry
}

/// Whether the task is inside that function.
#[inline(always)]
pub(crate) fn inside(ids: Ids, function: Function) -> bool {
    let key = key(ids, function);
    let Some(place) = place(ids, function) else {
        return false;
    };
    // SAFETY: aligned words of our map.
    let (who, spilled) = unsafe {
        (
            (&raw const (*place).who).read_volatile(),
            (&raw const (*place).spilled).read_volatile(),
        )
    };
    who == key || spilled != 0 && INFLIGHT.get_ptr(key).is_some()
}

/// When a call began, in a slot that another task may overwrite: good enough for a duration, which
/// is then told as missing, and a fraction of the cost of [`INFLIGHT`].
#[repr(C)]
#[derive(Clone, Copy)]
struct Started {
    who: u64,
    at: u64,
}

#[map]
static STARTED: Array<Started> = Array::with_max_entries(STARTED_SLOTS, 0);

const STARTED_SLOTS: u32 = 4096;

/// Remembers when the running task entered a function.
#[inline(always)]
pub(crate) fn start(ids: Ids, function: Function, at: u64) {
    if let Some(slot) = STARTED.get_ptr_mut(ids.tid & (STARTED_SLOTS - 1)) {
        // SAFETY: a slot of our map. A torn pair shows as another `who` or is one call's anyway.
        unsafe {
            *slot = Started {
                who: key(ids, function),
                at,
            }
        };
    }
}

/// When the running task entered the function it now leaves; 0 where that is not known.
#[inline(always)]
pub(crate) fn started(ids: Ids, function: Function) -> u64 {
    let Some(slot) = STARTED.get_ptr(ids.tid & (STARTED_SLOTS - 1)) else {
        return 0;
    };
    // SAFETY: a slot of our map.
    let Started { who, at } = unsafe { *slot };
    if who == key(ids, function) { at } else { 0 }
}

/// Forgets when the running task entered a function: its next call must not have it if the kernel skips
/// the program at that entry.
#[inline(always)]
pub(crate) fn forget_start(ids: Ids, function: Function) {
    if let Some(slot) = STARTED.get_ptr_mut(ids.tid & (STARTED_SLOTS - 1)) {
        // SAFETY: a slot of our map.
        unsafe {
            if (*slot).who == key(ids, function) {
                (*slot).who = 0;
            }
        }
    }
}

/// Room to put an attempt together: too large for the stack beside everything else, and memory that
/// the verifier does not follow (see `kernel::memory::set`).
#[map]
static SCRATCH: PerCpuArray<SocketRecord> = PerCpuArray::with_max_entries(ROOMS, 0);

/// The room of a program on this CPU.
#[inline(always)]
pub(crate) fn scratch(room: u32) -> Option<&'static mut SocketRecord> {
    // SAFETY: a program has its room to itself while it runs (see `kernel::generation::Generation::ROOM`).
    SCRATCH.get_ptr_mut(room).map(|room| unsafe { &mut *room })
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
}

/// What became of the attempt that a [`Note`] is about.
pub(crate) mod outcome {
    pub(crate) const FAILED: u32 = 0;
    pub(crate) const ESTABLISHED: u32 = 1;
    /// It has failed, and that is told.
    pub(crate) const TOLD: u32 = 2;
}

#[map]
static NOTES: Array<Note> = Array::with_max_entries(NOTE_SLOTS, 0);

const NOTE_SLOTS: u32 = 1024;

/// The slot of a socket.
#[inline(always)]
pub(crate) fn note_of(sk: u64) -> Option<&'static mut Note> {
    // Sockets of a slab lie a few kB apart.
    let slot = (sk >> 6 ^ sk >> 16) as u32 & (NOTE_SLOTS - 1);
    // SAFETY: a slot of our map. Writers and readers say whose it is first and last: see `Note::sk`.
    NOTES.get_ptr_mut(slot).map(|slot| unsafe { &mut *slot })
}

/// Room for a copy of the note that a program is telling from.
#[map]
static NOTE: PerCpuArray<Note> = PerCpuArray::with_max_entries(ROOMS, 0);

/// The room of a program on this CPU.
#[inline(always)]
pub(crate) fn note_room(room: u32) -> Option<&'static mut Note> {
    // SAFETY: as `scratch`.
    NOTE.get_ptr_mut(room).map(|room| unsafe { &mut *room })
}

/// Where an attempt stands in [`CONNECTING`] that waits from SYN_SENT on: `kind` of the record's header,
/// which is written when the record is sent.
pub(crate) mod phase {
    /// Its call has not returned, and will be seen to.
    pub(crate) const CALLING: u16 = 1;
}

/// Connection attempts by socket: events, complete but for their outcome and local end, with their
/// start for `time`. Read by user space when the trace ends.
#[map]
pub(crate) static CONNECTING: HashMap<u64, SocketRecord> = HashMap::with_max_entries(8192, 0);

/// What has happened at least once since the trace began: one word, for each [`ever`].
#[map]
static EVER: Array<u32> = Array::with_max_entries(ever::SLOTS, 0);

/// Slots of [`EVER`]: what need not be looked for as long as it has never happened.
pub(crate) mod ever {
    /// An attempt waits in `CONNECTING`.
    pub(crate) const WAITED: u32 = 0;
    /// An open attempt went to SYN_RECV, where it may end.
    pub(crate) const MET: u32 = 1;
    pub(super) const SLOTS: u32 = 2;
}

/// Notes that something has happened.
#[inline(always)]
pub(crate) fn note(what: u32) {
    if let Some(seen) = EVER.get_ptr_mut(what) {
        // SAFETY: one aligned word of our map, only ever set.
        unsafe { seen.write_volatile(1) };
    }
}

/// Whether it has.
#[inline(always)]
pub(crate) fn has(what: u32) -> bool {
    EVER.get_ptr(what)
        // SAFETY: as above.
        .is_some_and(|seen| unsafe { seen.read_volatile() } != 0)
}
