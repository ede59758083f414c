//! A cache with two bounds: entries and bytes. Arguments may be two hundred times longer in one
//! process than in another, so a number of entries alone bounds no memory.

use std::{hash::Hash, num::NonZeroUsize};

use lru::LruCache;

/// What an entry weighs, so that the cache can keep to its limit.
pub trait Weigh {
    /// Memory behind the value, bytes, roughly.
    fn weight(&self) -> usize;
}

/// What an entry takes besides, bytes, roughly: list links, hash table, allocations.
pub const OVERHEAD: usize = 128;

/// The most recently used entries, as many as fit.
#[derive(Debug)]
pub struct Cache<K: Hash + Eq, V> {
    entries: LruCache<K, (V, usize)>,
    bytes: usize,
    limit: usize,
}

impl<K: Hash + Eq, V: Weigh> Cache<K, V> {
    /// A cache of at most so many entries and so many bytes. An entry heavier than that is kept
    /// until the next one comes.
    #[must_use]
    pub fn new(entries: NonZeroUsize, bytes: usize) -> Self {
        Self {
            entries: LruCache::new(entries),
            bytes: 0,
            limit: bytes,
        }
    }

    /// The entry of a key.
    pub fn get(&mut self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|(value, _)| value)
    }

    /// Takes an entry out.
    pub fn take(&mut self, key: &K) -> Option<V> {
        let (value, weight) = self.entries.pop(key)?;
        self.bytes -= weight;
        Some(value)
    }

    /// Puts an entry in, over what the key had before.
    pub fn put(&mut self, key: K, value: V) {
        let weight = value.weight();
        self.bytes += weight;
        if let Some((_, (_, gone))) = self.entries.push(key, (value, weight)) {
            self.bytes -= gone;
        }
        while self.bytes > self.limit && self.entries.len() > 1 {
            if let Some((_, (_, gone))) = self.entries.pop_lru() {
                self.bytes -= gone;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Weigh for usize {
        fn weight(&self) -> usize {
            *self
        }
    }

    fn at<K: Hash + Eq>(cache: &mut Cache<K, usize>, key: K) -> Option<usize> {
        cache.get(&key).copied()
    }

    const THREE: NonZeroUsize = NonZeroUsize::MIN.saturating_add(2);

    #[test]
    fn the_oldest_goes_when_there_are_too_many() {
        let mut cache = Cache::new(THREE, 100);
        for key in 0..4 {
            cache.put(key, 1usize);
        }
        assert_eq!(at(&mut cache, 0), None);
        assert_eq!(at(&mut cache, 3), Some(1));
    }

    #[test]
    fn the_oldest_go_when_they_are_too_heavy() {
        let mut cache = Cache::new(THREE, 100);
        cache.put(0, 50usize);
        cache.put(1, 40usize);
        assert_eq!(at(&mut cache, 0), Some(50));
        cache.put(2, 60usize);
        assert_eq!((at(&mut cache, 0), at(&mut cache, 1)), (None, None));
        assert_eq!(at(&mut cache, 2), Some(60));
        cache.put(3, 1000usize);
        assert_eq!((at(&mut cache, 2), at(&mut cache, 3)), (None, Some(1000)));
    }

    #[test]
    fn a_new_value_takes_the_place_of_the_old() {
        let mut cache = Cache::new(THREE, 100);
        cache.put(0, 90usize);
        cache.put(0, 80usize);
        cache.put(1, 10usize);
        assert_eq!((at(&mut cache, 0), at(&mut cache, 1)), (Some(80), Some(10)));
    }

    #[test]
    fn what_is_taken_out_weighs_nothing() {
        let mut cache = Cache::new(THREE, 100);
        cache.put(0, 90usize);
        assert_eq!(cache.take(&0), Some(90));
        assert_eq!(cache.take(&0), None);
        cache.put(1, 50usize);
        cache.put(2, 50usize);
        assert_eq!((at(&mut cache, 1), at(&mut cache, 2)), (Some(50), Some(50)));
    }

    proptest! {
        #[test]
        fn the_bounds_hold(puts in proptest::collection::vec((0u8..8, 0usize..150), 0..60)) {
            let mut cache = Cache::new(THREE, 100);
            for (key, weight) in puts {
                cache.put(key, weight);
                let sum: usize = cache.entries.iter().map(|(_, (_, weight))| weight).sum();
                prop_assert_eq!(cache.bytes, sum);
                prop_assert!(cache.entries.len() <= 3);
                prop_assert!(sum <= 100 || cache.entries.len() == 1);
                prop_assert_eq!(at(&mut cache, key), Some(weight));
            }
        }
    }
}
