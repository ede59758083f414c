//! The task of a process that was found in `/proc`, not met in an event.

use std::io::Read as _;

use procfs::process::Process;

use super::{
    clock,
    image::{self, Image},
};
use crate::event::Task;

/// The first thread of a process by its pid in this `/proc`, as it is now; `None` where it is gone or
/// hidden. In another pid namespace than the first, the pids are not those of events (see
/// [`crate::host::namespaces`]).
///
/// It has no key and no cgroup id, by which [`super::process::Processes`] knows that it is of `/proc`.
#[must_use]
pub fn of(pid: u32) -> Option<Task> {
    Some(with_image(pid)?.0)
}

/// The same, and what it ran when that was looked up, by which [`again`] knows it; `None` where that cannot
/// be told.
#[must_use]
pub fn with_image(pid: u32) -> Option<(Task, Option<Image>)> {
    // The directory stays that of one process, so that both files tell of the same.
    let process = Process::new(i32::try_from(pid).ok()?).ok()?;
    let read = |name: &str| {
        let mut text = Vec::new();
        process
            .open_relative(name)
            .ok()?
            .read_to_end(&mut text)
            .ok()?;
        Some(String::from_utf8_lossy(&text).into_owned())
    };
    let text = read("stat")?;
    let stat = Stat::parse(&text)?;
    let start_boot = stat.start_boot();
    let status = read("status")?;
    let task = Task {
        pid,
        tid: pid,
        parent_pid: Some(stat.parent),
        vpid: innermost(&status),
        uid: real_user(&status)?,
        // A program may take its name away (PR_SET_NAME).
        comm: Some(stat.comm).filter(|name| !name.is_empty()),
        start_boot,
        key: None,
        cgroup: None,
    };
    Some((task, Image::parse(&text)))
}

/// A task that [`with_image`] has found, with the parent that it has now; `None` where another process has its
/// pid by now, or none, where it has executed something, or given itself another name. Reads one file, once.
#[must_use]
pub fn again(task: &Task, image: Image) -> Option<Task> {
    image::stat(task.pid, |text| {
        let stat = Stat::parse(text)?;
        let is_it = Image::parse(text) == Some(image)
            && stat.comm == task.comm.as_deref().unwrap_or_default();
        is_it.then(|| Task {
            parent_pid: Some(stat.parent),
            ..task.clone()
        })
    })
}

/// Of `/proc/PID/stat` (proc_pid_stat(5)).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    comm: String,
    parent: u32,
    /// Since CLOCK_BOOTTIME 0 of the reader's time namespace, clock ticks.
    start: u64,
}

impl Stat {
    /// The name may hold anything, parentheses and line feeds too: it ends at the last one.
    fn parse(text: &str) -> Option<Self> {
        let (head, rest) = text.rsplit_once(')')?;
        let (_, comm) = head.split_once('(')?;
        // From field 3 on.
        let mut fields = rest.split_ascii_whitespace();
        Some(Self {
            comm: comm.to_owned(),
            parent: fields.nth(1)?.parse().ok()?,
            start: fields.nth(17)?.parse().ok()?,
        })
    }

    fn start_boot(&self) -> Option<u64> {
        start(
            self.start,
            procfs::ticks_per_second(),
            clock::own_boottime_offset(),
        )
    }
}

/// The words after a name in `/proc/PID/status`; a name with a line feed is escaped there
/// (fs/proc/array.c), so that no process can write a line of its own.
fn words<'a>(status: &'a str, name: &str) -> Option<std::str::SplitAsciiWhitespace<'a>> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::split_ascii_whitespace)
}

/// Real, effective, saved and file system user.
fn real_user(status: &str) -> Option<u32> {
    words(status, "Uid")?.next()?.parse().ok()
}

/// The pid in every namespace from the reader's inwards; the line came with Linux 4.1, and needs
/// CONFIG_PID_NS.
fn innermost(status: &str) -> Option<u32> {
    words(status, "NSpid")?.next_back()?.parse().ok()
}

