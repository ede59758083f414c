//! One descriptor table, read from its directory in `/proc`.

use std::{
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use rustix::{
    fs::{CWD, Mode, OFlags, RawDir, RawDirEntry, openat, readlinkat_raw},
    io::Errno,
    path::Arg,
};

use super::link;
use crate::event::Missed;

/// How directories are opened.
pub(super) const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// Room for one read of a directory, bytes: more is not faster.
const ROOM: usize = 8 << 10;

/// When to give up.
#[derive(Debug)]
pub(super) struct Limits {
    deadline: Option<Instant>,
    stop: AtomicBool,
}

impl Limits {
    /// As long as it takes.
    pub(super) fn none() -> Self {
        Self {
            deadline: None,
            stop: AtomicBool::new(false),
        }
    }

    /// No longer than `patience` from `now` on.
    pub(super) fn new(now: Instant, patience: Duration) -> Self {
        Self {
            deadline: now.checked_add(patience),
            stop: AtomicBool::new(false),
        }
    }

    /// Everything is found.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether everything is found.
    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether the time is over.
    pub(super) fn late(&self) -> bool {
        self.deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// How far a look into a directory got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// To its end, past so many entries.
    Whole(usize),
    /// The process is not there any more.
    Gone,
    /// Not permitted.
    Closed,
    /// Another error, or given up.
    Part,
}

impl Look {
    /// A process that ends takes its files along (ENOENT from a lookup, ESRCH from a task that has
    /// been found and is then gone); any other error hides what it has.
    pub(super) fn failed(error: Errno) -> Self {
        match error {
            Errno::NOENT | Errno::SRCH => Self::Gone,
            Errno::ACCESS | Errno::PERM => Self::Closed,
            _ => Self::Part,
        }
    }

    /// What was missed.
    pub(super) const fn missed(self) -> Missed {
        match self {
            Self::Whole(_) | Self::Gone => Missed::Nothing,
            Self::Closed => Missed::Hidden,
            Self::Part => Missed::Unread,
        }
    }
}

/// The entries of a directory whose names are numbers.
pub(super) fn numbers(
    parent: BorrowedFd<'_>,
    path: &str,
    limits: &Limits,
    mut visit: impl FnMut(BorrowedFd<'_>, &RawDirEntry<'_>, u32) -> Result<(), Errno>,
) -> Look {
    let directory = match openat(parent, path, DIRECTORY, Mode::empty()) {
        Ok(directory) => directory,
        Err(error) => return Look::failed(error),
    };
    let mut room = [MaybeUninit::uninit(); ROOM];
    let mut entries = RawDir::new(directory.as_fd(), &mut room);
    let mut count = 0;
    loop {
        if limits.stopped() || entries.is_buffer_empty() && limits.late() {
            return Look::Part;
        }
        let entry = match entries.next() {
            None => return Look::Whole(count),
            Some(Ok(entry)) => entry,
            Some(Err(error)) => return Look::failed(error),
        };
        let Some(number) = link::number(entry.file_name().to_bytes()) else {
            continue;
        };
        count += 1;
        if let Err(error) = visit(directory.as_fd(), &entry, number) {
            return Look::failed(error);
        }
    }
}

/// The sockets of a descriptor table, by descriptor and inode, from a directory like `PID/fd` below
/// `proc`. Reading a link costs 2 µs, asking for the inode of what it leads to (`fstatat`) the same,
/// and listing the directory 0.7 µs an entry, which counting descriptors up instead does not save: the
/// kernel makes the entry when it is looked up.
pub(super) fn sockets(
    proc: BorrowedFd<'_>,
    path: &str,
    limits: &Limits,
    mut found: impl FnMut(u32, u64),
) -> Look {
    numbers(proc, path, limits, |directory, entry, fd| {
        let mut room = [MaybeUninit::uninit(); link::ROOM];
        match readlinkat_raw(directory, entry.file_name(), &mut room) {
            Ok((link, _)) => {
                if let Some(inode) = link::inode(link) {
                    found(fd, inode);
                }
                Ok(())
            }
            // Closed since the directory was read, by exec for example. That the process is gone is
            // told by the next read of the directory.
            Err(Errno::NOENT | Errno::SRCH) => Ok(()),
            Err(error) => Err(error),
        }
    })
}

/// The inode of the socket behind a descriptor; `None` where it is something else, or gone.
pub(super) fn inode(proc: BorrowedFd<'_>, pid: u32, fd: u32) -> Option<u64> {
    behind(proc, format!("{pid}/fd/{fd}"))
}

/// The same by the path of the link, for one alone.
pub(super) fn inode_at(proc: &Path, pid: u32, fd: u32) -> Option<u64> {
    behind(CWD, proc.join(format!("{pid}/fd/{fd}")))
}

fn behind(directory: BorrowedFd<'_>, link: impl Arg) -> Option<u64> {
    let mut room = [MaybeUninit::uninit(); link::ROOM];
    let (link, _) = readlinkat_raw(directory, link, &mut room).ok()?;
    link::inode(link)
}

/// Whether two tasks certainly have different descriptor tables.
pub(super) fn distinct(one: u32, other: u32) -> bool {
    compare(one, other).is_some_and(|order| order > 0)
}

/// Whether two tasks certainly have the same descriptor table.
pub(super) fn shared(one: u32, other: u32) -> bool {
    compare(one, other) == Some(0)
}

/// Compares the tables of two tasks by kcmp(2): 0 if they are the same. `None` where the kernel does
/// not have it (CONFIG_KCMP), does not permit it, or a task is gone.
fn compare(one: u32, other: u32) -> Option<libc::c_long> {
    const KCMP_FILES: libc::c_int = 2; // include/uapi/linux/kcmp.h

    let one = libc::pid_t::try_from(one).ok()?;
    let other = libc::pid_t::try_from(other).ok()?;
    // SAFETY: takes five numbers, of which it ignores the last two, and touches no memory.
    let order = unsafe { libc::syscall(libc::SYS_kcmp, one, other, KCMP_FILES, 0, 0) };
    (order >= 0).then_some(order)
}
