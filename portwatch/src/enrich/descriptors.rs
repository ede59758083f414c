//! Which processes have a descriptor of a socket, now: links like `/proc/PID/fd/3 -> socket:[INODE]`
//! (proc_pid_fd(5)).
//!
//! The kernel keeps no way back from a socket to its processes, so `/proc` is searched, the cheapest
//! way first: where the socket was seen before, then the process that probably has it, then all.
//! Nothing is answered from memory: pids and inodes are given out again, so that every answer has
//! been read from a link during the call. The search ends early where the references to the open
//! file are all found; running system calls hold references too, and then it goes through to its end.
//!
//! Three things it cannot see: a descriptor that moves during the search from a process still to come
//! to one that has been looked at; after an early end, a process that shares its descriptor table
//! (`clone(CLONE_FILES)`) with one that was found; and, where another process was found, a thread
//! with a table of its own.

pub(super) mod budget;
mod link;
mod memory;
mod opened;
mod scan;
mod table;
mod targets;
#[cfg(test)]
mod tests;
mod threads;

use std::{
    collections::{BTreeSet, HashSet},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use budget::Budget;
use memory::Memory;
pub use memory::{Entry, LIMIT};
pub use opened::OpenTable;
use rustix::fs::{CWD, Mode, openat};
use scan::Scan;
use table::{Limits, Look};
use targets::Targets;

use crate::{
    event::Missed,
    host::namespaces::{Kind, is_initial},
};

/// After this a search ends unfinished: nobody waits longer for the line, and events pile up
/// meanwhile. At 3 µs a descriptor, enough for 300,000 of them on one CPU.
const PATIENCE: Duration = Duration::from_secs(1);

/// The same for the look at the start, before any event is told: what it leaves out costs a search each
/// time it is in the way.
const PATIENCE_AT_START: Duration = Duration::from_secs(2);

/// Threads of a search: the kernel's share of the work runs in parallel. Each costs a stack.
const WORKERS: usize = 4;

/// A socket to be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Inode of its file; 0 for a socket without one.
    pub inode: u64,
    /// References to its open file, if known: the search may stop when as many entries of
    /// descriptor tables were found. Too few of them hide processes.
    pub references: Option<u32>,
    /// The pids of those who probably have it: looked at before the others.
    pub likely: [Option<u32>; 2],
}

/// Who has a socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Processes (thread groups) with a descriptor of it, by the pids of `/proc`, in order of pid.
    pub pids: Vec<u32>,
    /// Whether these are all: every reference was found, or every process could be looked at.
    /// Otherwise some were hidden (`hidepid`), closed to this user or in another pid namespace, or
    /// there was no time for them.
    pub complete: bool,
}

/// Where a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Inode of the socket.
    pub inode: u64,
    /// Process, by its pid in `/proc`.
    pub pid: u32,
    /// Descriptor; `None` in the table of a thread that has its own.
    pub fd: Option<u32>,
}

impl From<Entry> for Place {
    fn from(Entry { inode, pid, fd }: Entry) -> Self {
        Self {
            inode,
            pid,
            fd: Some(fd),
        }
    }
}

/// Finds the processes of sockets. Remembers where it saw them, in up to 4 MB (250,000 entries of
/// descriptor tables).
#[derive(Debug)]
pub struct Descriptors {
    proc: PathBuf,
    /// `/proc` shows every process of the machine.
    whole: bool,
    workers: usize,
    patience: Duration,
    budget: Budget,
    memory: Memory,
}

impl Default for Descriptors {
    fn default() -> Self {
        Self::new()
    }
}

impl Descriptors {
    /// Over `/proc`.
    #[must_use]
    pub fn new() -> Self {
        Self {
            // Elsewhere, `/proc` shows the processes of the namespace and those below it.
            whole: is_initial(Kind::Pid) == Some(true),
            budget: Budget::limited(),
            ..Self::at(Path::new("/proc"))
        }
    }

    /// Over a directory like `/proc`, which is taken to show every process.
    #[must_use]
    pub fn at(proc: &Path) -> Self {
        Self {
            proc: proc.to_owned(),
            whole: true,
            workers: thread::available_parallelism().map_or(1, |cpus| cpus.get().min(WORKERS)),
            patience: PATIENCE,
            budget: Budget::unlimited(),
            memory: Memory::default(),
        }
    }

    /// Remembers where all sockets are, so that those are found at once that were there before
    /// portwatch. Takes as long as a whole search. Returns how many descriptors it remembers.
    pub fn prime(&mut self) -> usize {
        self.look_at_all(PATIENCE_AT_START);
        self.memory.len()
    }

    /// Remembers all descriptors; whether there was time for that. What could not be read is another
    /// question.
    fn look_at_all(&mut self, patience: Duration) -> bool {
        let limits = Limits::new(Instant::now(), patience);
        if let Some(proc) = open(&self.proc) {
            self.scan(proc.as_fd(), &mut Targets::new(&[]), &limits);
        }
        !limits.late()
    }

