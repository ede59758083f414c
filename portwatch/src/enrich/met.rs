//! Processes of `/proc` as they were a moment ago.
//!
//! Who is refused is often refused a thousand times a second, and by the same holders. To read a process
//! takes 25 system calls, to see that it is still the one that was read takes three.

use std::{
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    cache::{Cache, OVERHEAD, Weigh},
    image::Image,
    task,
};
use crate::event::{Occupant, Task};

/// Processes remembered: a server may have hundreds that share its sockets, and all are looked at for each
/// call that is refused.
const CAPACITY: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1023);
/// Bytes that they may take.
const BYTES: usize = 1 << 20;

/// How long a reading holds. Another process, exec, and another name show at once; exec unless addresses are not
/// randomized and arguments and environment of the same program are as long as before. What else a process
/// may change in that time is seen late: its user, its cgroup, and arguments that it writes over.
const VALIDITY: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Met {
    at: Instant,
    /// Looked up before the rest.
    image: Image,
    occupant: Occupant,
}

impl Weigh for Met {
    fn weight(&self) -> usize {
        let Occupant { task, process } = &self.occupant;
        let comm = task.comm.as_ref().map_or(0, String::len);
        OVERHEAD + size_of::<Self>() + comm + process.weight()
    }
}

/// The latest of them, by pid.
#[derive(Debug)]
pub struct Acquaintances {
    known: Cache<u32, Met>,
}

impl Default for Acquaintances {
    fn default() -> Self {
        Self {
            known: Cache::new(CAPACITY, BYTES),
        }
    }
}

impl Acquaintances {
    fn fresh(&mut self, now: Instant, pid: u32) -> Option<&Met> {
        let met = self.known.get(&pid)?;
        (now.saturating_duration_since(met.at) < VALIDITY).then_some(met)
    }

    /// The process that has a pid of `/proc`, with the parent that it has now; `None` where there is none, or
    /// it is hidden. `name` finds the names of a task. One of which it could not be told whether it executes
    /// something else is not remembered: a process in the middle of exec has no arguments yet.
    pub fn of(
        &mut self,
        now: Instant,
        pid: u32,
        name: impl FnOnce(Task) -> Occupant,
    ) -> Option<Occupant> {
        if let Some(met) = self.fresh(now, pid)
            && let Some(task) = task::again(&met.occupant.task, met.image)
        {
            let process = Arc::clone(&met.occupant.process);
            return Some(Occupant { task, process });
        }
        let (task, image) = task::with_image(pid)?;
        let occupant = name(task);
        if let Some(image) = image {
            let met = Met {
                at: now,
                image,
                occupant: occupant.clone(),
            };
            self.known.put(pid, met);
        }
        Some(occupant)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]

    use std::{
        io::{BufRead as _, BufReader},
        process::{Child, ChildStdout, Command, Stdio},
    };

    use super::*;
    use crate::event::Process;

    const MOMENT: Duration = Duration::from_millis(1);

    fn named(task: Task) -> Occupant {
        Occupant {
            task,
            process: Arc::default(),
        }
    }

    impl Acquaintances {
        /// The process with a pid, and whether it had to be read for that.
        fn asked(&mut self, now: Instant, pid: u32) -> Option<(Task, bool)> {
            let mut is_read = false;
            let occupant = self.of(now, pid, |task| {
                is_read = true;
                named(task)
            });
            Some((occupant?.task, is_read))
        }
    }

    /// A process that was met a moment before the time that is returned.
    fn met(pid: u32) -> (Acquaintances, Instant) {
        let mut met = Acquaintances::default();
        let now = Instant::now();
        assert!(met.asked(now, pid).unwrap().1);
        (met, now + MOMENT)
    }

    /// Makes a difference to what is remembered of it.
    fn change(met: &mut Acquaintances, pid: u32, with: impl FnOnce(&mut Met)) {
        let mut known = met.known.take(&pid).unwrap();
        with(&mut known);
        met.known.put(pid, known);
    }

    /// A child that runs a script, and prints a line as it begins to.
    struct Script {
        child: Child,
        lines: BufReader<ChildStdout>,
    }

    impl Script {
        fn of(script: &str) -> Self {
            let mut child = Command::new("sh")
                .args(["-c", &format!("echo; {script}")])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let lines = BufReader::new(child.stdout.take().unwrap());
            let mut script = Self { child, lines };
            script.wait();
            script
        }

