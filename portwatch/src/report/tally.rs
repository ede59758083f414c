//! How often, and when; in tables of a bounded size.

use std::{collections::HashMap, hash::Hash};

use crate::event::Time;

/// How often something happened, first and last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) count: u64,
    pub(super) span: Option<(Time, Time)>,
}

impl Tally {
    pub(super) fn note(&mut self, time: Time) {
        self.count += 1;
        self.span = Some((self.span.map_or(time, |(first, _)| first), time));
    }
}

/// Something that was counted.
pub(super) trait Counted {
    /// How often.
    fn count(&self) -> u64;
}

impl Counted for Tally {
    fn count(&self) -> u64 {
        self.count
    }
}

impl Counted for u64 {
    fn count(&self) -> u64 {
        *self
    }
}

impl<A, B> Counted for (Tally, A, B) {
    fn count(&self) -> u64 {
        self.0.count
    }
}

/// Entries of a table: more than anybody reads, and no more memory than some megabytes.
const MOST: usize = 20_000;

/// The entry of a key, which is made if need be. Where there is no room for it, those that happened
/// least often go: `gone` counts what was counted under their names. So nobody can hide what happens often
/// behind many things that happen once.
pub(super) fn bounded<'a, K: Hash + Eq, V: Default + Counted>(
    table: &'a mut HashMap<K, V>,
    key: K,
    gone: &mut u64,
) -> &'a mut V {
    if table.len() >= MOST && !table.contains_key(&key) {
        let mut counts: Vec<u64> = table.values().map(V::count).collect();
        let (_, middle, _) = counts.select_nth_unstable(MOST / 2);
        let middle = *middle;
        // Of those that happened equally often, some stay.
        let mut excess = MOST / 2;
        table.retain(|_, value| {
            let count = value.count();
            let goes = count <= middle && excess > 0;
            if goes {
                excess -= 1;
                *gone += count;
            }
            !goes
        });
    }
    table.entry(key).or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_often_stays_whatever_comes_once() {
        let mut table: HashMap<u32, u64> = HashMap::new();
        let mut gone = 0;
        for round in 0..3 * MOST as u32 {
            *bounded(&mut table, 1_000_000 + round, &mut gone) += 1;
            if round % 100 == 0 {
                *bounded(&mut table, 7, &mut gone) += 1;
            }
        }
        assert_eq!(table[&7], 3 * MOST as u64 / 100);
        assert!(table.len() <= MOST);
        let all: u64 = table.values().sum();
        assert_eq!(all + gone, 3 * MOST as u64 + 3 * MOST as u64 / 100);
    }
}
