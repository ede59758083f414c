//! One slot for each network namespace, on each CPU.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::map,
    maps::{Array, HashMap, PerCpuArray},
};
use portwatch_ebpf::abi::churn::{PLACES, Place};

use crate::kernel::memory::add;

/// Slot of a network namespace, by its inode.
#[map]
static PLACE_SLOTS: HashMap<u32, u32> = HashMap::with_max_entries(PLACES - 1, 0);

/// How many programs want a slot, or have it: see `rows::claim`. User space frees those of namespaces that
/// are gone.
#[map]
static PLACE_CLAIMS: Array<u64> = Array::with_max_entries(PLACES, 0);

#[map]
static PLACE_COUNTS: PerCpuArray<Place> = PerCpuArray::with_max_entries(PLACES, 0);

/// Slots that are tried for a new namespace.
const PROBES: u32 = 32;

/// The slot of a network namespace; 0, that of all others, where there is no room.
#[inline(always)]
pub(crate) fn of(netns: u32) -> u32 {
    if let Some(slot) = known(netns) {
        return slot;
    }
    let Some(slot) = claim(netns) else {
        return 0;
    };
    if PLACE_SLOTS
        .insert(netns, slot, u64::from(BPF_NOEXIST))
        .is_ok()
    {
        return slot;
    }
    if let Some(claims) = PLACE_CLAIMS.get_ptr_mut(slot) {
        // SAFETY: a word of our map.
        unsafe { add(claims, u64::MAX) };
    }
    known(netns).unwrap_or(0)
}

#[inline(always)]
fn known(netns: u32) -> Option<u32> {
    // SAFETY: a word.
    unsafe { PLACE_SLOTS.get(netns) }.copied()
}

#[inline(always)]
fn claim(netns: u32) -> Option<u32> {
    for round in 0..PROBES {
        // Inodes of namespaces are counted up.
        let slot = 1 + netns.wrapping_add(round.wrapping_mul(7)) % (PLACES - 1);
        let claims = PLACE_CLAIMS.get_ptr_mut(slot)?;
        // SAFETY: a word of our map.
        unsafe {
            if claims.read_volatile() != 0 {
                continue;
            }
            add(claims, 1);
            if claims.read_volatile() == 1 {
                return Some(slot);
            }
            add(claims, u64::MAX);
        }
    }
    None
}

/// The slot's counters on this CPU.
#[inline(always)]
pub(crate) fn counts(slot: u32) -> Option<*mut Place> {
    PLACE_COUNTS.get_ptr_mut(slot)
}
