//! How often, and when.

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

/// Entries of a table: more than anybody reads, and no more memory than some megabytes.
const MOST: usize = 20_000;

/// The entry of a key, made if there is room for it.
pub(super) fn bounded<K: Hash + Eq, V: Default>(
    table: &mut HashMap<K, V>,
    key: K,
) -> Option<&mut V> {
    if table.len() >= MOST && !table.contains_key(&key) {
        return None;
    }
    Some(table.entry(key).or_default())
}