        fn pid(&self) -> u32 {
            self.child.id()
        }

        /// Until it prints the next line, or has ended.
        fn wait(&mut self) {
            self.lines.read_line(&mut String::new()).unwrap();
        }

        /// Ends what it reads.
        fn go(&mut self) {
            drop(self.child.stdin.take());
            self.wait();
        }
    }

    impl Drop for Script {
        fn drop(&mut self) {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }

    #[test]
    fn a_process_is_read_once_a_second() {
        let own = std::process::id();
        let (mut met, now) = met(own);
        let task = task::of(own).unwrap();
        assert_eq!(met.asked(now, own), Some((task, false)));
        let mut is_read = |now| met.asked(now, own).unwrap().1;
        assert!(!is_read(now + VALIDITY - 2 * MOMENT));
        assert!(is_read(now + VALIDITY));
        assert!(!is_read(now + VALIDITY + MOMENT));
    }

    #[test]
    fn who_has_the_pid_of_another_is_not_taken_for_it() {
        let own = std::process::id();
        let (mut met, now) = met(own);
        let others = Image::of(std::os::unix::process::parent_id()).unwrap();
        change(&mut met, own, |met| met.image = others);
        let task = task::of(own).unwrap();
        assert_eq!(met.asked(now, own), Some((task, true)));
    }

    #[test]
    fn exec_shows_at_once_under_the_same_name_too() {
        for program in ["sh -c 'echo; kill -STOP $$'", "sleep 60"] {
            let mut script = Script::of(&format!("read go; exec {program}"));
            let pid = script.pid();
            let (mut met, now) = met(pid);
            assert!(!met.asked(now, pid).unwrap().1);
            let name = program.split(' ').next();
            drop(script.child.stdin.take());
            if name == Some("sh") {
                script.wait();
            }
            while task::of(pid).unwrap().comm.as_deref() != name {
                std::thread::yield_now();
            }
            let (task, is_read) = met.asked(now, pid).unwrap();
            assert_eq!((task.comm.as_deref(), is_read), (name, true));
        }
    }

    #[test]
    fn another_name_shows_at_once() {
        let mut script = Script::of("read go; printf other >/proc/$$/comm; echo; kill -STOP $$");
        let pid = script.pid();
        let (mut met, now) = met(pid);
        script.go();
        let (task, is_read) = met.asked(now, pid).unwrap();
        assert_eq!((task.comm.as_deref(), is_read), (Some("other"), true));
    }

    /// As in the middle of exec, and without the rights of ptrace.
    #[test]
    fn of_whom_it_is_not_known_what_it_runs_nothing_is_remembered() {
        let mut script = Script::of("exit");
        let pid = script.pid();
        script.wait();
        while Image::of(pid).is_some() {
            std::thread::yield_now();
        }
        let (mut met, now) = met(pid);
        assert!(met.asked(now, pid).unwrap().1);
    }

    #[test]
    fn who_is_gone_is_not_there_though_it_was_a_moment_ago() {
        let script = Script::of("read end");
        let pid = script.pid();
        let (mut met, now) = met(pid);
        drop(script);
        assert_eq!(met.asked(now, pid), None);
    }

    #[test]
    fn a_parent_that_has_changed_is_told() {
        let own = std::process::id();
        let (mut met, now) = met(own);
        let parent = task::of(own).unwrap().parent_pid;
        change(&mut met, own, |met| met.occupant.task.parent_pid = Some(0));
        let (task, is_read) = met.asked(now, own).unwrap();
        assert_eq!((task.parent_pid, is_read), (parent, false));
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut met = Acquaintances::default();
        let process = Arc::new(Process {
            args: Some(vec!["x".repeat(BYTES / 3)]),
            ..Process::default()
        });
        let image = Image::of(std::process::id()).unwrap();
        let at = Instant::now();
        for pid in 1..=4 {
            let occupant = Occupant {
                task: Task::default(),
                process: Arc::clone(&process),
            };
            let entry = Met {
                at,
                image,
                occupant,
            };
            met.known.put(pid, entry);
        }
        let kept = (1..=4).filter(|pid| met.known.get(pid).is_some());
        assert_eq!(kept.count(), 2);
    }
}
