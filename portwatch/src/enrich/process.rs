//! The process of an event: what the kernel sent ahead of it, else what `/proc` still has.

use std::{num::NonZeroUsize, sync::Arc};

use super::{
    cache::{Cache, OVERHEAD, Weigh},
    cgroup::Cgroups,
    clock::Clock,
    live::{Live, without_deleted},
    user::Users,
};
use crate::event::{Process, ProcessImage, Task};

/// Processes remembered.
const CAPACITY: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4095);
/// Bytes that they may take, a quarter of what the whole program may.
const BYTES: usize = 3 << 20;

/// What tells processes apart. A pid does not: it is given out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// Pid, and the kernel side's key of process and executable.
    Image(u32, u64),
    /// Pid and start, where that is all there is.
    Start(u32, u64),
}

impl Key {
    fn of(task: &Task) -> Option<Self> {
        task.key
            .map(|key| Self::Image(task.pid, key))
            .or_else(|| task.start_boot.map(|start| Self::Start(task.pid, start)))
    }
}

/// What a process runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Path of the executable.
    pub executable_path: Option<String>,
    /// It is longer: this is its end.
    pub path_cut: bool,
    /// Arguments.
    pub args: Option<Vec<String>>,
    /// There is more of them: this is their beginning.
    pub args_cut: bool,
}

impl Identity {
    /// Takes from `/proc` what the kernel's record did not have or had to cut, as long as what was
    /// cut does not contradict it.
    fn completed(self, full: Self) -> Self {
        if !self.could_be(&full) {
            return self;
        }
        let Self {
            executable_path,
            path_cut,
            args,
            args_cut,
        } = self;
        let (executable_path, path_cut) = complete(executable_path, path_cut, full.executable_path);
        let (args, args_cut) = complete(args, args_cut, full.args);
        Self {
            executable_path,
            path_cut,
            args,
            args_cut,
        }
    }

    /// Whether what was cut is part of `full`: of a path the end is kept, of arguments the beginning.
    /// Arguments that are whole are not compared: programs overwrite theirs.
    fn could_be(&self, full: &Self) -> bool {
        let path = match (&self.executable_path, &full.executable_path) {
            // Only whole components are cut off.
            (Some(cut), Some(full)) if self.path_cut => full
                .strip_suffix(cut.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('/')),
            (Some(own), Some(full)) if self.args_cut => own == full,
            _ => true,
        };
        let args = match (self.args.as_deref(), full.args.as_deref()) {
            (Some([first @ .., last]), Some(full)) if self.args_cut => {
                full.starts_with(first)
                    && full
                        .get(first.len())
                        .is_some_and(|whole| whole.starts_with(last.trim_end_matches('\u{fffd}')))
            }
            _ => true,
        };
        path && args
    }
}

/// The whole in place of what is cut or not there at all; and whether the result is still cut.
fn complete<T>(own: Option<T>, cut: bool, full: Option<T>) -> (Option<T>, bool) {
    match (own, full) {
        (Some(own), Some(full)) => (Some(if cut { full } else { own }), false),
        (None, full) => (full, false),
        (own, None) => (own, cut),
    }
}

/// What is remembered of a process.
#[derive(Debug)]
enum Slot {
    /// Announced by the kernel, no event so far.
    Announced(Identity),
    /// Had an event.
    Known(Known),
}

#[derive(Debug)]
struct Known {
    process: Arc<Process>,
    /// Real user at that time: may change without exec.
    uid: u32,
    /// Cgroup at that time: may change too.
    cgroup: Option<u64>,
}

fn strings(path: Option<&String>, args: Option<&Vec<String>>) -> usize {
    path.map_or(0, String::len)
        + args.map_or(0, |args| {
            args.iter()
                .map(|arg| arg.len() + size_of::<String>() + 8)
                .sum()
        })
}

impl Weigh for Process {
    fn weight(&self) -> usize {
        size_of::<Self>()
            + strings(self.executable_path.as_ref(), self.args.as_ref())
            + self.user_name.as_ref().map_or(0, |name| name.len())
            + self.cgroup.as_ref().map_or(0, String::len)
            + self.systemd_unit.as_ref().map_or(0, String::len)
            + self.container.as_ref().map_or(0, |c| c.id.len())
    }
}

impl Weigh for Slot {
    fn weight(&self) -> usize {
        // The slot itself is small.
        OVERHEAD
            + match self {
                Self::Announced(identity) => {
                    strings(identity.executable_path.as_ref(), identity.args.as_ref())
                }
                Self::Known(known) => known.process.weight(),
            }
    }
}

