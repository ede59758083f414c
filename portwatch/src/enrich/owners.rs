//! Who has the sockets that were in the way: whoever got the port for them, if the kernel's programs
//! have seen that, and every process with a descriptor.
//!
//! The programs look whether the former has a descriptor at the very moment. Where the open file has no
//! other reference, that is the answer, and it holds though the process may end a microsecond later.
//! Otherwise the descriptors of all processes are looked through, now.

use super::{
    clock::Clock,
    copied::Lender,
    descriptors::{Descriptors, Entry, Found, Wanted},
    live::Live,
    process::Processes,
    task,
    usage::Count,
};
use crate::{
    event::{Consumer, Creator, Culprit, Holder, Kind, Occupant, Taker, Task},
    host::namespaces::{Kind as Namespace, is_initial},
};

/// The first process of a pid namespace: what it holds for others it is not the one to talk to.
pub const INIT: u32 = 1;

/// Processes that are told of those that use up a range.
const TOP: usize = 5;

/// Who has a socket.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Possession {
    /// Every process with a descriptor, creator first, pid 1 last.
    pub processes: Vec<Occupant>,
    /// Not all processes could be looked at.
    pub incomplete: bool,
    /// The parent of the first of them, which may start it again.
    pub parent: Option<Box<Occupant>>,
    /// Who got the port for it.
    pub creator: Option<Box<Creator>>,
}

/// Finds them.
#[derive(Debug)]
pub struct Owners {
    descriptors: Descriptors,
    /// The pids of the kernel's programs are those of this `/proc`.
    same_pids: bool,
}

impl Default for Owners {
    fn default() -> Self {
        Self {
            descriptors: Descriptors::new(),
            same_pids: is_initial(Namespace::Pid) != Some(false),
        }
    }
}

impl Owners {
    /// Remembers where all sockets are now: those that were there before the trace are then found at
    /// once. Returns how many descriptors.
    pub fn prime(&mut self) -> usize {
        self.descriptors.prime()
    }

    /// The same from what others have seen.
    pub fn remember(&mut self, seen: Vec<Entry>) -> usize {
        self.descriptors.remember(seen)
    }

    /// Who has each of the sockets. `caller`: the process that was refused the port, or shares it.
    pub fn of(
        &mut self,
        culprits: &[Culprit],
        caller: &Task,
        processes: &mut Processes,
        clock: &Clock,
    ) -> Vec<Possession> {
        let search = |culprit| search_for(culprit, caller.pid);
        let wanted: Vec<Wanted> = culprits.iter().map(search).collect();
        let found = self.descriptors.of(&wanted);
        let mut name = |task: Task, seen| Occupant {
            process: processes.of(&task, seen, clock),
            task,
        };
        culprits
            .iter()
            .zip(found)
            .map(|(culprit, Found { pids, complete })| {
                let taker = culprit.holder.taker.as_deref();
                let taker = taker.filter(|_| culprit.kind != Kind::Kernel);
                let processes = self.present(culprit, taker, caller, &pids, &mut name);
                Possession {
                    parent: self.parent(processes.first(), &mut name).map(Box::new),
                    processes,
                    incomplete: !complete,
                    creator: taker.map(|taker| Box::new(self.creator(taker, &mut name))),
                }
            })
            .collect()
    }

    /// Asks a socket itself for the options that sock_diag does not tell; they stay unknown where it has
    /// gone, or the kernel refuses a copy of its descriptor.
    pub fn complete(&mut self, holder: &mut Holder) {
        let Some(inode) = holder.socket.inode else {
            return;
        };
        let Some(Entry { pid, fd, .. }) = self.descriptors.place(inode) else {
            return;
        };
        if let Ok(copy) =
            Lender::open(pid).and_then(|lender| lender.copy(fd, inode, holder.socket.cookie))
        {
            let known = holder.socket.options;
            holder.socket.options = copy.complete(known, holder.transport, holder.family);
        }
    }

