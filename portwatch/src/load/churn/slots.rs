//! The places for ports that are held, mapped into this process.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use aya::Ebpf;
use portwatch_ebpf::abi::churn::{GONE, Hold, Holder, Slot, WAYS};

use super::{super::LoadError, mapped::Mapped};

/// The places, where they lie.
pub(super) struct Slots(Mapped<Slot>);

impl Slots {
    pub(super) fn map(ebpf: &mut Ebpf, buckets: u32) -> Result<Self, LoadError> {
        // A bucket is its slots, one beside the other.
        Mapped::map(ebpf, "HOLD_SLOTS", buckets * WAYS as u32).map(Self)
    }

    /// What is held and was not seen by the look of this number, each marked as gone; what an earlier look has marked
    /// is taken out.
    pub(super) fn gone(&self, number: u32) -> Vec<Hold> {
        (0..self.0.len())
            // SAFETY: a slot of the map, which the programs write word by word.
            .filter_map(|index| unsafe { end(self.0.at(index), number) })
            .collect()
    }
}

/// What one place holds, if the look of this number has not seen it.
///
/// # Safety
/// It is a slot, of which others write nothing but whole words.
unsafe fn end(slot: *mut Slot, number: u32) -> Option<Hold> {
    // SAFETY: words of the slot.
    let (claims, look) = unsafe {
        (
            AtomicU64::from_ptr(&raw mut (*slot).claims),
            AtomicU32::from_ptr(&raw mut (*slot).hold.look),
        )
    };
    if claims.load(Ordering::Acquire) != 1 {
        return None;
    }
    let seen = look.load(Ordering::Acquire);
    if seen == number {
        return None;
    }
    if seen == GONE {
        // No program has known it since the last look.
        // SAFETY: members of the slot, which programs leave alone.
        unsafe {
            (&raw mut (*slot).holder).write_volatile(Holder::NOBODY);
        }
        look.store(0, Ordering::Release);
        claims.store(0, Ordering::Release);
        return None;
    }
    // SAFETY: plain integers. Should they become another port's meanwhile, that has the number of this look, and the
    // exchange fails.
    let hold = unsafe { (&raw const (*slot).hold).read_volatile() };
    look.compare_exchange(seen, GONE, Ordering::AcqRel, Ordering::Relaxed)
        .is_ok()
        .then_some(hold)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(claims: u64, look: u32) -> Slot {
        Slot {
            claims,
            holder: Holder {
                ends: 7,
                ..Holder::NOBODY
            },
            hold: Hold {
                since: 1,
                row: 2,
                look,
                port: 40_000,
                place: 1,
                how: 1,
                waits: 0,
                reserved: 0,
            },
        }
    }

    fn ended(slot: &mut Slot, number: u32) -> Option<Hold> {
        // SAFETY: nobody else knows it.
        unsafe { end(slot, number) }
    }

    #[test]
    fn what_no_look_has_seen_is_told_once_and_then_taken_out() {
        let mut one = slot(1, 3);
        let told = ended(&mut one, 4);
        assert_eq!(told, Some(slot(1, 3).hold));
        assert_eq!((one.claims, one.hold.look), (1, GONE));
        assert_eq!(ended(&mut one, 5), None);
        assert_eq!(
            (one.claims, one.holder, one.hold.look),
            (0, Holder::NOBODY, 0)
        );
    }

    #[test]
    fn what_was_seen_or_is_being_written_stays() {
        for before in [slot(1, 4), slot(0, 3), slot(2, 3)] {
            let mut one = before;
            assert_eq!(ended(&mut one, 4), None);
            assert_eq!(one, before);
        }
    }
}
