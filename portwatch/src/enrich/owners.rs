//! Who has the sockets that were in the way: whoever got the port for them, if the kernel's programs
//! have seen that, and every process with a descriptor.
//!
//! The programs look whether the former has a descriptor at the very moment. Where the open file has no
//! other reference, that is the answer, and it holds though the process may end a microsecond later.
//! Otherwise the descriptors of all processes are looked through, now.

use std::time::Instant;

use super::{
    clock::Clock,
    copied::Lender,
    descriptors::{Descriptors, Entry, Found, Wanted},
    live::Live,
    met::Acquaintances,
    process::Processes,
    task,
    usage::Count,
};
use crate::{
    conflict::words::is_supervisor,
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
    /// The parent of the first of them, where that is a supervisor. Of the caller's sockets it is not looked for.
    pub parent: Option<Box<Occupant>>,
    /// Who got the port for it.
    pub creator: Option<Box<Creator>>,
}

/// Finds them.
#[derive(Debug)]
pub struct Owners {
    descriptors: Descriptors,
    /// Who was found to have some, and their parents.
    met: Acquaintances,
    /// The pids of the kernel's programs are those of this `/proc`.
    same_pids: bool,
}

impl Default for Owners {
    fn default() -> Self {
        Self {
            descriptors: Descriptors::new(),
            met: Acquaintances::default(),
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
        let began = Instant::now();
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
                let processes = self.present(began, culprit, taker, (caller, &pids), &mut name);
                let parent = self.parent(began, &processes, caller, &mut name);
                Possession {
                    processes,
                    parent: parent.map(Box::new),
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

    /// The parent of the first of a socket's processes, if it is a supervisor, and there still. `began`: when
    /// they were looked for.
    fn parent(
        &mut self,
        began: Instant,
        processes: &[Occupant],
        caller: &Task,
        name: &mut impl FnMut(Task, u64) -> Occupant,
    ) -> Option<Occupant> {
        let child = &processes.first()?.task;
        // Nobody is told how to stop the caller.
        if processes.iter().any(|one| one.task.pid == caller.pid) {
            return None;
        }
        let pid = child
            .parent_pid
            .filter(|&pid| self.same_pids && pid > INIT)?;
        let named = |task| name(task, u64::MAX);
        let parent = self.met.of(began, pid, named)?;
        // Else the pid has become another's.
        let starts = parent.task.start_boot.zip(child.start_boot);
        (is_supervisor(&parent.task) && starts.is_some_and(|(parent, child)| parent <= child))
            .then_some(parent)
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

    /// The processes with a descriptor, in order. `pids`: those found by a search that began at a time. `name`
    /// finds the names of a process that was there at a time.
    fn present(
        &mut self,
        began: Instant,
        culprit: &Culprit,
        taker: Option<&Taker>,
        (caller, pids): (&Task, &[u32]),
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
            let named = |task| name(task, u64::MAX);
            let Some(occupant) = self.met.of(began, pid, named) else {
                continue;
            };
            // The pid may have become another's, or exec or the process itself closed the descriptor.
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]

    use std::{
        io::{BufRead as _, BufReader, Write as _},
        net::TcpListener,
        os::{fd::OwnedFd, unix::fs::MetadataExt as _},
        process::{Child, ChildStdout, Command, Stdio},
    };

    use super::*;
    use crate::sample::held;

    /// A process with this name, and a child of it.
    struct Family {
        parent: Child,
        lines: BufReader<ChildStdout>,
        child: Occupant,
    }

    impl Family {
        fn of(name: &str) -> Self {
            let script = format!(
                "printf {name} >/proc/$$/comm; sleep 60 & echo $!;
                read name; printf $name >/proc/$$/comm; echo; wait"
            );
            let mut parent = Command::new("sh")
                .args(["-c", &script])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(parent.stdout.take().unwrap());
            let mut line = String::new();
            lines.read_line(&mut line).unwrap();
            let child = named(task::of(line.trim().parse().unwrap()).unwrap(), 0);
            assert_eq!(child.task.parent_pid, Some(parent.id()));
            Self {
                parent,
                lines,
                child,
            }
        }

        /// Gives the parent another name.
        fn rename(&mut self, name: &str) {
            let stdin = self.parent.stdin.as_mut().unwrap();
            writeln!(stdin, "{name}").unwrap();
            self.lines.read_line(&mut String::new()).unwrap();
        }

        fn bereave(&mut self) {
            self.parent.kill().unwrap();
            self.parent.wait().unwrap();
        }
    }

    impl Drop for Family {
        fn drop(&mut self) {
            let pid = nix::unistd::Pid::from_raw(self.child.task.pid.cast_signed());
            nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL).unwrap();
            self.bereave();
        }
    }

    fn named(task: Task, _: u64) -> Occupant {
        Occupant {
            task,
            process: std::sync::Arc::default(),
        }
    }

    fn owners() -> Owners {
        Owners {
            same_pids: true,
            ..Owners::default()
        }
    }

    /// The name of the parent that is found for a child.
    fn found(owners: &mut Owners, of: &Occupant) -> Option<String> {
        let began = Instant::now();
        let parent = owners.parent(
            began,
            std::slice::from_ref(of),
            &Task::default(),
            &mut named,
        );
        parent?.task.comm
    }

    #[test]
    fn a_supervisor_is_found_as_long_as_it_is_there() {
        let mut owners = owners();
        let mut family = Family::of("supervisord");
        for _ in 0..2 {
            let found = found(&mut owners, &family.child);
            assert_eq!(found.as_deref(), Some("supervisord"));
        }
        family.bereave();
        assert_eq!(found(&mut owners, &family.child), None);
    }

    #[test]
    fn what_took_over_the_pid_of_a_parent_is_not_the_parent() {
        let mut owners = owners();
        let family = Family::of("supervisord");
        let mut older = family.child.clone();
        *older.task.start_boot.as_mut().unwrap() -= 60_000_000_000;
        assert_eq!(found(&mut owners, &older), None);
    }

    #[test]
    fn other_parents_are_read_once_a_second() {
        let mut owners = owners();
        let family = Family::of("bash");
        let mut reads = 0;
        for _ in 0..3 {
            let mut count = |task, seen| {
                reads += 1;
                named(task, seen)
            };
            let of = [family.child.clone()];
            let parent = owners.parent(Instant::now(), &of, &Task::default(), &mut count);
            assert_eq!(parent, None);
        }
        assert_eq!(reads, 1);
    }

    #[test]
    fn a_parent_that_has_become_a_supervisor_is_found_at_once() {
        let mut owners = owners();
        let mut family = Family::of("bash");
        assert_eq!(found(&mut owners, &family.child), None);
        family.rename("supervisord");
        let found = found(&mut owners, &family.child);
        assert_eq!(found.as_deref(), Some("supervisord"));
    }

    /// A child that has a listener as its stdout, and does `then` when it is told to.
    struct Server {
        child: Child,
        inode: u64,
        lines: BufReader<std::process::ChildStderr>,
    }

    impl Server {
        fn of(then: &str) -> Self {
            let listener = OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
            let file = std::fs::File::from(listener);
            let inode = file.metadata().unwrap().ino();
            // Without the parentheses the shell would move its stdout to another descriptor and back.
            let mut child = Command::new("sh")
                .args(["-c", &format!("(echo >&2); read go; {then}")])
                .stdin(Stdio::piped())
                .stdout(file)
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let lines = BufReader::new(child.stderr.take().unwrap());
            let mut server = Self {
                child,
                inode,
                lines,
            };
            server.wait();
            server
        }

        /// Until it prints a line.
        fn wait(&mut self) {
            self.lines.read_line(&mut String::new()).unwrap();
        }

        fn go(&mut self) {
            writeln!(self.child.stdin.as_mut().unwrap()).unwrap();
            self.wait();
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }

    #[test]
    fn who_was_met_a_moment_ago_and_has_the_socket_no_more_is_not_named() {
        for then in [
            "exec >&2; echo; read end",
            // Under the same name, as one that is upgraded in place.
            "exec sh -c 'echo; read end' >&2",
        ] {
            let mut owners = owners();
            let mut server = Server::of(then);
            let pid = server.child.id();
            let wanted = Wanted {
                inode: server.inode,
                references: Some(1),
                likely: [Some(pid), None],
            };
            assert_eq!(owners.descriptors.of(&[wanted])[0].pids, [pid]);
            let culprit = held(Kind::Listener, "127.0.0.1:1")
                .holder(|holder| holder.socket.inode = Some(server.inode))
                .culprit;
            // The search has found it.
            let mut named_now = |began: Instant| -> Vec<u32> {
                let (caller, pids) = (Task::default(), [pid]);
                let present = owners.present(began, &culprit, None, (&caller, &pids), &mut named);
                present.iter().map(|one| one.task.pid).collect()
            };
            assert_eq!(named_now(Instant::now()), [pid]);
            assert_eq!(named_now(Instant::now()), [pid]);
            server.go();
            assert_eq!(named_now(Instant::now()), [0; 0], "{then}");
        }
    }

    #[test]
    fn the_callers_own_parent_is_not_looked_for() {
        let family = Family::of("supervisord");
        let of = [family.child.clone()];
        let mut unread = |_, _| panic!("nobody asks");
        let caller = &family.child.task;
        let parent = owners().parent(Instant::now(), &of, caller, &mut unread);
        assert_eq!(parent, None);
    }
}
