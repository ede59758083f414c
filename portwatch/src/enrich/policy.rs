//! The cgroup programs that may have refused a call.

use std::io;

use crate::{
    event::{Backend, Errno, Event, Family, Op, Outcome, Policy, PolicyProgram, Process},
    host::cgroup_programs::{self, Attach, Attached},
};

/// The programs that the kernel asks for such a call (net/ipv4/af_inet.c, net/ipv6/af_inet6.c): by the family
/// of the socket, not of the address.
const fn asked(event: &Event) -> &'static [Attach] {
    match (event.op, event.family) {
        (Op::Bind, Family::Ipv4) => &[Attach::Bind4, Attach::PostBind4],
        (Op::Bind, Family::Ipv6) => &[Attach::Bind6, Attach::PostBind6],
        (Op::Connect, Family::Ipv4) => &[Attach::Connect4],
        (Op::Connect, Family::Ipv6) => &[Attach::Connect6],
        (Op::Listen | Op::Autobind | Op::Accept | Op::Release, _) => &[],
    }
}

/// Whether it was a program: where a refusal by a security module would have been seen, and with an errno
/// that no other part of bind() and connect() chooses.
fn is_program(event: &Event, backend: Backend) -> bool {
    let refused = Outcome::Failure(Errno(libc::EPERM.unsigned_abs()));
    backend != Backend::RawTp && event.outcome == refused && !asked(event).is_empty()
}

/// What decides on who may have refused a call, and on the words for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    op: Op,
    /// A security module was seen to refuse it.
    by_module: bool,
    by_program: bool,
    kinds: &'static [Attach],
    cgroup: Cgroup,
}

/// Whose programs are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Cgroup {
    /// Nobody's.
    Any,
    /// By its id: a path would have to be copied for each call.
    Id(u64),
    /// By its path, where its id is not known.
    Path(String),
}

impl Question {
    /// Of a call that was refused by policy; `None` where the cgroup should be known and is not.
    #[must_use]
    pub fn of(event: &Event, process: &Process, backend: Backend) -> Option<Self> {
        let by_module = event.refused_by_policy;
        let kinds = if by_module { &[] } else { asked(event) };
        let cgroup = match (kinds, &process.cgroup, event.task.cgroup) {
            ([], ..) => Cgroup::Any,
            (_, None, _) => return None,
            (_, Some(_), Some(id)) => Cgroup::Id(id),
            (_, Some(path), None) => Cgroup::Path(path.clone()),
        };
        Some(Self {
            op: event.op,
            by_module,
            by_program: is_program(event, backend),
            kinds,
            cgroup,
        })
    }

    /// The answer, found out now. `cgroup`: the path of that which it is about.
    #[must_use]
    pub fn answer(&self, cgroup: Option<&str>) -> Policy {
        let found = cgroup
            .filter(|_| !self.kinds.is_empty())
            .and_then(|path| programs(path, self.kinds).ok());
        match found {
            Some(found) => Policy::Programs(found, self.by_program),
            None => without_programs(self.by_module, self.kinds),
        }
    }
}

/// What can be told without asking for programs.
#[must_use]
pub const fn unasked(event: &Event) -> Policy {
    without_programs(event.refused_by_policy, asked(event))
}

const fn without_programs(by_module: bool, kinds: &[Attach]) -> Policy {
    if by_module {
        Policy::Module
    } else if kinds.is_empty() {
        Policy::Programs(Vec::new(), false)
    } else {
        Policy::Unread
    }
}

/// Those on the cgroup at `path` and above.
///
/// # Errors
/// See [`cgroup_programs::of`].
fn programs(path: &str, kinds: &[Attach]) -> io::Result<Vec<PolicyProgram>> {
    let told = |attached| {
        let Attached {
            id,
            name,
            attach,
            cgroup,
        } = attached;
        PolicyProgram {
            id,
            name,
            attach_type: attach.as_str(),
            cgroup,
        }
    };
    let found = cgroup_programs::of(path, kinds)?;
    Ok(found.into_iter().map(told).collect())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]

    use super::*;
    use crate::sample::{connect, failed, sighting};

    /// What is asked about a call of a process in /a/b, which has the id 7.
    fn question(errno: i32, adjust: impl FnOnce(&mut Event, &mut Process)) -> Option<Question> {
        let mut call = failed(sighting(Op::Bind, "[::]:80"), errno);
        let mut process = Process {
            cgroup: Some("/a/b".to_owned()),
            ..Process::default()
        };
        call.event.task.cgroup = Some(7);
        adjust(&mut call.event, &mut process);
        Question::of(&call.event, &process, Backend::Tracing)
    }

    #[test]
    fn calls_have_one_answer_if_the_same_programs_are_asked_and_the_same_words_said() {
        let first = question(libc::EPERM, |_, _| {}).unwrap();
        let same = |adjust: fn(&mut Event, &mut Process)| {
            question(libc::EPERM, adjust).as_ref() == Some(&first)
        };
        assert!(same(|event, _| event.local.port = Some(81)));
        assert!(same(|event, _| event.task.pid = 1));
        assert!(!same(|event, _| event.task.cgroup = Some(8)));
        assert!(!same(|event, _| event.family = Family::Ipv4));
        assert!(!same(|event, _| event.op = Op::Connect));
        assert!(!same(|event, _| event.refused_by_policy = true));
        assert_ne!(question(libc::EACCES, |_, _| {}).unwrap(), first);
    }

    #[test]
    fn a_cgroup_without_an_id_is_asked_by_its_path() {
        let at = |path: &str| {
            question(libc::EPERM, |event, process| {
                event.task.cgroup = None;
                process.cgroup = Some(path.to_owned());
            })
        };
        assert_eq!(at("/a"), at("/a"));
        assert_ne!(at("/a"), at("/b"));
    }

    #[test]
    fn a_cgroup_is_not_needed_where_no_program_is_asked() {
        let nowhere = |event: &mut Event, process: &mut Process| {
            event.task.cgroup = None;
            process.cgroup = None;
        };
        assert_eq!(question(libc::EPERM, nowhere), None);
        let by_module = question(libc::EPERM, |event, process| {
            nowhere(event, process);
            event.refused_by_policy = true;
        });
        let listen = question(libc::EPERM, |event, process| {
            nowhere(event, process);
            event.op = Op::Listen;
        });
        let told = |question: Option<Question>| question.unwrap().answer(None);
        assert_eq!(told(listen), Policy::Programs(Vec::new(), false));
        assert_eq!(told(by_module), Policy::Module);
    }

    #[test]
    fn a_program_is_only_blamed_where_nobody_else_can_be() {
        let bind = || sighting(Op::Bind, "[::]:80");
        let refused = failed(bind(), libc::EPERM);
        assert!(is_program(&refused.event, Backend::Tracing));
        assert!(is_program(&refused.event, Backend::Kprobe));
        assert!(!is_program(&refused.event, Backend::RawTp));
        let chosen = failed(bind(), libc::EACCES);
        assert!(!is_program(&chosen.event, Backend::Tracing));
        let listen = failed(sighting(Op::Listen, "[::]:80"), libc::EPERM);
        assert!(!is_program(&listen.event, Backend::Tracing));
        let refused = failed(connect("10.0.0.1:1", "10.0.0.9:443"), libc::EPERM);
        assert!(is_program(&refused.event, Backend::Tracing));
        assert_eq!(asked(&refused.event), [Attach::Connect4]);
    }
}
