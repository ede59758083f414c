//! What is looked for, and what of it was found. No I/O.

use std::collections::BTreeMap;

use super::{Found, Wanted};

/// Up to so many processes are compared with each other to tell whether they share a descriptor
/// table; a socket of more is searched for everywhere.
const COMPARED: usize = 32;

/// Sockets under search, by inode.
#[derive(Debug, Default)]
pub(super) struct Targets {
    targets: BTreeMap<u64, Target>,
}

#[derive(Debug, Default)]
struct Target {
    /// At least one asker does not know them, so all processes have to be looked at.
    references: Option<u32>,
    likely: Vec<u32>,
    /// Entries found in the table of each process.
    entries: BTreeMap<u32, u32>,
    /// Whether all were found, once that is known.
    complete: Option<bool>,
}

impl Target {
    /// Whether every reference is accounted for. Processes that share a table show the same entry
    /// several times, so tables are told apart by `distinct`.
    fn is_whole(&self, distinct: impl Fn(u32, u32) -> bool) -> bool {
        let Some(references) = self.references else {
            return false;
        };
        let found = self
            .entries
            .values()
            .fold(0u32, |sum, &entries| sum.saturating_add(entries));
        let mut pids = self.entries.keys();
        found >= references
            && self.entries.len() <= COMPARED
            && std::iter::from_fn(|| pids.next().map(|&pid| (pid, pids.clone())))
                .all(|(pid, mut others)| others.all(|&other| distinct(pid, other)))
    }
}

impl Targets {
    /// A socket asked for twice is one.
    pub(super) fn new(wanted: &[Wanted]) -> Self {
        let mut targets = BTreeMap::new();
        for &Wanted {
            inode,
            references,
            likely,
        } in wanted
        {
            let target = targets.entry(inode).or_insert_with(|| Target {
                references,
                // The kernel gives no file the number 0 (fs/inode.c, `get_next_ino`).
                complete: (inode == 0).then_some(true),
                ..Target::default()
            });
            target.references = target
                .references
                .zip(references)
                .map(|(one, other)| one.max(other));
            target.likely.extend(likely.into_iter().flatten());
        }
        Self { targets }
    }

    /// A process has an entry; returns whether the socket is looked for.
    pub(super) fn hit(&mut self, inode: u64, pid: u32) -> bool {
        match self.targets.get_mut(&inode) {
            Some(target) if target.complete.is_none() => {
                let entries = target.entries.entry(pid).or_default();
                *entries = entries.saturating_add(1);
                true
            }
            _ => false,
        }
    }

    /// Looks which searches are over; returns whether all are.
    pub(super) fn settle(&mut self, distinct: impl Fn(u32, u32) -> bool) -> bool {
        for target in self.targets.values_mut() {
            if target.complete.is_none() && target.is_whole(&distinct) {
                target.complete = Some(true);
            }
        }
        self.settled()
    }

    /// Whether all searches are over.
    pub(super) fn settled(&self) -> bool {
        self.targets
            .values()
            .all(|target| target.complete.is_some())
    }

    /// Ends all searches.
    pub(super) fn close(&mut self, complete: bool) {
        for target in self.targets.values_mut() {
            target.complete.get_or_insert(complete);
        }
    }

    /// Inodes under search, in order.
    pub(super) fn open(&self) -> Vec<u64> {
        self.under_search().map(|(inode, _)| inode).collect()
    }

    /// Inodes under search that nothing was found of, in order.
    pub(super) fn nowhere(&self) -> Vec<u64> {
        self.under_search()
            .filter(|(_, target)| target.entries.is_empty())
            .map(|(inode, _)| inode)
            .collect()
    }

    /// Who probably has what is under search.
    pub(super) fn likely(&self) -> impl Iterator<Item = u32> {
        self.under_search()
            .flat_map(|(_, target)| target.likely.iter().copied())
    }

    fn under_search(&self) -> impl Iterator<Item = (u64, &Target)> {
        self.targets
            .iter()
            .filter(|(_, target)| target.complete.is_none())
            .map(|(&inode, target)| (inode, target))
    }

    /// Before a process is looked at again.
    pub(super) fn forget_process(&mut self, pid: u32) {
        for target in self.targets.values_mut() {
            if target.complete.is_none() {
                target.entries.remove(&pid);
            }
        }
    }

    /// Before all processes are looked at again.
    pub(super) fn forget(&mut self) {
        for target in self.targets.values_mut() {
            if target.complete.is_none() {
                target.entries.clear();
            }
        }
    }

    /// The answer.
    pub(super) fn found(&self, wanted: &Wanted) -> Found {
        self.targets
            .get(&wanted.inode)
            .map(|target| Found {
                pids: target.entries.keys().copied().collect(),
                complete: target.complete.unwrap_or(false),
            })
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(inode: u64, references: Option<u32>) -> Wanted {
        Wanted {
            inode,
            references,
            likely: [None; 2],
        }
    }

    fn found(pids: &[u32], complete: bool) -> Found {
        Found {
            pids: pids.to_vec(),
            complete,
        }
    }

    #[test]
    fn entries_are_counted_up_to_the_references() {
        let mut targets = Targets::new(&[wanted(7, Some(3))]);
        assert!(targets.hit(7, 20));
        assert!(targets.hit(7, 20));
        assert!(!targets.hit(8, 20));
        assert!(!targets.settle(|_, _| true));
        assert!(targets.hit(7, 10));
        assert!(targets.settle(|_, _| true));
        assert!(!targets.hit(7, 30), "after the end");
        assert_eq!(targets.found(&wanted(7, Some(3))), found(&[10, 20], true));
    }

    #[test]
    fn the_same_table_in_two_processes_is_not_counted_twice() {
        let mut targets = Targets::new(&[wanted(7, Some(2))]);
        targets.hit(7, 10);
        targets.hit(7, 11);
        assert!(!targets.settle(|_, _| false));
        targets.hit(7, 12);
        assert!(!targets.settle(|one, other| (one, other) != (10, 11)));
        assert!(targets.settle(|_, _| true));
    }

    #[test]
    fn unknown_references_are_never_all_found() {
        let mut targets = Targets::new(&[wanted(7, Some(1)), wanted(7, None)]);
        targets.hit(7, 10);
        assert!(!targets.settle(|_, _| true));
        targets.close(false);
        assert_eq!(targets.found(&wanted(7, None)), found(&[10], false));
    }

    #[test]
    fn a_socket_of_very_many_is_not_compared() {
        let mut targets = Targets::new(&[wanted(7, Some(33))]);
        for pid in 0..33 {
            targets.hit(7, pid);
        }
        assert!(!targets.settle(|_, _| panic!("compared")));
    }

    #[test]
    fn a_socket_without_a_file_is_nobodys() {
        let targets = Targets::new(&[wanted(0, None)]);
        assert!(targets.settled());
        assert_eq!(targets.found(&wanted(0, None)), found(&[], true));
    }

    #[test]
    fn what_is_settled_is_not_forgotten() {
        let mut targets = Targets::new(&[wanted(7, Some(1)), wanted(8, Some(2))]);
        targets.hit(7, 10);
        targets.hit(8, 10);
        assert!(!targets.settle(|_, _| true));
        assert!(targets.nowhere().is_empty());
        targets.forget_process(10);
        assert_eq!(targets.nowhere(), [8]);
        targets.hit(8, 11);
        targets.forget();
        assert_eq!(targets.open(), [8]);
        targets.close(true);
        assert_eq!(targets.found(&wanted(7, None)), found(&[10], true));
        assert_eq!(targets.found(&wanted(8, None)), found(&[], true));
    }
}