    /// Who has most of very many ports; `None` where there is no time to look. The second value: whether of
    /// each socket it is known who has it.
    pub fn most(
        &mut self,
        count: &Count,
        processes: &mut Processes,
        clock: &Clock,
    ) -> Option<(Vec<Consumer>, bool)> {
        if !self.descriptors.survey() {
            return None;
        }
        let (shares, whole) = count.by_process(|inode| self.descriptors.seen(inode));
        let top = shares.iter().filter_map(|share| {
            let task = task::of(share.pid)?;
            let occupant = Occupant {
                process: processes.of(&task, u64::MAX, clock),
                task,
            };
            // The pid may have become another's.
            let is_it = self.descriptors.still(share.pid, share.inode) != Some(false);
            is_it.then_some(Consumer {
                occupant,
                count: share.ports,
            })
        });
        Some((top.take(TOP).collect(), whole))
    }

    /// The parent of a process, if that is there still and not the first one of all.
    fn parent(
        &self,
        of: Option<&Occupant>,
        name: &mut impl FnMut(Task, u64) -> Occupant,
    ) -> Option<Occupant> {
        let child = &of?.task;
        let pid = child
            .parent_pid
            .filter(|&pid| self.same_pids && pid > INIT)?;
        let parent = task::of(pid)?;
        // Else the pid has become another's.
        let starts = parent.start_boot.zip(child.start_boot);
        starts
            .is_some_and(|(parent, child)| parent <= child)
            .then(|| name(parent, u64::MAX))
    }

    fn creator(&self, taker: &Taker, name: &mut impl FnMut(Task, u64) -> Occupant) -> Creator {
        // One that is gone by now had it still when the other call was refused.
        let exited = taker.has_it.is_none() && self.is_gone(&taker.task, taker.time_boot);
        Creator {
            occupant: name(taker.task.clone(), taker.time_boot),
            exited,
        }
    }

    /// Whether a process that was there at a time (CLOCK_BOOTTIME, ns) is known to be gone.
    #[must_use]
    pub fn is_gone(&self, task: &Task, seen: u64) -> bool {
        self.same_pids && !Live::new(task, seen).is_there()
    }

    /// The processes with a descriptor, in order. `name` finds the names of a process that was there at
    /// a time.
    fn present(
        &self,
        culprit: &Culprit,
        taker: Option<&Taker>,
        caller: &Task,
        pids: &[u32],
        name: &mut impl FnMut(Task, u64) -> Occupant,
    ) -> Vec<Occupant> {
        let has_it = taker.and_then(|taker| taker.has_it.as_ref());
        let is_caller = |task: &&Task| task.pid == caller.pid;
        let caller = Some(caller)
            .filter(|_| culprit.holder.caller_has_it && has_it.filter(is_caller).is_none());
        // The kernel's programs have found these.
        let mut present: Vec<Occupant> = has_it
            .into_iter()
            .chain(caller)
            .map(|task| name(task.clone(), task.start_boot.unwrap_or_default()))
            .collect();
        let seen: Vec<u32> = present.iter().map(|one| one.task.pid).collect();
        let inode = culprit.holder.socket.inode.unwrap_or_default();
        for &pid in pids {
            if self.same_pids && seen.contains(&pid) {
                continue;
            }
            let Some(task) = task::of(pid) else {
                continue;
            };
            let occupant = name(task, u64::MAX);
            // The pid may have become another's, or exec closed the descriptor.
            if self.descriptors.still(pid, inode) != Some(false) {
                present.push(occupant);
            }
        }
        let creator = taker.map(|taker| taker.task.pid);
        present.sort_by_key(|occupant| {
            let pid = occupant.task.pid;
            (self.same_pids && pid == INIT, creator != Some(pid), pid)
        });
        present
    }
}

/// What is to be looked for among the descriptors of all processes; inode 0 is nothing. `caller`: the pid of
/// the process that was refused the port.
fn search_for(culprit: &Culprit, caller: u32) -> Wanted {
    let Holder {
        socket,
        references,
        caller_has_it,
        taker,
        ..
    } = &culprit.holder;
    let has_it = taker.as_ref().and_then(|taker| taker.has_it.as_ref());
    let nobody = matches!(culprit.kind, Kind::Kernel | Kind::TimeWait)
        // It is being closed.
        || *references == Some(0);
    let known = u32::from(has_it.is_some())
        + u32::from(*caller_has_it && has_it.is_none_or(|task| task.pid != caller));
    let answered = nobody || (known > 0 && *references == Some(known));
    Wanted {
        inode: socket.inode.filter(|_| !answered).unwrap_or_default(),
        references: *references,
        // Descriptors are inherited.
        likely: [taker.as_ref().map(|taker| taker.task.pid), Some(caller)],
    }
}