    /// All places of these sockets in the descriptor tables of the processes in `/proc`, and what was
    /// missed; however long it takes. `others`: of all other sockets too.
    #[must_use]
    pub fn everywhere(&self, inodes: &[u64], others: bool) -> (Vec<Place>, Missed) {
        let Some(proc) = open(&self.proc) else {
            return (Vec::new(), Missed::Unread);
        };
        let limits = Limits::none();
        let scan::Outcome {
            entries,
            mut of_threads,
            mut missed,
            stopped: _,
        } = Scan::list(proc.as_fd(), inodes, others, &limits).run(self.workers);
        if entries.len() >= LIMIT {
            missed = missed.max(Missed::Unread);
        }
        let found = entries.iter().map(|one| one.inode);
        let found: HashSet<u64> = found.chain(of_threads.iter().map(|one| one.0)).collect();
        let nowhere = inodes.iter().filter(|inode| !found.contains(inode));
        let nowhere: Vec<Wanted> = nowhere
            .map(|&inode| Wanted {
                inode,
                references: None,
                likely: [None; 2],
            })
            .collect();
        let mut targets = Targets::new(&nowhere);
        missed = missed.max(threads::ask(proc.as_fd(), &mut targets, &limits));
        for wanted in &nowhere {
            let pids = targets.found(wanted).pids.into_iter();
            of_threads.extend(pids.map(|pid| (wanted.inode, pid)));
        }
        of_threads.sort_unstable();
        of_threads.dedup();
        let of_threads = of_threads.into_iter().map(|(inode, pid)| Place {
            inode,
            pid,
            fd: None,
        });
        let places = entries.into_iter().map(Place::from).chain(of_threads);
        (places.collect(), missed)
    }

    /// The same from what the kernel's iterator has shown. Sockets of other kinds are not in it, nor
    /// descriptors that `/proc/PID/fd` does not show.
    pub fn remember(&mut self, seen: Vec<Entry>) -> usize {
        self.memory.replace(seen);
        self.memory.len()
    }

    /// Looks at all processes, for the sake of very many sockets; whether there was time for it.
    pub fn survey(&mut self) -> bool {
        let began = Instant::now();
        if !self.budget.allows(began) {
            return false;
        }
        let in_time = self.look_at_all(self.patience);
        self.budget.spend(began.elapsed());
        in_time
    }

    /// The processes that had a descriptor of a socket when it was looked at them last.
    pub fn seen(&self, inode: u64) -> impl Iterator<Item = u32> {
        let mut entries = self.memory.of(inode).iter().peekable();
        std::iter::from_fn(move || {
            let pid = entries.next()?.pid;
            while entries.next_if(|entry| entry.pid == pid).is_some() {}
            Some(pid)
        })
    }

    /// A descriptor of a socket, of whatever process.
    pub fn place(&mut self, inode: u64) -> Option<Entry> {
        let wanted = Wanted {
            inode,
            // One will do.
            references: Some(1),
            likely: [None; 2],
        };
        let found = self.of(&[wanted]).pop()?;
        let mut entries = self.memory.of(inode).iter();
        entries
            .find(|entry| found.pids.contains(&entry.pid))
            .copied()
    }

    /// The processes with a descriptor of each, in the order asked for.
    pub fn of(&mut self, wanted: &[Wanted]) -> Vec<Found> {
        let mut targets = Targets::new(wanted);
        if !targets.settled() {
            match open(&self.proc) {
                Some(proc) => self.search(proc.as_fd(), &mut targets),
                None => targets.close(false),
            }
        }
        wanted.iter().map(|wanted| targets.found(wanted)).collect()
    }

    fn search(&mut self, proc: BorrowedFd<'_>, targets: &mut Targets) {
        let limits = Limits::new(Instant::now(), self.patience);
        self.recall(proc, targets);
        if targets.settle(table::distinct) {
            return;
        }
        self.ask_likely(proc, targets, &limits);
        if targets.settle(table::distinct) {
            return;
        }
        let began = Instant::now();
        if !self.budget.allows(began) {
            targets.close(false);
            return;
        }
        targets.forget();
        let whole = self.scan(proc, targets, &limits);
        if !targets.settle(table::distinct) {
            let whole = threads::ask(proc, targets, &limits) == Missed::Nothing && whole;
            targets.close(whole && self.whole);
        }
        self.budget.spend(began.elapsed());
    }

    /// Whether a process that was found has a descriptor of the socket still, so that what was read of
    /// it meanwhile is of a process that has; `None` where that is not known (a thread with a table of
    /// its own).
    #[must_use]
    pub fn still(&self, pid: u32, inode: u64) -> Option<bool> {
        let mut seen = None;
        for entry in self.memory.of(inode) {
            if entry.pid == pid {
                let has_it = table::inode_at(&self.proc, pid, entry.fd) == Some(inode);
                seen = Some(seen.unwrap_or_default() || has_it);
            }
        }
        seen
    }

    /// Reads the links again where the sockets were seen before.
    fn recall(&self, proc: BorrowedFd<'_>, targets: &mut Targets) {
        for inode in targets.open() {
            for &Entry { pid, fd, .. } in self.memory.of(inode) {
                if table::inode(proc, pid, fd) == Some(inode) {
                    targets.hit(inode, pid);
                }
            }
        }
    }

    fn ask_likely(&mut self, proc: BorrowedFd<'_>, targets: &mut Targets, limits: &Limits) {
        let likely: BTreeSet<u32> = targets.likely().collect();
        for pid in likely {
            // Counted anew, more completely than from memory.
            targets.forget_process(pid);
            let memory = &mut self.memory;
            // What could not be read is looked at again, with everything else.
            let _: Look = table::sockets(proc, &format!("{pid}/fd"), limits, |fd, inode| {
                if targets.hit(inode, pid) {
                    memory.put(Entry { inode, pid, fd });
                }
            });
        }
    }

    /// Looks at all processes; returns whether it could.
    fn scan(&mut self, proc: BorrowedFd<'_>, targets: &mut Targets, limits: &Limits) -> bool {
        let scan::Outcome {
            entries,
            of_threads: _,
            missed,
            stopped,
        } = Scan::new(proc, targets, limits).run(self.workers);
        if stopped || limits.late() {
            self.memory.add(entries);
        } else {
            self.memory.replace(entries);
        }
        missed == Missed::Nothing
    }
}

fn open(proc: &Path) -> Option<OwnedFd> {
    openat(CWD, proc, table::DIRECTORY, Mode::empty()).ok()
}
