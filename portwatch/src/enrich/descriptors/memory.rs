//! Where sockets were seen: a hint where to look first, never an answer.

/// A socket in a descriptor table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Inode of the socket.
    pub inode: u64,
    /// Process, by its pid in `/proc`.
    pub pid: u32,
    /// Descriptor.
    pub fd: u32,
}

/// Entries remembered: 16 bytes each, 4 MB where a machine has so many descriptors of sockets.
pub const LIMIT: usize = 250_000;

/// Sorted and without repetition: half the size of a hash table, and filled by one sort, which takes
/// 0.3 ms for the 20,000 entries that took 40 ms to read.
#[derive(Debug, Default)]
pub(super) struct Memory {
    entries: Vec<Entry>,
}

impl Memory {
    /// How many entries.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Where a socket was seen.
    pub(super) fn of(&self, inode: u64) -> &[Entry] {
        let start = self.entries.partition_point(|entry| entry.inode < inode);
        let rest = self.entries.get(start..).unwrap_or_default();
        let length = rest.partition_point(|entry| entry.inode == inode);
        rest.get(..length).unwrap_or_default()
    }

    /// One more; over the limit it takes the place of another.
    pub(super) fn put(&mut self, entry: Entry) {
        let Err(place) = self.entries.binary_search(&entry) else {
            return;
        };
        if self.entries.len() < LIMIT {
            self.entries.insert(place, entry);
        } else if let Some(other) = self.entries.get_mut(place.min(LIMIT - 1)) {
            // What it takes the place of came after it or, at the end, was the last: the order holds.
            *other = entry;
        }
    }

    /// What part of the processes has; the others may still have what they had.
    pub(super) fn add(&mut self, mut entries: Vec<Entry>) {
        entries.truncate(LIMIT);
        let room = LIMIT - entries.len();
        entries.extend(self.entries.iter().take(room));
        self.replace(entries);
    }

    /// What all processes have.
    pub(super) fn replace(&mut self, mut entries: Vec<Entry>) {
        entries.truncate(LIMIT);
        entries.sort_unstable();
        entries.dedup();
        entries.shrink_to_fit();
        self.entries = entries;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(inode: u64, pid: u32, fd: u32) -> Entry {
        Entry { inode, pid, fd }
    }

    #[test]
    fn an_entry_is_sixteen_bytes() {
        assert_eq!(size_of::<Entry>(), 16);
    }

    #[test]
    fn every_place_of_a_socket_is_told() {
        let mut memory = Memory::default();
        memory.replace(vec![
            entry(7, 20, 3),
            entry(9, 10, 3),
            entry(7, 10, 4),
            entry(7, 10, 4),
        ]);
        assert_eq!(memory.of(7), [entry(7, 10, 4), entry(7, 20, 3)]);
        assert_eq!(memory.of(8), []);
        memory.put(entry(8, 1, 1));
        memory.put(entry(8, 1, 1));
        assert_eq!(memory.of(8), [entry(8, 1, 1)]);
        memory.add(vec![entry(9, 11, 3)]);
        assert_eq!(memory.of(9), [entry(9, 10, 3), entry(9, 11, 3)]);
        memory.replace(Vec::new());
        assert_eq!(memory.of(7), []);
    }

    #[test]
    fn there_is_an_end_to_it() {
        let many = |from: u64| (from..from + LIMIT as u64 + 50_000).map(|inode| entry(inode, 1, 1));
        let mut memory = Memory::default();
        memory.replace(many(0).collect());
        assert_eq!(memory.entries.len(), LIMIT);
        for inode in [5, 50_000, 1_000_000] {
            memory.put(entry(inode, 2, 2));
            assert_eq!(memory.entries.len(), LIMIT);
            assert!(memory.of(inode).contains(&entry(inode, 2, 2)));
            assert!(memory.entries.is_sorted());
        }
        memory.add(many(500_000).collect());
        assert_eq!(memory.entries.len(), LIMIT);
        assert!(memory.entries.capacity() <= LIMIT);
        assert_eq!(memory.of(500_000).len(), 1);
    }

    proptest! {
        #[test]
        fn what_was_put_in_is_found(
            entries in proptest::collection::vec((0u64..9, 0u32..4, 0u32..4), 0..40),
            split in 0usize..40,
        ) {
            let mut entries: Vec<Entry> =
                entries.into_iter().map(|(inode, pid, fd)| entry(inode, pid, fd)).collect();
            let mut memory = Memory::default();
            let later = entries.split_off(split.min(entries.len()));
            memory.replace(entries.clone());
            for &entry in &later {
                memory.put(entry);
            }
            entries.extend(later);
            entries.sort_unstable();
            entries.dedup();
            for inode in 0..9 {
                let expected: Vec<Entry> =
                    entries.iter().filter(|entry| entry.inode == inode).copied().collect();
                prop_assert_eq!(memory.of(inode), expected);
            }
        }
    }
}
