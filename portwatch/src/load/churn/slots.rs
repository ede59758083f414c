//! The places for ports that are held, mapped into this process.

use std::sync::atomic::{AtomicU64, Ordering};

use aya::Ebpf;
use portwatch_ebpf::abi::churn::{Bucket, EMPTIED, ENDED, Hold, Slot, WAYS};

use super::{super::LoadError, mapped::Mapped};

/// The buckets of places, where they lie.
pub(super) struct Slots(Mapped<Bucket>);

impl Slots {
    pub(super) fn map(ebpf: &mut Ebpf, buckets: u32) -> Result<Self, LoadError> {
        Mapped::map(ebpf, "HOLD_SLOTS", buckets).map(Self)
    }

    /// Takes out what is gone.
    pub(super) fn gone(&self, is_gone: &impl Fn(&Hold) -> bool) -> Vec<Hold> {
        (0..self.0.len())
            .flat_map(|index| (0..WAYS).map(move |way| (index, way)))
            // SAFETY: a slot of the map, which the programs write word by word.
            .filter_map(|(index, way)| unsafe {
                let slots = &raw mut (*self.0.at(index)).slots;
                end(slots.cast::<Slot>().add(way), is_gone)
            })
            .collect()
    }

    /// A port of this bucket has been taken out of the hash table.
    pub(super) fn unspill(&self, home: u16) {
        if u32::from(home) >= self.0.len() {
            return;
        }
        let bucket = self.0.at(home.into());
        // SAFETY: a word of the map.
        unsafe { AtomicU64::from_ptr(&raw mut (*bucket).spilled) }.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Takes out what one place holds, if that is gone.
///
/// # Safety
/// It is a slot, of which others write nothing but whole words.
unsafe fn end(slot: *mut Slot, is_gone: impl Fn(&Hold) -> bool) -> Option<Hold> {
    // SAFETY: words of the slot.
    let (claims, sk) = unsafe {
        (
            AtomicU64::from_ptr(&raw mut (*slot).claims),
            AtomicU64::from_ptr(&raw mut (*slot).sk),
        )
    };
    // SAFETY: plain integers.
    let hold = || unsafe { (&raw const (*slot).hold).read_volatile() };
    let before = claims.load(Ordering::Acquire);
    // With another claim a program is about to take it, or to take it out.
    if before & u64::from(u32::MAX) != 1
        || sk.load(Ordering::Acquire) == 0
        || !is_gone(&hold())
        // Emptied meanwhile, and another's perhaps, the word would not be the same.
        || claims
            .compare_exchange(before, before + ENDED, Ordering::AcqRel, Ordering::Relaxed)
            .is_err()
    {
        return None;
    }
    // From here on programs leave it alone.
    let hold = hold();
    sk.store(0, Ordering::Release);
    claims.fetch_add(EMPTIED - ENDED - 1, Ordering::AcqRel);
    Some(hold)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(claims: u64, look: u32) -> Slot {
        Slot {
            claims,
            sk: 7,
            hold: Hold {
                since: 1,
                row: 2,
                look,
                port: 40_000,
                place: 1,
                how: 1,
                waits: 0,
                home: 0,
            },
        }
    }

    fn ended(slot: &mut Slot, number: u32) -> Option<Hold> {
        // SAFETY: nobody else knows it.
        unsafe { end(slot, |hold| hold.look != number) }
    }

    #[test]
    fn what_no_look_has_seen_is_taken_out() {
        let mut one = slot(1, 3);
        assert_eq!(ended(&mut one, 4), Some(slot(1, 3).hold));
        assert_eq!((one.claims, one.sk), (EMPTIED, 0));
        assert_eq!(ended(&mut one, 5), None);
    }

    #[test]
    fn what_has_been_emptied_often_is_taken_out_too() {
        let mut one = slot(1 + 9 * EMPTIED, 3);
        assert!(ended(&mut one, 4).is_some());
        assert_eq!((one.claims, one.sk), (10 * EMPTIED, 0));
    }

    #[test]
    fn what_was_seen_or_is_being_written_stays() {
        let being_filled = Slot {
            sk: 0,
            ..slot(1, 3)
        };
        let emptied = Slot {
            claims: 7 * EMPTIED,
            sk: 0,
            ..slot(0, 3)
        };
        for before in [slot(1, 4), slot(0, 3), slot(2, 3), being_filled, emptied] {
            let mut one = before;
            assert_eq!(ended(&mut one, 4), None);
            assert_eq!(one, before);
        }
    }
}