/// The processes seen so far.
#[derive(Debug)]
pub struct Processes {
    slots: Cache<Key, Slot>,
    users: Users,
    cgroups: Cgroups,
    args: bool,
}

impl Processes {
    /// `numeric`: without user names. `args`: with arguments.
    #[must_use]
    pub fn new(numeric: bool, args: bool) -> Self {
        Self {
            slots: Cache::new(CAPACITY, BYTES),
            users: Users::new(numeric),
            cgroups: Cgroups::new(),
            args,
        }
    }

    /// The kernel announced a process.
    pub fn announce(&mut self, image: ProcessImage) {
        let ProcessImage {
            key,
            pid,
            executable_path,
            path_cut,
            args,
            args_cut,
        } = image;
        let identity = Identity {
            executable_path: executable_path.map(|mut path| {
                path.truncate(without_deleted(&path).len());
                path
            }),
            path_cut,
            args: args.filter(|_| self.args),
            args_cut: args_cut && self.args,
        };
        self.slots
            .put(Key::Image(pid, key), Slot::Announced(identity));
    }

    /// The process of a task that was there at `seen` (CLOCK_BOOTTIME, ns).
    ///
    /// One without key and cgroup id was found in `/proc` (see [`super::task`]) and is read from there
    /// each time: nothing in it would tell that it has executed something else or moved. Whoever asks often
    /// remembers it (see [`super::met`]).
    pub fn of(&mut self, task: &Task, seen: u64, clock: &Clock) -> Arc<Process> {
        if task.key.is_none() && task.cgroup.is_none() {
            return Arc::new(self.build(task, seen, clock, Identity::default()));
        }
        let key = Key::of(task);
        if let Some(Slot::Known(known)) = key.and_then(|key| self.slots.get(&key))
            && known.uid == task.uid
            && known.cgroup == task.cgroup
        {
            return Arc::clone(&known.process);
        }
        let identity = match key.and_then(|key| self.slots.take(&key)) {
            Some(Slot::Announced(identity)) => identity,
            Some(Slot::Known(known)) => Identity {
                executable_path: known.process.executable_path.clone(),
                path_cut: false,
                args: known.process.args.clone(),
                args_cut: false,
            },
            None => Identity::default(),
        };
        let process = Arc::new(self.build(task, seen, clock, identity));
        if let Some(key) = key {
            self.slots.put(
                key,
                Slot::Known(Known {
                    process: Arc::clone(&process),
                    uid: task.uid,
                    cgroup: task.cgroup,
                }),
            );
        }
        process
    }

