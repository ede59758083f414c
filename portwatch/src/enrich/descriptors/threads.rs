//! Threads with a descriptor table of their own. `/proc/PID/fd` is the table of the first thread
//! only, which the others nearly always share; and after the first thread has ended, it is empty
//! while the others run on.

use std::os::fd::BorrowedFd;

use super::{
    scan,
    table::{self, Limits, Look},
    targets::Targets,
};
use crate::event::Missed;

/// Looks at the tables of a process that are not that of its first thread; returns how far it got.
pub(super) fn sockets(
    proc: BorrowedFd<'_>,
    pid: u32,
    limits: &Limits,
    mut found: impl FnMut(u64),
) -> Look {
    let mut missed = Missed::Nothing;
    // Where the first thread is gone, the others share a table with each other.
    let mut known = pid;
    let look = table::numbers(proc, &format!("{pid}/task"), limits, |_, _, tid| {
        if tid != pid && !table::shared(known, tid) {
            let path = format!("{pid}/task/{tid}/fd");
            let look = table::sockets(proc, &path, limits, |_, inode| found(inode));
            missed = missed.max(look.missed());
            known = tid;
        }
        Ok(())
    });
    match missed {
        Missed::Nothing => look,
        Missed::Unread => Look::Part,
        Missed::Hidden => Look::Closed,
    }
}

/// Looks at the threads of all processes, for what was not found anywhere else; returns what it
/// missed.
pub(super) fn ask(proc: BorrowedFd<'_>, targets: &mut Targets, limits: &Limits) -> Missed {
    let nowhere = targets.nowhere();
    if nowhere.is_empty() {
        return Missed::Nothing;
    }
    let (pids, mut missed) = scan::processes(proc, limits);
    for pid in pids {
        let look = sockets(proc, pid, limits, |inode| {
            if nowhere.binary_search(&inode).is_ok() {
                targets.hit(inode, pid);
            }
        });
        missed = missed.max(look.missed());
    }
    missed
}
