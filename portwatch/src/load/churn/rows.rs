//! The rows of the programs' table, mapped into this process.

use std::sync::atomic::{AtomicU64, Ordering};

use aya::Ebpf;
use portwatch_ebpf::abi::churn::{Counts, Hold, Row, state};

use super::{super::LoadError, mapped::Mapped};

/// The rows, where they lie.
pub struct Rows(Mapped<Row>);

impl Rows {
    pub(super) fn map(ebpf: &mut Ebpf, count: u32) -> Result<Self, LoadError> {
        Mapped::map(ebpf, "ROWS", count).map(Self)
    }

    /// How many there are, the tails too.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.0.len()
    }

    /// Whether there are none, which is never so.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn at(&self, index: u32) -> *mut Row {
        self.0.at(index)
    }

    /// The counters of a row, each read by itself.
    #[must_use]
    pub fn counts(&self, index: u32) -> Counts {
        let counts = self.word(index, std::mem::offset_of!(Row, counts));
        let read = |at: usize| {
            // SAFETY: a word of the counters.
            unsafe { (*counts.cast::<AtomicU64>().add(at)).load(Ordering::Acquire) }
        };
        // What comes later of a port is read before what comes earlier: a gauge is never below zero.
        let (odd_given, ended, given) = (read(7), read(4), read(2));
        let (held, timed) = (read(9), read(8));
        let (searched, searches) = (read(11), read(10));
        Counts {
            waited: read(3),
            odd: read(6),
            taken: read(0),
            found: read(1),
            failed: read(5),
            given,
            ended,
            odd_given,
            timed,
            held,
            searches,
            searched,
        }
    }

    /// What a row is about, if it is somebody's; its counters are not to be used.
    #[must_use]
    pub fn row(&self, index: u32) -> Option<Row> {
        let state = self.word(index, std::mem::offset_of!(Row, state));
        // SAFETY: a word of the row. What was written before it is ready does not change while it is.
        unsafe {
            let state = (*state.cast::<AtomicU64>()).load(Ordering::Acquire);
            (state == state::READY || state == state::LEFT).then(|| self.at(index).read_volatile())
        }
    }

    /// Gives a row up: no program takes it for its tuple's any more because it was so the last time.
    pub(super) fn leave(&self, index: u32) {
        let state = self.word(index, std::mem::offset_of!(Row, state));
        // SAFETY: a word of the row, which programs read.
        unsafe { (*state.cast::<AtomicU64>()).store(state::LEFT, Ordering::Release) };
    }

    /// Lets others have a row. Nobody may count there any more.
    pub fn free(&self, index: u32) {
        let row = self.at(index);
        let claims = self.word(index, std::mem::offset_of!(Row, claims));
        // SAFETY: a row that no program has found for a while, and that no port is held of.
        unsafe {
            let start = row.cast::<u8>();
            let rest = std::mem::offset_of!(Row, state);
            start.add(rest).write_bytes(0, size_of::<Row>() - rest);
            (*claims.cast::<AtomicU64>()).store(0, Ordering::Release);
        }
    }

    /// Counts a port that was given back unseen.
    pub(super) fn gone(&self, hold: Hold) {
        let counts = self.word(hold.row, std::mem::offset_of!(Row, counts));
        let add = |at: usize, value: u64| {
            // SAFETY: a word of the counters.
            unsafe { (*counts.cast::<AtomicU64>().add(at)).fetch_add(value, Ordering::AcqRel) };
        };
        add(2, 1);
        add(4, u64::from(hold.waits));
        add(7, u64::from(hold.port & 1));
    }

    fn word(&self, index: u32, offset: usize) -> *mut u64 {
        // SAFETY: within the row.
        unsafe { self.at(index).cast::<u8>().add(offset).cast() }
    }
}

// The order of the words above.
const _: () = {
    use std::mem::offset_of;
    assert!(offset_of!(Counts, taken) == 0);
    assert!(offset_of!(Counts, found) == 8);
    assert!(offset_of!(Counts, given) == 2 * 8);
    assert!(offset_of!(Counts, waited) == 3 * 8);
    assert!(offset_of!(Counts, ended) == 4 * 8);
    assert!(offset_of!(Counts, failed) == 5 * 8);
    assert!(offset_of!(Counts, odd) == 6 * 8);
    assert!(offset_of!(Counts, odd_given) == 7 * 8);
    assert!(offset_of!(Counts, timed) == 8 * 8);
    assert!(offset_of!(Counts, held) == 9 * 8);
    assert!(offset_of!(Counts, searches) == 10 * 8);
    assert!(offset_of!(Counts, searched) == 11 * 8);
    assert!(offset_of!(Row, claims) == 0);
};
