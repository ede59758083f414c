//! The places: side by side in a bucket, which is found by a port's number.

use aya_ebpf::{macros::map, maps::Array};
use portwatch_ebpf::abi::churn::{Bucket, EMPTIED, ENDED, HOLD_BUCKETS, Hold, Slot, WAYS};

use crate::kernel::memory::add;

/// BPF_F_MMAPABLE (include/uapi/linux/bpf.h)
const MAPPED: u32 = 1 << 10;

#[map]
static HOLD_SLOTS: Array<Bucket> = Array::with_max_entries(HOLD_BUCKETS, MAPPED);

/// A bucket by its number.
#[inline(always)]
pub(super) fn bucket(home: u32) -> Option<*mut Bucket> {
    HOLD_SLOTS.get_ptr_mut(home)
}

/// One of its places.
#[inline(always)]
fn way(bucket: *mut Bucket, way: usize) -> *mut Slot {
    // SAFETY: within the bucket.
    unsafe { (&raw mut (*bucket).slots).cast::<Slot>().add(way) }
}

/// The one of these places that a socket has.
#[inline(always)]
pub(super) fn among(bucket: *mut Bucket, sk: u64) -> Option<*mut Slot> {
    for at in 0..WAYS {
        let slot = way(bucket, at);
        // SAFETY: a word of our map.
        if unsafe { (&raw const (*slot).sk).read_volatile() } == sk {
            return Some(slot);
        }
    }
    None
}

/// How many of the bucket are in the hash table.
#[inline(always)]
pub(super) fn spilled(bucket: *mut Bucket) -> u64 {
    // SAFETY: a word of our map.
    unsafe { (&raw const (*bucket).spilled).read_volatile() }
}

/// Makes one of these places a socket's.
#[inline(always)]
pub(super) fn claim(bucket: *mut Bucket, sk: u64, hold: &Hold) -> Option<*mut Slot> {
    for at in 0..WAYS {
        // SAFETY: a slot of the bucket. Whoever has added the only claim, and nobody else, writes it until it takes
        // its claim back.
        unsafe {
            let slot = way(bucket, at);
            let claims = &raw mut (*slot).claims;
            // The lower half.
            let count = claims.cast::<u32>();
            if count.read_volatile() != 0 {
                continue;
            }
            add(claims, 1);
            // A full barrier on x86: of two at least one sees the other (see `state::calls`).
            if count.read_volatile() == 1 {
                (&raw mut (*slot).hold).write_volatile(*hold);
                (&raw mut (*slot).sk).write_volatile(sk);
                return Some(slot);
            }
            add(claims, u64::MAX);
        }
    }
    None
}

/// Adds a claim on a place that a socket has, so that user space leaves it alone; false where that was faster, and
/// counts it then.
#[inline(always)]
pub(super) fn reclaim(slot: *mut Slot, sk: u64) -> bool {
    // SAFETY: words of a slot of our map.
    unsafe {
        let claims = &raw mut (*slot).claims;
        add(claims, 1);
        // In this order: user space takes the socket out before it says that it is done.
        let is_ended = claims.read_volatile() & ENDED != 0;
        if !is_ended && (&raw const (*slot).sk).read_volatile() == sk {
            return true;
        }
        add(claims, u64::MAX);
    }
    false
}

/// Empties a place that a socket has; false where user space was faster.
#[inline(always)]
pub(super) fn empty(slot: *mut Slot, sk: u64) -> bool {
    if !reclaim(slot, sk) {
        return false;
    }
    // SAFETY: words of a slot of our map, which is ours.
    unsafe {
        (&raw mut (*slot).sk).write_volatile(0);
        // The claim above, and that of who has made it the socket's.
        add(&raw mut (*slot).claims, EMPTIED - 2);
    }
    true
}
