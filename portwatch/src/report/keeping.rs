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
    /// Takes what a further run says.
    pub fn add(&mut self, keeping: Keeping) {
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

    /// What there is not and may have happened all the same, in words; `None` where everything was kept.
    #[must_use]
    pub fn words(self) -> Option<String> {
        let Self { least, filtered } = self;
        let what = match least {
            Some(Keep::Conflicts) => Some("conflicts"),
            Some(Keep::Failures) => Some("failures"),
            Some(Keep::All) | None => None,
        };
        let passed = "what the recorder's filters let pass";
        match (what, filtered) {
            (None, false) => None,
            (None, true) => Some(format!("kept was only {passed}")),
            (Some(what), false) => Some(format!("kept were only {what}")),
            (Some(what), true) => Some(format!("kept were only {what}, of {passed}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_that_was_kept_is_told() {
        let of = |runs: &[(Keep, bool)]| {
            let mut kept = Kept::default();
            for &(keep, filtered) in runs {
                kept.add(Keeping {
                    keep,
                    filtered,
                    alive: None,
                });
            }
            kept.words().unwrap_or_default()
        };
        assert_eq!(of(&[]), "");
        assert_eq!(of(&[(Keep::All, false)]), "");
        assert_eq!(
            of(&[(Keep::All, true)]),
            "kept was only what the recorder's filters let pass"
        );
        let failures = (Keep::Failures, false);
        assert_eq!(
            of(&[failures, (Keep::All, false)]),
            "kept were only failures"
        );
        assert_eq!(
            of(&[failures, (Keep::Conflicts, true)]),
            "kept were only conflicts, of what the recorder's filters let pass"
        );
    }
}
