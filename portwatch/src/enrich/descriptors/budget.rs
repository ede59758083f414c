//! How much of the time goes into searches: whoever makes others fail to bind must not be able to
//! keep portwatch from reading its events.

use std::time::{Duration, Instant};

/// After so much of a second there are no more searches in it.
const SHARE: Duration = Duration::from_millis(200);
const WINDOW: Duration = Duration::from_secs(1);

/// What is left of it.
#[derive(Debug)]
pub(in crate::enrich) struct Budget {
    since: Instant,
    spent: Duration,
    limited: bool,
}

impl Budget {
    pub(in crate::enrich) fn limited() -> Self {
        Self {
            limited: true,
            ..Self::unlimited()
        }
    }

    pub(in crate::enrich) fn unlimited() -> Self {
        Self {
            since: Instant::now(),
            spent: Duration::ZERO,
            limited: false,
        }
    }

    /// Whether a search may begin now.
    pub(in crate::enrich) fn allows(&mut self, now: Instant) -> bool {
        if now.duration_since(self.since) >= WINDOW {
            self.since = now;
            self.spent = Duration::ZERO;
        }
        !self.limited || self.spent < SHARE
    }

    /// A search is over.
    pub(in crate::enrich) fn spend(&mut self, time: Duration) {
        self.spent += time;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_a_share_and_the_next_one_too() {
        let mut budget = Budget::limited();
        let now = budget.since;
        assert!(budget.allows(now));
        budget.spend(SHARE / 2);
        assert!(budget.allows(now));
        // One that has begun may take longer.
        budget.spend(2 * WINDOW);
        assert!(!budget.allows(now));
        assert!(!budget.allows(now + WINDOW / 2));
        assert!(budget.allows(now + WINDOW));
        let mut budget = Budget::unlimited();
        budget.spend(2 * WINDOW);
        assert!(budget.allows(now));
    }
}
