//! A look at a process that is still there, certain to be the one an event is about.

use std::{cell::OnceCell, io::Read};

use procfs::process::Process;

use super::{clock, process::Identity};
use crate::event::Task;

/// Arguments are read up to here, bytes: what is longer belongs into a file, not on a line.
const ARGS_LIMIT: u64 = 32 * 1024;

/// `/proc/PID` of the process of an event, opened when first asked for. The directory stays that of
/// the same process even when the pid is given to another one.
pub struct Live<'a> {
    task: &'a Task,
    /// CLOCK_BOOTTIME at which the process was certainly there, ns.
    seen: u64,
    process: OnceCell<Option<Process>>,
}

impl<'a> Live<'a> {
    /// Of the process of `task`, which was there at `seen` (CLOCK_BOOTTIME, ns).
    #[must_use]
    pub const fn new(task: &'a Task, seen: u64) -> Self {
        Self {
            task,
            seen,
            process: OnceCell::new(),
        }
    }

    fn process(&self) -> Option<&Process> {
        self.process
            .get_or_init(|| {
                let process = Process::new(i32::try_from(self.task.pid).ok()?).ok()?;
                let ticks = process.stat().ok()?.starttime;
                let hertz = procfs::ticks_per_second();
                // `/proc` counts in this process' time namespace, the kernel's programs do not.
                let here = |time: u64| time.saturating_add_signed(clock::own_boottime_offset());
                let start = self.task.start_boot.map(here);
                same_start(start, ticks, hertz, here(self.seen)).then_some(process)
            })
            .as_ref()
    }

    /// Whether it is still there.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.process().is_some()
    }

    /// The executable and arguments; `None` where the process is gone, or may have executed
    /// something else since.
    #[must_use]
    pub fn identity(&self, args: bool) -> Option<Identity> {
        let process = self.process()?;
        let identity = Identity {
            executable_path: process
                .exe()
                .ok()
                .map(|path| without_deleted(&path.to_string_lossy()).to_owned()),
            args: args
                .then(|| read(process, "cmdline"))
                .flatten()
                .and_then(|bytes| arguments(&bytes)),
            path_cut: false,
            args_cut: false,
        };
        // exec gives the task another name. Read last: one that still has the name of the event
        // was running the same program while the rest was read.
        let comm = read(process, &format!("task/{}/comm", self.task.tid))?;
        let comm = comm.strip_suffix(b"\n").unwrap_or(&comm);
        (*String::from_utf8_lossy(comm) == *self.task.comm.as_ref()?).then_some(identity)
    }

    /// The text of `/proc/PID/cgroup`.
    #[must_use]
    pub fn cgroup(&self) -> Option<String> {
        let bytes = read(self.process()?, "cgroup")?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}

fn read(process: &Process, name: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    process
        .open_relative(name)
        .ok()?
        .take(ARGS_LIMIT)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(bytes)
}

/// Whether a process that started at `ticks` (field 22 of `/proc/PID/stat`, in clock ticks) is the
/// one of an event: by its start, which the kernel rounds down to a tick, or, where the event has
/// none, because it was there before the event and so had the pid then.
fn same_start(start_boot: Option<u64>, ticks: u64, hertz: u64, seen: u64) -> bool {
    let Some(tick) = 1_000_000_000u64.checked_div(hertz).filter(|&tick| tick > 0) else {
        return false;
    };
    match start_boot {
        Some(start) => (start / tick).abs_diff(ticks) <= 1,
        None => ticks
            .checked_add(1)
            .and_then(|next| next.checked_mul(tick))
            .is_some_and(|started| started <= seen),
    }
}

/// What the kernel adds to the name of a file that is no longer there (fs/d_path.c) taken off.
#[must_use]
pub fn without_deleted(path: &str) -> &str {
    path.strip_suffix(" (deleted)").unwrap_or(path)
}

