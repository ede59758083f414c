//! Who has the sockets that were in the way: whoever got the port for them, if the kernel's programs
//! have seen that, and every process with a descriptor.
//!
//! The programs look whether the former has a descriptor at the very moment. Where the open file has no
//! other reference, that is the answer, and it holds though the process may end a microsecond later.
//! Otherwise the descriptors of all processes are looked through, now.

use super::{
    clock::Clock,
    descriptors::{Descriptors, Found, Wanted},
    live::Live,
    process::Processes,
    task,
};
use crate::event::{Creator, Culprit, Holder, Kind, Occupant, Taker, Task};

/// The first process of a pid namespace: what it holds for others it is not the one to talk to.
pub const INIT: u32 = 1;

/// Who has a socket.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Possession {
    /// Every process with a descriptor, creator first, pid 1 last.
    pub processes: Vec<Occupant>,
    /// Who got the port for it.
    pub creator: Option<Creator>,
}

/// Finds them.
#[derive(Debug, Default)]
pub struct Owners {
    descriptors: Descriptors,
}

impl Owners {
    /// Remembers where all sockets are now: those that were there before the trace are then found at
    /// once.
    pub fn prime(&mut self) {
        self.descriptors.prime();
    }

    /// Who has each of the sockets; `seen` is when the call was refused (CLOCK_BOOTTIME, ns).
    pub fn of(
        &mut self,
        culprits: &[Culprit],
        seen: u64,
        processes: &mut Processes,
        clock: &Clock,
    ) -> Vec<Possession> {
        let wanted: Vec<Wanted> = culprits.iter().map(search_for).collect();
        let found = self.descriptors.of(&wanted);
        culprits
            .iter()
            .zip(found)
            .map(|(culprit, Found { pids, complete: _ })| {
                let taker = culprit.holder.taker.as_ref();
                let taker = taker.filter(|_| culprit.kind != Kind::Kernel);
                possession(taker, &pids, seen, |task, seen| Occupant {
                    process: processes.of(&task, seen, clock),
                    task,
                })
            })
            .collect()
    }
}

/// What is to be looked for among the descriptors of all processes; inode 0 is nothing.
fn search_for(culprit: &Culprit) -> Wanted {
    let Holder {
        socket,
        references,
        taker,
        ..
    } = &culprit.holder;
    let has_it = taker.as_ref().is_some_and(|taker| taker.has_it);
    let nobody = matches!(culprit.kind, Kind::Kernel | Kind::TimeWait)
        // It is being closed.
        || *references == Some(0);
    let answered = nobody || (has_it && *references == Some(1));
    Wanted {
        inode: socket.inode.filter(|_| !answered).unwrap_or_default(),
        references: *references,
        likely: taker.as_ref().map(|taker| taker.task.pid),
    }
}

/// Puts together what the kernel's programs noted and what was found. `name` finds the names of a
/// process that was there at a time.
fn possession(
    taker: Option<&Taker>,
    pids: &[u32],
    seen: u64,
    mut name: impl FnMut(Task, u64) -> Occupant,
) -> Possession {
    let is_alive = |taker: &Taker| Live::new(&taker.task, taker.time_boot).is_there();
    let mut processes = Vec::with_capacity(pids.len().max(1));
    let mut others: Vec<u32> = pids.to_vec();
    let creator = taker.map(|taker| {
        let alive = is_alive(taker);
        let occupant = name(taker.task.clone(), taker.time_boot);
        let found = others.iter().position(|&pid| pid == taker.task.pid);
        if taker.has_it || (found.is_some() && alive) {
            // It may have executed something else since: then it is not the same by name.
            processes.push(name(taker.task.clone(), seen));
            if let Some(at) = found {
                others.remove(at);
            }
        }
        Creator {
            occupant,
            // One that is gone by now had it still when the other call was refused.
            exited: !alive && !taker.has_it,
        }
    });
    others.sort_by_key(|&pid| (pid == INIT, pid));
    for pid in others {
        if let Some(task) = task::of(pid) {
            processes.push(name(task, u64::MAX));
        }
    }
    // As the creator pid 1 stands first otherwise.
    let is_init = |occupant: &Occupant| occupant.task.pid == INIT;
    processes.sort_by_key(is_init);
    Possession { processes, creator }
}
