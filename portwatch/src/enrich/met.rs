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
    task,
};
use crate::event::{Occupant, Task};

/// Processes remembered: a server may have hundreds that share its sockets, and all are looked at for each
/// call that is refused.
const CAPACITY: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1023);
/// Bytes that they may take.
const BYTES: usize = 1 << 20;

/// How long a reading holds. Another start, which is another process, and another name, as exec gives one,
/// show at once. What else a process may change in that time is seen late: its user, its cgroup, and what it
/// executes under the same name.
const VALIDITY: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Met {
    at: Instant,
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

/// A process that is there.
#[derive(Debug)]
pub struct Present {
    /// It, with the parent that it has now.
    pub occupant: Occupant,
    /// It was met before `now`, and has had the pid all the time since.
    pub again: bool,
}

impl Acquaintances {
    fn fresh(&mut self, now: Instant, pid: u32) -> Option<&Met> {
        let met = self.known.get(&pid)?;
        (now.saturating_duration_since(met.at) < VALIDITY).then_some(met)
    }

    /// The process that has a pid of `/proc`; `None` where there is none, or it is hidden. `now`: when that
    /// was asked, or before. `name` finds the names of a task.
    pub fn of(
        &mut self,
        now: Instant,
        pid: u32,
        name: impl FnOnce(Task) -> Occupant,
    ) -> Option<Present> {
        if let Some(Met { at, occupant }) = self.fresh(now, pid)
            && let Some(task) = task::again(&occupant.task)
        {
            let process = Arc::clone(&occupant.process);
            return Some(Present {
                occupant: Occupant { task, process },
                again: *at < now,
            });
        }
        let occupant = name(task::of(pid)?);
        let met = Met {
            at: now,
            occupant: occupant.clone(),
        };
        self.known.put(pid, met);
        Some(Present {
            occupant,
            again: false,
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]

    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::event::Process;

    const MOMENT: Duration = Duration::from_millis(1);

    fn named(task: Task) -> Occupant {
        Occupant {
            task,
            process: Arc::default(),
        }
    }

    /// A process that was met a moment before the time that is returned.
    fn met(pid: u32) -> (Acquaintances, Instant) {
        let mut met = Acquaintances::default();
        let now = Instant::now();
        assert!(!met.of(now, pid, named).unwrap().again);
        (met, now + MOMENT)
    }

    /// Makes a difference to what is remembered of it.
    fn change(met: &mut Acquaintances, pid: u32, with: impl FnOnce(&mut Task)) {
        let mut known = met.known.take(&pid).unwrap();
        with(&mut known.occupant.task);
        met.known.put(pid, known);
    }

    /// A child that becomes `sleep` when its stdin ends.
    fn child() -> Child {
        let child = Command::new("sh")
            .args(["-c", "read go; exec sleep 60"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        // posix_spawn returns from the middle of exec, before the name is there.
        while task::of(child.id()).unwrap().comm.as_deref() != Some("sh") {
            std::thread::yield_now();
        }
        child
    }

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_process_is_read_once_a_second() {
        let own = std::process::id();
        let (mut met, now) = met(own);
        let unread = |_| panic!("it is known");
        let again = met.of(now, own, unread).unwrap();
        assert!(again.again);
        assert_eq!(again.occupant, named(task::of(own).unwrap()));
        let mut is_again = |now| met.of(now, own, named).unwrap().again;
        assert!(is_again(now + VALIDITY - 2 * MOMENT));
        assert!(!is_again(now + VALIDITY));
        assert!(is_again(now + VALIDITY + MOMENT));
    }

    #[test]
    fn who_was_first_met_after_a_search_began_may_not_be_whom_it_found() {
        let own = std::process::id();
        let (mut met, now) = met(own);
        assert!(!met.of(now - MOMENT, own, named).unwrap().again);
        assert!(met.of(now, own, named).unwrap().again);
    }

    #[test]
    fn who_has_the_pid_of_another_is_not_taken_for_it() {
        let own = std::process::id();
        let (mut met, now) = met(own);
        change(&mut met, own, |task| {
            *task.start_boot.as_mut().unwrap() -= 1_000_000_000;
        });
        let present = met.of(now, own, named).unwrap();
        assert!(!present.again);
        assert_eq!(present.occupant.task, task::of(own).unwrap());
    }

    #[test]
    fn exec_shows_at_once() {
        let mut child = child();
        let pid = child.id();
        let (mut met, now) = met(pid);
        assert!(met.of(now, pid, named).unwrap().again);
        drop(child.stdin.take());
        while task::of(pid).unwrap().comm.as_deref() != Some("sleep") {
            std::thread::yield_now();
        }
        let present = met.of(now, pid, named).unwrap();
        assert!(!present.again);
        assert_eq!(present.occupant.task.comm.as_deref(), Some("sleep"));
        end(child);
    }

    #[test]
    fn who_is_gone_is_not_there_though_it_was_a_moment_ago() {
        let child = child();
        let pid = child.id();
        let (mut met, now) = met(pid);
        end(child);
        assert!(met.of(now, pid, named).is_none());
    }

    #[test]
    fn a_parent_that_has_changed_is_told() {
        let own = std::process::id();
        let (mut met, now) = met(own);
        let parent = task::of(own).unwrap().parent_pid;
        change(&mut met, own, |task| task.parent_pid = Some(0));
        let present = met.of(now, own, named).unwrap();
        assert!(present.again);
        assert_eq!(present.occupant.task.parent_pid, parent);
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut met = Acquaintances::default();
        let long = Arc::new(Process {
            args: Some(vec!["x".repeat(BYTES / 3)]),
            ..Process::default()
        });
        let at = Instant::now();
        for pid in 1..=4 {
            let occupant = Occupant {
                task: Task::default(),
                process: Arc::clone(&long),
            };
            met.known.put(pid, Met { at, occupant });
        }
        let kept = (1..=4).filter(|pid| met.known.get(pid).is_some());
        assert_eq!(kept.count(), 2);
    }
}