/// Splits `/proc/PID/cmdline`; `None` for a kernel thread or a process that is exiting, which have
/// an empty one. Of what a program has put over its arguments the padding is taken off, as from
/// the kernel's record.
fn arguments(cmdline: &[u8]) -> Option<Vec<String>> {
    if cmdline.is_empty() {
        return None;
    }
    let text = String::from_utf8_lossy(cmdline);
    let text = text.trim_end_matches('\0');
    if text.is_empty() {
        return Some(Vec::new());
    }
    Some(text.split('\0').map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    fn own_task() -> Task {
        let stat = Process::myself().unwrap().stat().unwrap();
        let tid = nix::unistd::gettid().as_raw();
        let comm = std::fs::read_to_string(format!("/proc/self/task/{tid}/comm")).unwrap();
        Task {
            pid: std::process::id(),
            tid: tid.try_into().unwrap(),
            comm: Some(comm.trim_end_matches('\n').to_owned()),
            start_boot: Some(stat.starttime * (1_000_000_000 / procfs::ticks_per_second())),
            ..Task::default()
        }
    }

    #[test]
    fn this_process_is_seen() {
        let task = own_task();
        let live = Live::new(&task, u64::MAX);
        let identity = live.identity(true).unwrap();
        let exe = std::env::current_exe().unwrap();
        assert_eq!(identity.executable_path.as_deref(), exe.to_str());
        let args: Vec<String> = std::env::args().collect();
        assert_eq!(identity.args, Some(args));
        assert!(live.cgroup().unwrap().contains(':'));
        assert_eq!(live.identity(false).unwrap().args, None);
    }

    #[test]
    fn a_process_that_took_over_the_pid_is_not_taken_for_the_first() {
        let mut task = own_task();
        *task.start_boot.as_mut().unwrap() -= 30_000_000;
        let live = Live::new(&task, u64::MAX);
        assert_eq!(live.identity(true), None);
        assert_eq!(live.cgroup(), None);
    }

    #[test]
    fn a_process_that_executed_something_else_keeps_its_cgroup_only() {
        let task = Task {
            comm: Some("something-else".to_owned()),
            ..own_task()
        };
        let live = Live::new(&task, u64::MAX);
        assert_eq!(live.identity(true), None);
        assert!(live.cgroup().is_some());
    }

    #[test]
    fn starts_are_compared_to_the_tick() {
        let second = 1_000_000_000;
        for (start, ticks, seen, same) in [
            (Some(5 * second), 500, 0, true),
            (Some(5 * second + 9_999_999), 500, 0, true),
            (Some(5 * second), 501, 0, true),
            (Some(5 * second), 499, 0, true),
            (Some(5 * second), 502, u64::MAX, false),
            (Some(5 * second), 498, u64::MAX, false),
            (None, 500, 5 * second + 10_000_000, true),
            (None, 500, 5 * second + 9_999_999, false),
            (None, u64::MAX, u64::MAX, false),
        ] {
            assert_eq!(
                same_start(start, ticks, 100, seen),
                same,
                "{start:?} {ticks} {seen}"
            );
        }
        assert!(!same_start(Some(0), 0, 0, 0));
    }

    #[test]
    fn command_lines_split_at_nul() {
        let split = |bytes: &[u8]| arguments(bytes);
        let owned = |args: &[&str]| Some(args.iter().map(|&arg| arg.to_owned()).collect());
        assert_eq!(
            split(b"python3\0-m\0http.server\0"),
            owned(&["python3", "-m", "http.server"])
        );
        assert_eq!(split(b"a\0\0b\0"), owned(&["a", "", "b"]));
        assert_eq!(
            split(b"nginx: master process"),
            owned(&["nginx: master process"])
        );
        assert_eq!(split(b"\xff\0"), owned(&["\u{fffd}"]));
        assert_eq!(split(b"worker: idle\0\0\0\0"), owned(&["worker: idle"]));
        assert_eq!(split(b"\0\0"), owned(&[]));
        assert_eq!(split(b""), None);
    }

    #[test]
    fn deleted_executables_keep_their_name() {
        assert_eq!(without_deleted("/usr/bin/a (deleted)"), "/usr/bin/a");
        assert_eq!(without_deleted("/memfd:x (deleted)"), "/memfd:x");
        assert_eq!(without_deleted("/usr/bin/a"), "/usr/bin/a");
    }

    proptest! {
        #[test]
        fn arguments_come_back(args in proptest::collection::vec("[^\0]{1,10}", 1..6)) {
            let line: String = args.iter().map(|arg| format!("{arg}\0")).collect();
            prop_assert_eq!(arguments(line.as_bytes()), Some(args));
        }

        #[test]
        fn a_start_is_its_own(start in 0u64..u64::MAX / 2, hertz in 1u64..1000) {
            let tick = 1_000_000_000 / hertz;
            prop_assert!(same_start(Some(start), start / tick, hertz, 0));
            prop_assert!(!same_start(Some(start), start / tick + 2, hertz, u64::MAX));
        }
    }
}
