//! All processes, by several threads at once.

use std::{
    num::NonZeroUsize,
    os::fd::BorrowedFd,
    sync::{
        Mutex, MutexGuard, PoisonError,
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
    /// What the tables of threads show, by inode and process, where that is to be listed.
    pub(super) of_threads: Vec<(u64, u32)>,
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
    aim: Aim<'a>,
}

/// What it is for.
#[derive(Debug)]
enum Aim<'a> {
    /// To find these; it ends when that is done.
    Find(Mutex<&'a mut Targets>),
    /// To list all places, to the end: of all sockets, or of those that are wanted.
    List {
        others: bool,
        of_threads: Mutex<Vec<(u64, u32)>>,
    },
}

impl<'a> Scan<'a> {
    /// For what is still under search.
    pub(super) fn new(proc: BorrowedFd<'a>, targets: &'a mut Targets, limits: &'a Limits) -> Self {
        Self {
            proc,
            limits,
            inodes: targets.open(),
            aim: Aim::Find(Mutex::new(targets)),
        }
    }

    /// For a list of all places of these sockets, or of all.
    pub(super) fn list(
        proc: BorrowedFd<'a>,
        inodes: &[u64],
        others: bool,
        limits: &'a Limits,
    ) -> Self {
        let mut inodes = inodes.to_vec();
        inodes.sort_unstable();
        let of_threads = Mutex::default();
        Self {
            proc,
            limits,
            inodes,
            aim: Aim::List { others, of_threads },
        }
    }

    /// Does it, by at most so many threads.
    pub(super) fn run(self, workers: usize) -> Outcome {
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
            of_threads: match self.aim {
                Aim::Find(_) => Vec::new(),
                Aim::List { of_threads, .. } => of_threads
                    .into_inner()
                    .unwrap_or_else(PoisonError::into_inner),
            },
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
                    let named = thread::Builder::new().name("descriptors".to_owned());
                    named.spawn_scoped(scope, work).ok()
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
                let is_kept = match self.aim {
                    Aim::Find(_) | Aim::List { others: true, .. } => true,
                    Aim::List { others: false, .. } => self.is_wanted(inode),
                };
                if is_kept && entries.len() < LIMIT {
                    entries.push(Entry { inode, pid, fd });
                }
                if let Aim::Find(targets) = &self.aim {
                    self.find(targets, inode, pid);
                }
            });
            let look = match look {
                // A kernel thread, an ended process, or one whose first thread has ended.
                Look::Whole(0) => {
                    threads::sockets(self.proc, pid, self.limits, |inode| match &self.aim {
                        Aim::Find(targets) => self.find(targets, inode, pid),
                        Aim::List { of_threads, .. } if self.is_wanted(inode) => {
                            lock(of_threads).push((inode, pid));
                        }
                        Aim::List { .. } => {}
                    })
                }
                look => look,
            };
            missed = missed.max(look.missed());
        }
        (entries, missed)
    }

    fn is_wanted(&self, inode: u64) -> bool {
        self.inodes.binary_search(&inode).is_ok()
    }

    fn find(&self, targets: &Mutex<&mut Targets>, inode: u64, pid: u32) {
        if !self.is_wanted(inode) {
            return;
        }
        let mut targets = lock(targets);
        if targets.hit(inode, pid) && targets.settle(table::distinct) {
            self.limits.stop();
        }
    }
}

/// A thread that panicked has changed nothing by halves.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
