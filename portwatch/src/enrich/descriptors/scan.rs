//! All processes, by several threads at once.

use std::{
    num::NonZeroUsize,
    os::fd::BorrowedFd,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use super::{
    memory::{Entry, LIMIT},
    table::{self, Limits, Look},
    targets::Targets,
    threads,
};

/// Processes per thread: starting a thread costs as much as looking at some ten of the usual ones.
const SHARE: NonZeroUsize = NonZeroUsize::MIN.saturating_add(31);

/// Rounds for processes that started since the last one.
const ROUNDS: usize = 3;

/// What a scan has seen.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Sockets in descriptor tables, wanted or not.
    pub(super) entries: Vec<Entry>,
    /// Every process could be looked at.
    pub(super) whole: bool,
    /// It ended early, because everything was found.
    pub(super) stopped: bool,
}

/// A scan of all processes.
#[derive(Debug)]
pub(super) struct Scan<'a> {
    proc: BorrowedFd<'a>,
    limits: &'a Limits,
    inodes: Vec<u64>,
    targets: Mutex<&'a mut Targets>,
}

impl<'a> Scan<'a> {
    /// For what is still under search.
    pub(super) fn new(proc: BorrowedFd<'a>, targets: &'a mut Targets, limits: &'a Limits) -> Self {
        Self {
            proc,
            limits,
            inodes: targets.open(),
            targets: Mutex::new(targets),
        }
    }

    /// Does it, by at most so many threads.
    pub(super) fn run(&self, workers: usize) -> Outcome {
        let (mut pids, mut whole) = processes(self.proc, self.limits);
        // Who hides processes (`hidepid=invisible`, proc(5)) hides those of others, and of these
        // there is always one: nothing runs in a pid namespace after its init.
        whole &= pids.binary_search(&1).is_ok();
        let mut entries = Vec::new();
        let mut new = pids.clone();
        for _ in 0..ROUNDS {
            whole &= self.round(&new, workers, &mut entries);
            if self.limits.stopped() {
                break;
            }
            // A process that forks and ends hands its sockets to one that was not there before.
            let (now, all) = processes(self.proc, self.limits);
            whole &= all;
            new = now;
            new.retain(|pid| pids.binary_search(pid).is_err());
            if new.is_empty() {
                break;
            }
            pids.extend(&new);
            pids.sort_unstable();
        }
        Outcome {
            entries,
            whole,
            stopped: self.limits.stopped(),
        }
    }

    fn round(&self, pids: &[u32], workers: usize, entries: &mut Vec<Entry>) -> bool {
        let next = AtomicUsize::new(0);
        let work = || self.work(pids, &next);
        let helpers = workers
            .min(pids.len().div_ceil(SHARE.get()))
            .saturating_sub(1);
        thread::scope(|scope| {
            // One that cannot be started leaves its work to the others.
            let helpers: Vec<_> = (0..helpers)
                .filter_map(|_| {
                    thread::Builder::new()
                        .name("descriptors".to_owned())
                        .spawn_scoped(scope, work)
                        .ok()
                })
                .collect();
            let (seen, mut whole) = work();
            entries.extend(seen);
            for helper in helpers {
                match helper.join() {
                    Ok((seen, all)) => {
                        entries.extend(seen);
                        whole &= all;
                    }
                    Err(_) => whole = false,
                }
            }
            whole
        })
    }

    /// Takes one process after another until none is left.
    fn work(&self, pids: &[u32], next: &AtomicUsize) -> (Vec<Entry>, bool) {
        let mut entries = Vec::new();
        let mut whole = true;
        while let Some(&pid) = pids.get(next.fetch_add(1, Ordering::Relaxed))
            && !self.limits.stopped()
        {
            if self.limits.late() {
                return (entries, false);
            }
            let look = table::sockets(self.proc, &format!("{pid}/fd"), self.limits, |fd, inode| {
                if entries.len() < LIMIT {
                    entries.push(Entry { inode, pid, fd });
                }
                self.see(inode, pid);
            });
            whole &= match look {
                // A kernel thread, an ended process, or one whose first thread has ended.
                Look::Whole(0) => threads::sockets(self.proc, pid, self.limits, |inode| {
                    self.see(inode, pid);
                })
                .is_complete(),
                look => look.is_complete(),
            };
        }
        (entries, whole)
    }

    fn see(&self, inode: u64, pid: u32) {
        if self.inodes.binary_search(&inode).is_err() {
            return;
        }
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        if targets.hit(inode, pid) && targets.settle(table::distinct) {
            self.limits.stop();
        }
    }
}

/// Pids of all processes, in order, and whether they could be listed.
pub(super) fn processes(proc: BorrowedFd<'_>, limits: &Limits) -> (Vec<u32>, bool) {
    let mut pids = Vec::new();
    let look = table::numbers(proc, ".", limits, |_, _, pid| {
        pids.push(pid);
        Ok(())
    });
    pids.sort_unstable();
    // Not there at all is not gone: it is hidden.
    (pids, matches!(look, Look::Whole(_)))
}