/// A start in ticks (`/proc` rounds down, and shifts it by the offset of its reader's time namespace,
/// ns) as the kernel counts it: CLOCK_BOOTTIME, ns.
fn start(ticks: u64, hertz: u64, offset: i64) -> Option<u64> {
    let tick = 1_000_000_000u64.checked_div(hertz)?;
    ticks
        .checked_mul(tick)?
        .checked_add_signed(offset.checked_neg()?)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::{os::unix::process::CommandExt as _, process::Command};

    use proptest::prelude::*;

    use super::*;
    use crate::enrich::{clock::Clock, process::Processes};

    #[test]
    fn this_process() {
        let task = of(std::process::id()).unwrap();
        let own = std::process::id();
        assert_eq!((task.pid, task.tid), (own, own));
        assert_eq!(task.parent_pid, Some(std::os::unix::process::parent_id()));
        assert_eq!(task.uid, nix::unistd::getuid().as_raw());
        let comm = std::fs::read_to_string(format!("/proc/self/task/{own}/comm")).unwrap();
        assert_eq!(task.comm.as_deref(), comm.strip_suffix('\n'));
        assert!(task.vpid.is_some());
        assert_eq!((task.key, task.cgroup), (None, None));
    }

    #[test]
    fn a_process_that_is_not_there() {
        assert_eq!(of(0x7000_0000), None);
        assert_eq!(of(u32::MAX), None);
        let image = Image::of(std::process::id()).unwrap();
        let gone = Task {
            pid: 0x7000_0000,
            ..Task::default()
        };
        assert_eq!(again(&gone, image), None);
    }

    #[test]
    fn a_process_is_the_same_by_image_and_name() {
        let (task, image) = with_image(std::process::id()).unwrap();
        let image = image.unwrap();
        assert_eq!(again(&task, image).as_ref(), Some(&task));
        let others = Image::of(std::os::unix::process::parent_id()).unwrap();
        assert_eq!(again(&task, others), None);
        let nameless = Task { comm: None, ..task };
        assert_eq!(again(&nameless, image), None);
    }

    #[test]
    fn its_process_is_read_anew_each_time() {
        let mut child = Command::new("sh")
            .args(["-c", "read go; exec sleep 60"])
            .stdin(std::process::Stdio::piped())
            .arg0("first")
            .spawn()
            .unwrap();
        let (pid, go) = (child.id(), child.stdin.take());
        let clock = Clock::new().unwrap();
        let mut processes = Processes::new(false, true);
        let mut wait_for = |first: &str| {
            for _ in 0..200 {
                let task = of(pid).unwrap();
                let process = processes.of(&task, 0, &clock);
                if process.args.as_ref().is_some_and(|args| args[0] == first) {
                    return process;
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            panic!("{first}");
        };
        let first = wait_for("first");
        assert!(first.creation.is_some() && first.cgroup.is_some());
        assert_eq!(
            first.user_name.is_some(),
            std::fs::read("/etc/passwd").is_ok()
        );
        drop(go);
        let second = wait_for("sleep");
        assert_ne!(second.executable_path, first.executable_path);
        assert_eq!(second.creation, first.creation);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn names_may_hold_anything() {
        let rest = "S 1 2 3 0 -1 4194560 5 6 7 8 9 10 11 12 20 0 1 0 4242 1 2 3";
        for comm in ["a", "", "a) R 7 (b", "x\n)) 1 2", "(("] {
            assert_eq!(
                Stat::parse(&format!("10 ({comm}) {rest}\n")),
                Some(Stat {
                    comm: comm.to_owned(),
                    parent: 1,
                    start: 4242
                }),
                "{comm:?}"
            );
        }
        assert_eq!(Stat::parse("10 (a) S 1 2 3"), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn lines_of_the_status() {
        let status = "Name:\tUid:\\n\nTgid:\t10\nUid:\t1000\t0\t0\t0\nNSpid:\t10\t4\t1\n";
        assert_eq!(real_user(status), Some(1000));
        assert_eq!(innermost(status), Some(1));
        assert_eq!(innermost("NSpid:\n"), None);
        assert_eq!(real_user("Uid\n"), None);
    }

    #[test]
    fn starts_are_the_kernels() {
        assert_eq!(start(500, 100, 0), Some(5_000_000_000));
        // The reader's clock is two seconds ahead.
        assert_eq!(start(500, 100, 2_000_000_000), Some(3_000_000_000));
        assert_eq!(start(500, 100, -1), Some(5_000_000_001));
        assert_eq!(start(1, 100, 2_000_000_000), None);
        assert_eq!(start(1, 0, 0), None);
        assert_eq!(start(u64::MAX, 100, 0), None);
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in r"([0-9]{0,3} ?\(?[a-z\n)]{0,5}\)? [A-Z]? ?([0-9-]{1,3} ){0,22}\n?){0,2}") {
            let _ = Stat::parse(&text);
            let _ = real_user(&text);
            let _ = innermost(&text);
        }
    }
}