    fn build(&mut self, task: &Task, seen: u64, clock: &Clock, identity: Identity) -> Process {
        let live = Live::new(task, seen);
        let lacks_path = identity.path_cut || identity.executable_path.is_none();
        let lacks_args = self.args && (identity.args_cut || identity.args.is_none());
        let identity = if lacks_path || lacks_args {
            match live.identity(self.args) {
                Some(full) => identity.completed(full),
                None => identity,
            }
        } else {
            identity
        };
        let placement = self.cgroups.placement(task.cgroup, || live.cgroup());
        Process {
            executable_path: identity.executable_path,
            args: identity.args,
            creation: task.start_boot.map(|start| clock.utc(start)),
            user_name: self.users.name(task.uid),
            cgroup: placement.path.clone(),
            container: placement.container.clone(),
            systemd_unit: placement.unit.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::process::{Child, Command};

    use proptest::prelude::*;

    use super::*;

    fn whole(path: &str, args: &[&str]) -> Identity {
        Identity {
            executable_path: Some(path.to_owned()),
            args: Some(args.iter().map(|&arg| arg.to_owned()).collect()),
            ..Identity::default()
        }
    }

    fn path_cut(path: &str, args: &[&str]) -> Identity {
        Identity {
            path_cut: true,
            ..whole(path, args)
        }
    }

    fn args_cut(path: &str, args: &[&str]) -> Identity {
        Identity {
            args_cut: true,
            ..whole(path, args)
        }
    }

    fn image(key: u64, path: &str) -> ProcessImage {
        ProcessImage {
            key,
            pid: PID,
            executable_path: Some(path.to_owned()),
            path_cut: false,
            args: Some(vec![path.to_owned(), "--flag".to_owned()]),
            args_cut: false,
        }
    }

    /// Above the kernel's limit for pids, so that `/proc` knows nothing of it.
    const PID: u32 = 0x7000_0000;

    fn gone(key: u64) -> Task {
        Task {
            pid: PID,
            tid: PID,
            comm: Some("gone".to_owned()),
            start_boot: Some(1_000_000_000),
            key: Some(key),
            cgroup: Some(1),
            ..Task::default()
        }
    }

    struct Sleeper(Child);

    impl Sleeper {
        fn start() -> Self {
            let sleeper = Self(Command::new("sleep").arg("60").spawn().unwrap());
            // posix_spawn returns from the middle of exec, before name and arguments are there.
            let process =
                procfs::process::Process::new(sleeper.0.id().try_into().unwrap()).unwrap();
            while process.stat().unwrap().comm != "sleep" || process.cmdline().unwrap().len() != 2 {
                std::thread::yield_now();
            }
            sleeper
        }

        fn task(&self) -> Task {
            let pid = self.0.id();
            let process = procfs::process::Process::new(pid.try_into().unwrap()).unwrap();
            let stat = process.stat().unwrap();
            let tick = 1_000_000_000 / procfs::ticks_per_second();
            Task {
                pid,
                tid: pid,
                comm: Some(stat.comm),
                start_boot: Some(stat.starttime * tick + tick / 2),
                key: Some(7),
                cgroup: Some(1),
                ..Task::default()
            }
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    #[test]
    fn a_process_that_is_gone_has_the_name_the_kernel_sent() {
        let clock = Clock::new().unwrap();
        let mut processes = Processes::new(false, true);
        processes.announce(image(7, "/usr/bin/short-lived (deleted)"));
        let process = processes.of(&gone(7), 2_000_000_000, &clock);
        assert_eq!(
            process.executable_path.as_deref(),
            Some("/usr/bin/short-lived")
        );
        assert_eq!(process.args.as_ref().unwrap().len(), 2);
        assert_eq!(process.user_name.as_deref(), Some("root"));
        assert_eq!(process.creation, Some(clock.utc(1_000_000_000)));
        assert_eq!(process.cgroup.as_deref(), Some("/"));
    }

    #[test]
    fn events_of_a_process_share_it() {
        let clock = Clock::new().unwrap();
        let mut processes = Processes::new(false, true);
        processes.announce(image(7, "/usr/bin/a"));
        let first = processes.of(&gone(7), 2, &clock);
        let second = processes.of(&gone(7), 3, &clock);
        assert!(Arc::ptr_eq(&first, &second));
    }

    #[test]
    fn a_reused_pid_does_not_inherit_a_name() {
        let clock = Clock::new().unwrap();
        let mut processes = Processes::new(false, true);
        processes.announce(image(7, "/usr/bin/first"));
        processes.of(&gone(7), 2, &clock);
        assert_eq!(processes.of(&gone(8), 3, &clock).executable_path, None);
    }

    #[test]
    fn exec_gives_another_name() {
        let clock = Clock::new().unwrap();
        let mut processes = Processes::new(false, true);
        processes.announce(image(7, "/bin/sh"));
        processes.of(&gone(7), 2, &clock);
        processes.announce(image(8, "/usr/bin/server"));
        let process = processes.of(&gone(8), 3, &clock);
        assert_eq!(process.executable_name(), Some("server"));
    }

    #[test]
    fn setuid_changes_the_user_and_nothing_else() {
        let clock = Clock::new().unwrap();
        let mut processes = Processes::new(false, true);
        processes.announce(image(7, "/usr/sbin/nginx"));
        let before = processes.of(&gone(7), 2, &clock);
        let after = Task {
            uid: 4_000_000_001,
            ..gone(7)
        };
        let after = processes.of(&after, 3, &clock);
        assert_eq!(before.user_name.as_deref(), Some("root"));
        assert_eq!(after.user_name, None);
        assert_eq!(after.executable_path, before.executable_path);
        assert_eq!(after.args, before.args);
    }

    #[test]
    fn without_arguments_there_are_none() {
        let clock = Clock::new().unwrap();
        let mut processes = Processes::new(true, false);
        processes.announce(image(7, "/usr/bin/a"));
        let process = processes.of(&gone(7), 2, &clock);
        assert_eq!((&process.args, &process.user_name), (&None, &None));
        let sleeper = Sleeper::start();
        let task = Task {
            key: Some(9),
            ..sleeper.task()
        };
        let process = processes.of(&task, u64::MAX, &clock);
        assert_eq!(process.executable_name().map(str::is_empty), Some(false));
        assert_eq!(process.args, None);
    }

    #[test]
    fn a_process_without_an_image_is_read_from_proc() {
        let clock = Clock::new().unwrap();
        let sleeper = Sleeper::start();
        let task = sleeper.task();
        let process = Processes::new(false, true).of(&task, u64::MAX, &clock);
        assert_eq!(
            process.args,
            Some(vec!["sleep".to_owned(), "60".to_owned()])
        );
        assert!(process.executable_path.as_ref().unwrap().starts_with('/'));
        assert!(process.cgroup.is_some());
    }

    #[test]
    fn arguments_cut_in_the_kernel_are_completed() {
        let clock = Clock::new().unwrap();
        let sleeper = Sleeper::start();
        let task = sleeper.task();
        let mut processes = Processes::new(false, true);
        processes.announce(ProcessImage {
            args: Some(vec!["sleep".to_owned(), "6".to_owned()]),
            executable_path: None,
            args_cut: true,
            pid: task.pid,
            ..image(7, "")
        });
        let process = processes.of(&task, u64::MAX, &clock);
        assert_eq!(process.args.as_ref().unwrap()[1], "60");
    }

    #[test]
    fn what_contradicts_the_kernel_is_not_believed() {
        for (cut, full, believed) in [
            (
                args_cut("/a/b", &["x", "lo"]),
                whole("/a/b", &["x", "long", "y"]),
                true,
            ),
            (path_cut("b/c", &["x"]), whole("/a/b/c", &["x"]), true),
            (path_cut("b/c", &["x"]), whole("/a/bb/c", &["x"]), false),
            (path_cut("b/c", &["x"]), whole("/ab/c", &["x"]), false),
            (
                args_cut("/a/b", &["x", "lo"]),
                whole("/a/b", &["x", "short"]),
                false,
            ),
            (args_cut("/a/b", &["x", "lo"]), whole("/a/b", &["x"]), false),
            (
                args_cut("/a/b", &["x", "caf\u{fffd}"]),
                whole("/a/b", &["x", "café"]),
                true,
            ),
            (args_cut("/a/b", &[]), whole("/a/b", &["x"]), true),
            (
                args_cut("/a/b", &["x", "lo"]),
                whole("/a/c", &["x", "long"]),
                false,
            ),
        ] {
            let expected = if believed { full.clone() } else { cut.clone() };
            assert_eq!(cut.completed(full), expected);
        }
    }

    #[test]
    fn only_what_is_cut_is_replaced() {
        let sent = args_cut("/a/b/c", &["x", "lo"]);
        let full = whole("/a/b/c", &["x", "long"]);
        assert_eq!(sent.completed(full), whole("/a/b/c", &["x", "long"]));
        let sent = path_cut("b/c", &["own title"]);
        let full = whole("/a/b/c", &["c"]);
        assert_eq!(sent.completed(full), whole("/a/b/c", &["own title"]));
    }

    #[test]
    fn what_proc_does_not_have_stays_cut() {
        let sent = path_cut("b/c", &["x"]);
        let nothing = Identity::default();
        assert_eq!(sent.clone().completed(nothing), sent);
    }

    #[test]
    fn what_the_kernel_sent_whole_is_kept() {
        let sent = whole("/a", &["x"]);
        assert_eq!(sent.clone().completed(whole("/b", &["y"])), sent);
        let path_only = Identity {
            args: None,
            ..sent.clone()
        };
        assert_eq!(
            path_only.completed(whole("/b", &["y"])),
            whole("/a", &["y"])
        );
    }

    proptest! {
        #[test]
        fn a_cut_identity_is_recognised(
            path in proptest::collection::vec("[a-zé]{1,8}", 1..5),
            args in proptest::collection::vec("[a-zé]{1,8}", 1..5),
            components in 1usize..5,
            keep in 0usize..5,
            letters in 0usize..8,
        ) {
            let full = Identity {
                executable_path: Some(format!("/{}", path.join("/"))),
                args: Some(args.clone()),
                ..Identity::default()
            };
            let mut kept: Vec<String> = args.iter().take(keep.max(1)).cloned().collect();
            let last = kept.last_mut().unwrap();
            *last = last.chars().take(letters).collect();
            let cut = Identity {
                executable_path: Some(path[path.len().saturating_sub(components)..].join("/")),
                path_cut: true,
                args: Some(kept),
                args_cut: true,
            };
            prop_assert_eq!(cut.completed(full.clone()), full);
        }
    }
}
