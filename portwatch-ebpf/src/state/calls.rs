//! Calls in flight: what their entries leave for their returns.

use core::mem::offset_of;

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::map,
    maps::{Array, HashMap},
};
use portwatch_ebpf::abi::calls::{self, Function};

use super::table::Table;
use crate::kernel::{memory::add, task::Ids};

/// What is kept of a call from its entry to its return.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    /// Arguments of the function, or what its entry has found out.
    pub(crate) first: u64,
    pub(crate) second: u64,
    pub(crate) third: u64,
    /// When it began; 0 where nobody wants to know.
    pub(crate) started: u64,
}

fn key(ids: Ids, function: Function) -> u64 {
    calls::key(ids.tid, function)
}

/// A place for a call in flight whose return cannot see its arguments, or whose being in flight
/// matters. A hash table for all calls would cost more than everything else that a kprobe does.
#[repr(C)]
struct Place {
    /// Calls that are in here or are about to see that another one is.
    claims: u64,
    /// Key of the call.
    who: u64,
    entry: Entry,
    /// 1 since a call that belongs here went to [`INFLIGHT`].
    spilled: u64,
    reserved: u64,
}

const _: () = assert!(
    size_of::<Place>() == size_of::<calls::Place>() && offset_of!(Place, who) == calls::WHO * 8
);

#[map]
static CALLS: Array<Place> = Array::with_max_entries(PLACES, 0);

/// Two for each thread, by the low bits of its id.
const PLACES: u32 = 4096;

/// Calls in flight that found their place taken.
#[map]
static INFLIGHT: HashMap<u64, Entry> = HashMap::with_max_entries(8192, 0);

#[inline(always)]
fn place(ids: Ids, function: Function) -> Option<*mut Place> {
    CALLS.get_ptr_mut((ids.tid << 1 | u32::from(function.is_outer())) & (PLACES - 1))
}

/// What became of a call that has entered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entered {
    /// It is remembered.
    Kept,
    /// It is remembered, and an earlier one of the same thread was still there: its return was missed.
    Replacing,
    /// There is no room for it.
    Full,
}

/// Remembers a call.
#[inline(always)]
pub(crate) fn enter(ids: Ids, function: Function, entry: &Entry) -> Entered {
    let key = key(ids, function);
    let Some(place) = place(ids, function) else {
        return Entered::Full;
    };
    // SAFETY: a slot of our map. Whoever has added the only claim, and nobody else, writes `who` and
    // `entry` until it takes its claim back. Reads of others are of aligned words.
    unsafe {
        let mut entered = Entered::Kept;
        if (&raw const (*place).who).read_volatile() == key {
            entered = Entered::Replacing;
        } else {
            add(&raw mut (*place).claims, 1);
            // The addition is a full barrier on x86: of two calls at least one sees the other. Another
            // machine needs BPF_FETCH for that (5.12).
            if (&raw const (*place).claims).read_volatile() != 1 {
                add(&raw mut (*place).claims, u64::MAX);
                (&raw mut (*place).spilled).write_volatile(1);
                if INFLIGHT.insert(key, entry, u64::from(BPF_NOEXIST)).is_ok() {
                    return Entered::Kept;
                }
                return match INFLIGHT.insert(key, entry, 0) {
                    Ok(()) => Entered::Replacing,
                    Err(_) => Entered::Full,
                };
            }
            (&raw mut (*place).who).write_volatile(key);
        }
        (*place).entry = *entry;
        if (&raw const (*place).spilled).read_volatile() != 0 && INFLIGHT.remove(key).is_ok() {
            entered = Entered::Replacing;
        }
        entered
    }
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

/// The first argument of that function if the task is inside it, else 0.
#[inline(always)]
pub(crate) fn inside(ids: Ids, function: Function) -> u64 {
    let key = key(ids, function);
    let Some(place) = place(ids, function) else {
        return 0;
    };
    // SAFETY: aligned words of our map.
    unsafe {
        if (&raw const (*place).who).read_volatile() == key {
            return (&raw const (*place).entry.first).read_volatile();
        }
        if (&raw const (*place).spilled).read_volatile() == 0 {
            return 0;
        }
    }
    match INFLIGHT.get_ptr(key) {
        // SAFETY: an entry of this task, which is inside the function.
        Some(entry) => unsafe { (*entry).first },
        None => 0,
    }
}

/// When a call began, in a slot that another task may overwrite: good enough for a duration, which
/// is then told as missing, and a fraction of the cost of a [`Place`].
#[repr(C)]
#[derive(Clone, Copy)]
struct Started {
    who: u64,
    at: u64,
}

#[unsafe(link_section = ".bss.STARTED")]
static STARTED: Table<Started, 4096> = Table::empty();

/// Remembers when the running task entered a function.
#[inline(always)]
pub(crate) fn start(ids: Ids, function: Function, at: u64) {
    // SAFETY: a slot of ours. A torn pair shows as another `who` or is one call's anyway.
    unsafe {
        *STARTED.slot(ids.tid.into()) = Started {
            who: key(ids, function),
            at,
        };
    }
}

/// When the running task entered the function it now leaves; 0 where that is not known. Told once: the
/// next call must not have it if the kernel skips the program at that entry.
#[inline(always)]
pub(crate) fn take_start(ids: Ids, function: Function) -> u64 {
    let slot = STARTED.slot(ids.tid.into());
    // SAFETY: a slot of ours.
    unsafe {
        let Started { who, at } = *slot;
        if who != key(ids, function) {
            return 0;
        }
        (*slot).who = 0;
        at
    }
}
