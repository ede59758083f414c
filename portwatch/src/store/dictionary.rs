//! Rows that many others refer to: each is written once and known by its number from then on, as long
//! as it is remembered.

use std::{hash::Hash, num::NonZeroUsize};

use lru::LruCache;

use super::row::Id;

/// What is remembered of a table: the rows that were used last, with a bound on their number and one on
/// their size.
#[derive(Debug)]
pub(super) struct Dictionary<K: Hash + Eq> {
    known: LruCache<K, (Id, usize)>,
    next: Id,
    weight: usize,
    limit: usize,
}

impl<K: Hash + Eq + Clone> Dictionary<K> {
    /// An empty one, of at most so many rows and bytes. Numbers begin with `next`.
    pub(super) fn new(rows: NonZeroUsize, bytes: usize, next: Id) -> Self {
        Self {
            known: LruCache::new(rows),
            next,
            weight: 0,
            limit: bytes,
        }
    }

    /// A row that is in its table already.
    pub(super) fn learn(&mut self, id: Id, row: K, weight: usize, forget: impl FnMut(Id)) {
        self.next = self.next.max(id + 1);
        self.put(row, id, weight, forget);
    }

    /// The number of a row, and whether it is new: then it has to be written. `forget` is told of rows
    /// that will not be referred to any more.
    pub(super) fn number(&mut self, row: &K, weight: usize, forget: impl FnMut(Id)) -> (Id, bool) {
        if let Some((id, _)) = self.known.get(row) {
            return (*id, false);
        }
        let id = self.next;
        self.next += 1;
        self.put(row.clone(), id, weight, forget);
        (id, true)
    }

    fn put(&mut self, row: K, id: Id, weight: usize, mut forget: impl FnMut(Id)) {
        self.weight += weight;
        if let Some((_, (old, gone))) = self.known.push(row, (id, weight)) {
            self.weight -= gone;
            if old != id {
                forget(old);
            }
        }
        while self.weight > self.limit && self.known.len() > 1 {
            if let Some((_, (old, gone))) = self.known.pop_lru() {
                self.weight -= gone;
                forget(old);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const THREE: NonZeroUsize = NonZeroUsize::MIN.saturating_add(2);

    #[test]
    fn a_row_is_new_once() {
        let mut dictionary = Dictionary::new(THREE, 100, 7);
        let mut number = |row| dictionary.number(&row, 1, |_| ());
        assert_eq!(number("a"), (7, true));
        assert_eq!(number("b"), (8, true));
        assert_eq!(number("a"), (7, false));
    }

    #[test]
    fn numbers_go_on_behind_those_that_are_taken() {
        let mut dictionary = Dictionary::new(THREE, 100, 1);
        dictionary.learn(40, "a", 1, |_| ());
        assert_eq!(dictionary.number(&"a", 1, |_| ()), (40, false));
        assert_eq!(dictionary.number(&"b", 1, |_| ()), (41, true));
    }

    proptest! {
        /// Whatever is asked for: a number stands for one row, and what is remembered and what was
        /// forgotten are all there ever was.
        #[test]
        fn numbers_stand_for_rows(rows in proptest::collection::vec((0u8..9, 1usize..60), 0..80)) {
            let mut dictionary = Dictionary::new(THREE, 100, 1);
            let mut held = HashSet::new();
            let mut meaning = std::collections::HashMap::new();
            for (row, weight) in rows {
                let mut forgotten = Vec::new();
                let (id, is_new) = dictionary.number(&row, weight, |id| forgotten.push(id));
                prop_assert_eq!(is_new, held.insert(id));
                prop_assert_eq!(*meaning.entry(id).or_insert(row), row);
                for old in forgotten {
                    prop_assert!(held.remove(&old) && old != id);
                }
                prop_assert_eq!(held.len(), dictionary.known.len());
                prop_assert!(held.len() <= 3);
                prop_assert!(dictionary.weight <= 100 || held.len() == 1);
            }
        }
    }
}
