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
use crate::event::Missed;

/// Processes per thread: starting a thread costs as much as looking at some ten of the usual ones.
const SHARE: NonZeroUsize = NonZeroUsize::MIN.saturating_add(31);

/// Rounds for processes that started since the last one.
const ROUNDS: usize = 3;

/// What a scan has seen.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Sockets in descriptor tables, wanted or not; up to [`LIMIT`] of each thread.
    pub(super) entries: Vec<Entry>,
    /// Processes that could not be looked at.
    pub(super) missed: Missed,
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
    wanted_alone: bool,
}

impl<'a> Scan<'a> {
    /// For what is still under search.
    pub(super) fn new(proc: BorrowedFd<'a>, targets: &'a mut Targets, limits: &'a Limits) -> Self {
        Self {
            proc,
            limits,
            inodes: targets.open(),
            targets: Mutex::new(targets),
            wanted_alone: false,
        }
    }

    /// Entries of what is wanted and of nothing else, to the end: only what the tables of threads show is
    /// put into the targets.
    pub(super) fn wanted_alone(self) -> Self {
        Self {
            wanted_alone: true,
            ..self
        }
    }

    /// Does it, by at most so many threads.
    pub(super) fn run(&self, workers: usize) -> Outcome {
        let (mut pids, mut missed) = processes(self.proc, self.limits);
        // Who hides processes (`hidepid=invisible`, proc(5)) hides those of others, and of these
        // there is always one: nothing runs in a pid namespace after its init.
        if missed == Missed::Nothing && pids.binary_search(&1).is_err() {
            missed = Missed::Hidden;
        }
        let mut entries = Vec::new();
        let mut new = pids.clone();
        for _ in 0..ROUNDS {
            missed = missed.max(self.round(&new, workers, &mut entries));
            if self.limits.stopped() {
                break;
            }
            // A process that forks and ends hands its sockets to one that was not there before.
            let (now, all) = processes(self.proc, self.limits);
            missed = missed.max(all);
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
            missed,
            stopped: self.limits.stopped(),
        }
    }

    fn round(&self, pids: &[u32], workers: usize, entries: &mut Vec<Entry>) -> Missed {
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
            let (seen, mut missed) = work();
            entries.extend(seen);
            for helper in helpers {
                match helper.join() {
                    Ok((seen, all)) => {
                        entries.extend(seen);
                        missed = missed.max(all);
                    }
                    Err(_) => missed = missed.max(Missed::Unread),
                }
            }
            missed
        })
    }

    /// Takes one process after another until none is left.
    fn work(&self, pids: &[u32], next: &AtomicUsize) -> (Vec<Entry>, Missed) {
        let mut entries = Vec::new();
        let mut missed = Missed::Nothing;
        while let Some(&pid) = pids.get(next.fetch_add(1, Ordering::Relaxed))
            && !self.limits.stopped()
        {
            if self.limits.late() {
                return (entries, missed.max(Missed::Unread));
            }
            let look = table::sockets(self.proc, &format!("{pid}/fd"), self.limits, |fd, inode| {
                let is_wanted = self.is_wanted(inode);
                if (is_wanted || !self.wanted_alone) && entries.len() < LIMIT {
                    entries.push(Entry { inode, pid, fd });
                }
                // Who wants the entries goes through to the end, and counts them then.
                if is_wanted && !self.wanted_alone {
                    self.see(inode, pid);
                }
            });
            let look = match look {
                // A kernel thread, an ended process, or one whose first thread has ended.
                Look::Whole(0) => threads::sockets(self.proc, pid, self.limits, |inode| {
                    self.see(inode, pid);
                }),
                look => look,
            };
            missed = missed.max(look.missed());
        }
        (entries, missed)
    }

    fn is_wanted(&self, inode: u64) -> bool {
        self.inodes.binary_search(&inode).is_ok()
    }

    fn see(&self, inode: u64, pid: u32) {
        if !self.is_wanted(inode) {
            return;
        }
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = targets.hit(inode, pid);
        // Looks at all of them: too much for each of thousands.
        if is_new && !self.wanted_alone && targets.settle(table::distinct) {
            self.limits.stop();
        }
    }
}

/// Pids of all processes, in order, and what was missed of their list.
pub(super) fn processes(proc: BorrowedFd<'_>, limits: &Limits) -> (Vec<u32>, Missed) {
    let mut pids = Vec::new();
    let look = table::numbers(proc, ".", limits, |_, _, pid| {
        pids.push(pid);
        Ok(())
    });
    pids.sort_unstable();
    let missed = match look {
        // Not there at all: all is missing.
        Look::Gone => Missed::Unread,
        look => look.missed(),
    };
    (pids, missed)
}
