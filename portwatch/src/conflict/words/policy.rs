//! Refused by policy: by whom, as far as that can be told. The words depend on that and on the operation alone
//! (`enrich` keeps them for other calls).

use super::Case;
use crate::event::{Op, Policy, PolicyProgram};

/// Programs that are named.
const NAMED: usize = 4;

/// Of these the hook is seen where a backend has one.
const MODULE: &str = "a security module (SELinux, AppArmor, Landlock …)";

/// A system call's result alone does not tell them apart.
const OTHERS: &str = "a security module (SELinux, AppArmor, Landlock …) or a seccomp filter";

pub(super) fn message(case: &Case<'_>) -> String {
    const GONE: &str = "a cgroup program that was not there any more when portwatch looked";
    match &case.findings.policy {
        Some(Policy::Module) => format!("refused by {MODULE}"),
        // No program is asked for these.
        Some(Policy::Programs(..)) if matches!(case.event.op, Op::Listen | Op::Autobind) => {
            format!("refused by {OTHERS}")
        }
        Some(Policy::Programs(programs, true)) if programs.is_empty() => {
            format!("refused by {GONE}")
        }
        Some(Policy::Programs(programs, false)) if programs.is_empty() => {
            format!("refused by {OTHERS}, or by {GONE}")
        }
        Some(Policy::Programs(programs, is_one)) => {
            let all = listed(programs);
            match (is_one, programs.as_slice()) {
                (true, [_]) => format!("refused by cgroup program {all}"),
                (true, _) => format!("refused by one of the cgroup programs {all}"),
                (false, [_]) => format!("refused by cgroup program {all}, {OTHERS}"),
                (false, _) => format!("refused by one of the cgroup programs {all}, {OTHERS}"),
            }
        }
        Some(Policy::Unread) | None => format!("refused by a cgroup program, {OTHERS}"),
    }
}

/// `deny_bind (id 12) on /system.slice/a.service, id 13 on /`
fn listed(programs: &[PolicyProgram]) -> String {
    let mut words: Vec<String> = programs
        .iter()
        .take(NAMED)
        .map(|program| {
            let PolicyProgram {
                id,
                name,
                attach_type: _,
                cgroup,
            } = program;
            match name {
                Some(name) => format!("{name} (id {id}) on {cgroup}"),
                None => format!("id {id} on {cgroup}"),
            }
        })
        .collect();
    if let Some(more) = programs.len().checked_sub(NAMED).filter(|&more| more > 0) {
        words.push(format!("{more} more"));
    }
    words.join(", ")
}

pub(super) fn hint(case: &Case<'_>) -> String {
    const LOG: &str = "look for a denial in the audit log (ausearch -m avc, journalctl -k)";
    const TREE: &str = "bpftool cgroup tree";
    match &case.findings.policy {
        Some(Policy::Module) => LOG.to_owned(),
        Some(Policy::Programs(programs, true)) => match programs.first() {
            Some(first) => format!(
                "see what it decides by with bpftool prog dump xlated id {}, and who runs it with {TREE}",
                first.id
            ),
            None => "try again".to_owned(),
        },
        Some(Policy::Programs(programs, false)) if programs.is_empty() => LOG.to_owned(),
        _ => format!("{LOG} and for cgroup programs ({TREE})"),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]

    use std::sync::Arc;

    use super::*;
    use crate::{
        event::{Kind, Process, Transport},
        sample::{by_policy, process, programs, refused, sighting},
    };

    fn said(policy: Policy) -> String {
        said_of(Op::Bind, policy)
    }

    fn said_of(op: Op, policy: Policy) -> String {
        let call = sighting(op, "0.0.0.0:30539");
        let refused = by_policy(refused(call, Kind::Policy, libc::EPERM), policy);
        let explanation = refused.explanation.unwrap();
        let hint = explanation.hint.as_deref().unwrap();
        format!("{}. {hint}\n", explanation.message)
    }

    #[test]
    fn nothing_else_is_told() {
        let said = |errno, call| {
            let refused = refused(call, Kind::Policy, errno);
            by_policy(refused, Policy::Programs(programs(&[None]), false)).explanation
        };
        let mut other = sighting(Op::Bind, "[::1]:443");
        other.event.transport = Transport::Udp;
        let task = &mut other.event.task;
        task.pid += 1;
        task.uid += 1000;
        task.comm = Some("other".to_owned());
        other.process = Arc::new(Process {
            systemd_unit: Some("other.service".to_owned()),
            user_name: Some("other".into()),
            cgroup: Some("/other".to_owned()),
            ..process("/bin/other", &["other", "--port=443"])
        });
        let call = sighting(Op::Bind, "0.0.0.0:80");
        assert_ne!(call.event.family, other.event.family);
        assert_eq!(said(libc::EPERM, call), said(libc::EACCES, other));
    }

    #[test]
    fn who_refused() {
        let one = || programs(&[Some("deny_bind")]);
        let two = || programs(&[Some("deny_bind"), None]);
        let many = || programs(&[Some("a"), Some("b"), Some("c"), Some("d"), Some("e")]);
        insta::assert_snapshot!(
            [
                said(Policy::Module),
                said(Policy::Programs(one(), true)),
                said(Policy::Programs(two(), true)),
                said(Policy::Programs(Vec::new(), true)),
                said(Policy::Programs(one(), false)),
                said(Policy::Programs(many(), false)),
                said(Policy::Programs(Vec::new(), false)),
                said(Policy::Unread),
                said_of(Op::Listen, Policy::Programs(Vec::new(), false)),
            ]
            .concat()
        );
    }
}
