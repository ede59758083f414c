//! The process of an event: what the kernel sent ahead of it, else what `/proc` still has.

use std::{num::NonZeroUsize, sync::Arc};

use super::{
    cache::{Cache, Weigh},
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
    /// Arguments.
    pub args: Option<Vec<String>>,
    /// One of them is longer than what is here.
    pub cut: bool,
}

impl Identity {
    /// Takes from `/proc` what the kernel's record did not have or had to cut, as long as the two
    /// do not contradict each other.
    fn completed(self, full: Self) -> Self {
        if self.cut && !self.begins(&full) {
            return self;
        }
        if self.cut {
            return Self {
                executable_path: full.executable_path.or(self.executable_path),
                args: full.args.or(self.args),
                cut: false,
            };
        }
        Self {
            executable_path: self.executable_path.or(full.executable_path),
            args: self.args.or(full.args),
            cut: false,
        }
    }

    /// Whether this could be `full`, cut: of a path the end is kept, of arguments the beginning.
    fn begins(&self, full: &Self) -> bool {
        let path = match (&self.executable_path, &full.executable_path) {
            (Some(cut), Some(full)) => full.ends_with(cut.as_str()),
            _ => true,
        };
        let args = match (self.args.as_deref(), full.args.as_deref()) {
            (Some([first @ .., last]), Some(full)) => {
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

impl Weigh for Slot {
    fn weight(&self) -> usize {
        let strings = |path: Option<&String>, args: Option<&Vec<String>>| {
            path.map_or(0, String::len)
                + args.map_or(0, |args| {
                    args.iter()
                        .map(|arg| arg.len() + size_of::<String>() + 8)
                        .sum()
                })
        };
        // Slot, list links and hash table.
        128 + match self {
            Self::Announced(identity) => {
                strings(identity.executable_path.as_ref(), identity.args.as_ref())
            }
            Self::Known(known) => {
                let process = &*known.process;
                size_of::<Process>()
                    + strings(process.executable_path.as_ref(), process.args.as_ref())
                    + process.cgroup.as_ref().map_or(0, String::len)
                    + process.systemd_unit.as_ref().map_or(0, String::len)
                    + process.container.as_ref().map_or(0, |c| c.id.len())
            }
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
            args,
            cut,
        } = image;
        let identity = Identity {
            executable_path: executable_path.map(|mut path| {
                path.truncate(without_deleted(&path).len());
                path
            }),
            args: args.filter(|_| self.args),
            cut,
        };
        self.slots
            .put(Key::Image(pid, key), Slot::Announced(identity));
    }

    /// The process of a task that was there at `seen` (CLOCK_BOOTTIME, ns).
    pub fn of(&mut self, task: &Task, seen: u64, clock: &Clock) -> Arc<Process> {
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
                args: known.process.args.clone(),
                cut: false,
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
        let lacks_args = self.args && identity.args.is_none();
        let identity = if identity.cut || identity.executable_path.is_none() || lacks_args {
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

    fn identity(path: &str, args: &[&str], cut: bool) -> Identity {
        Identity {
            executable_path: Some(path.to_owned()),
            args: Some(args.iter().map(|&arg| arg.to_owned()).collect()),
            cut,
        }
    }

    fn image(key: u64, path: &str) -> ProcessImage {
        ProcessImage {
            key,
            pid: PID,
            executable_path: Some(path.to_owned()),
            args: Some(vec![path.to_owned(), "--flag".to_owned()]),
            cut: false,
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
            cut: true,
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
                identity("/a/b", &["x", "lo"], true),
                identity("/a/b", &["x", "long", "y"], false),
                true,
            ),
            (
                identity("b/c", &["x"], true),
                identity("/a/b/c", &["x"], false),
                true,
            ),
            (
                identity("/a/b", &["x", "lo"], true),
                identity("/a/c", &["x", "long"], false),
                false,
            ),
            (
                identity("/a/b", &["x", "lo"], true),
                identity("/a/b", &["x", "short"], false),
                false,
            ),
            (
                identity("/a/b", &["x", "lo"], true),
                identity("/a/b", &["x"], false),
                false,
            ),
            (
                identity("/a/b", &["x", "caf\u{fffd}"], true),
                identity("/a/b", &["x", "café"], false),
                true,
            ),
            (
                identity("/a/b", &[], true),
                identity("/a/b", &["x"], false),
                true,
            ),
        ] {
            let expected = if believed { full.clone() } else { cut.clone() };
            assert_eq!(cut.completed(full), expected);
        }
    }

    #[test]
    fn what_the_kernel_sent_whole_is_kept() {
        let sent = identity("/a", &["x"], false);
        assert_eq!(sent.clone().completed(identity("/b", &["y"], false)), sent);
        let path_only = Identity {
            args: None,
            ..sent.clone()
        };
        assert_eq!(
            path_only.completed(identity("/b", &["y"], false)),
            identity("/a", &["y"], false)
        );
    }

    proptest! {
        #[test]
        fn a_cut_identity_is_recognised(
            path in "(/[a-zé]{1,8}){1,4}",
            args in proptest::collection::vec("[a-zé]{1,8}", 1..5),
            keep in 0usize..5,
            letters in 0usize..8,
        ) {
            let full = Identity { executable_path: Some(path.clone()), args: Some(args.clone()), cut: false };
            let tail = path.char_indices().nth(letters).map_or(0, |(at, _)| at);
            let mut kept: Vec<String> = args.iter().take(keep.max(1)).cloned().collect();
            let last = kept.last_mut().unwrap();
            *last = last.chars().take(letters).collect();
            let cut = Identity {
                executable_path: Some(path[tail..].to_owned()),
                args: Some(kept),
                cut: true,
            };
            prop_assert_eq!(cut.completed(full.clone()), full);
        }
    }
}
