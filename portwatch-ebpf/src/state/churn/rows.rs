//! One row for each tuple and process, found by a hash table. Rows lie in an array that user space has
//! mapped: it reads them without a system call, and takes back those that have become idle.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::map,
    maps::{Array, HashMap, PerCpuArray},
};
use portwatch_ebpf::abi::churn::{Counts, Key, Row, TAILS, state};

use super::places;
use crate::kernel::memory::{add, config};

/// BPF_F_MMAPABLE (include/uapi/linux/bpf.h)
const MAPPED: u32 = 1 << 10;

/// Tuples at most; the loader may set another number, here and below.
const TUPLES: u32 = 100_000;

/// Index of a row by what it is about.
#[map]
static TUPLE_ROWS: HashMap<Key, u32> = HashMap::with_max_entries(TUPLES, 0);

/// The rows.
#[map]
static ROWS: Array<Row> = Array::with_max_entries(TUPLES + TAILS, MAPPED);

/// Places that are tried for a new row. With one of sixteen free, all of them are taken once in sixty
/// times; then the row is added to the tail, and the next event of its tuple tries again.
const PROBES: u32 = 64;

/// The last row that was found on this CPU, and above it the slot of its network namespace: mostly a process
/// takes one port after the other for the same tuple, and a look here costs a tenth of two in hash tables. User
/// space writes 0 when it gives a slot to another namespace; a row that it takes back says so itself.
#[map]
static LAST_ROW: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Index of the row of a key, which `fill` completes if it is new, and the slot of its network namespace. Where
/// there is no row it is the tail, which has the index of that slot.
#[inline(always)]
pub(crate) fn of(key: &Key, fill: impl FnOnce(&mut Row)) -> (u32, u32) {
    let last = LAST_ROW.get_ptr_mut(0);
    if let Some(last) = last {
        // SAFETY: a word of our map.
        let last = unsafe { last.read_volatile() };
        let row = last as u32;
        if last != 0 && is_of(row, key) {
            return (row, (last >> 32) as u32);
        }
    }
    let slot = places::of(key.netns);
    let Some(row) = known(key) else {
        return (new(key, slot, fill), slot);
    };
    if let Some(last) = last {
        // SAFETY: as above.
        unsafe { last.write_volatile(u64::from(slot) << 32 | u64::from(row)) };
    }
    (row, slot)
}

/// Whether a row is about that, and nobody has given it up.
#[inline(always)]
fn is_of(row: u32, key: &Key) -> bool {
    const WORDS: usize = size_of::<Key>() / 8;
    let Some(row) = ROWS.get_ptr(row) else {
        return false;
    };
    // SAFETY: whole words, aligned as such.
    let [one, other] = unsafe {
        [
            (&raw const (*row).key).cast::<u64>(),
            (&raw const *key).cast(),
        ]
    };
    // Not one by one: each word would be the end of a path for the verifier to follow.
    // SAFETY: a word of our map.
    let mut differ = unsafe { (&raw const (*row).state).read_volatile() } ^ state::READY;
    let mut at = 0;
    while at < WORDS {
        // SAFETY: within both.
        differ |= unsafe { one.add(at).read_volatile() ^ other.add(at).read() };
        at += 1;
    }
    differ == 0
}

/// A new row for it.
#[inline(always)]
fn new(key: &Key, tail: u32, fill: impl FnOnce(&mut Row)) -> u32 {
    let Some(at) = claim(key) else {
        return tail;
    };
    let Some(row) = ROWS.get_ptr_mut(at) else {
        return tail;
    };
    // SAFETY: a slot of our map, which is ours since it was claimed; user space looks at it when it is
    // ready.
    unsafe {
        (&raw mut (*row).key).write_volatile(*key);
        fill(&mut *row);
    }
    if TUPLE_ROWS.insert(key, at, u64::from(BPF_NOEXIST)).is_ok() {
        // SAFETY: as above.
        unsafe { (&raw mut (*row).state).write_volatile(state::READY) };
        return at;
    }
    // SAFETY: as above: given back.
    unsafe { add(&raw mut (*row).claims, u64::MAX) };
    // Another CPU was first, or there is no room.
    known(key).unwrap_or(tail)
}

#[inline(always)]
fn known(key: &Key) -> Option<u32> {
    // SAFETY: a word. Should user space take the row back at this moment, what is counted there is still
    // looked at before it becomes another's (`portwatch/src/churn/rows.rs`).
    unsafe { TUPLE_ROWS.get(key) }.copied()
}

/// Finds a free row and makes it ours. Whoever has added the only claim has it.
#[inline(always)]
fn claim(key: &Key) -> Option<u32> {
    let rows = config!(rows);
    let size = rows.wrapping_sub(TAILS);
    if rows <= TAILS {
        return None;
    }
    let [local, more] = key.local;
    let [peer, rest] = key.peer;
    let mixed =
        (key.process ^ local ^ more.rotate_left(24) ^ peer.rotate_left(16) ^ rest.rotate_left(40))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .wrapping_add(u64::from(key.peer_port) << 32 | u64::from(key.netns));
    let hint = (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32;
    for round in 0..PROBES {
        let at = TAILS + hint.wrapping_add(round) % size;
        let row = ROWS.get_ptr_mut(at)?;
        // SAFETY: a word of our map.
        unsafe {
            let claims = &raw mut (*row).claims;
            if claims.read_volatile() != 0 {
                continue;
            }
            add(claims, 1);
            // A full barrier on x86: of two at least one sees the other (see `state::calls`).
            if claims.read_volatile() == 1 {
                return Some(at);
            }
            add(claims, u64::MAX);
        }
    }
    None
}

/// The counters of a row.
#[inline(always)]
pub(crate) fn counts(row: u32) -> Option<*mut Counts> {
    let row = ROWS.get_ptr_mut(row)?;
    // SAFETY: within the slot.
    Some(unsafe { &raw mut (*row).counts })
}

/// Writes the errno of a failure.
#[inline(always)]
pub(crate) fn failed(row: u32, errno: u32) {
    if let Some(row) = ROWS.get_ptr_mut(row) {
        // SAFETY: a word of our map.
        unsafe { (&raw mut (*row).errno).write_volatile(errno) };
    }
}
