//! What recorders kept: what there is not may have happened all the same.

use crate::{event::Time, store::keep::Keep};

/// What a run of the recorder says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keeping {
    /// What it kept.
    pub keep: Keep,
    /// Of what its filters let pass.
    pub filtered: bool,
    /// When it said last that it was there, with nothing to keep.
    pub alive: Option<Time>,
}

/// What all of them kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Some kept less than everything; this is the least of it.
    pub least: Option<Keep>,
    /// Some had filters.
    pub filtered: bool,
}

impl Kept {
    pub(super) fn add(&mut self, keeping: Keeping) {
        let rank = |keep| match keep {
            Keep::Conflicts => 0,
            Keep::Failures => 1,
            Keep::All => 2,
        };
        if keeping.keep != Keep::All
            && self
                .least
                .is_none_or(|least| rank(keeping.keep) < rank(least))
        {
            self.least = Some(keeping.keep);
        }
        self.filtered |= keeping.filtered;
    }
}
