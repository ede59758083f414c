//! Sockets that share a port by SO_REUSEPORT, and whether those who have them belong together.

use super::{
    rules::overlap,
    verdict::{claim_of, claim_of_holder, kind_of},
};
use crate::event::{
    Culprit, Event, Kind, Occupant, Op, Outcome, Overlap, Process, Task, Transport,
};

/// The sockets that an address just bound is shared with: they and the new one form a group, over which the
/// kernel spreads what comes in (net/core/sock_reuseport.c).
#[must_use]
pub fn sharers(event: &Event) -> Vec<Culprit> {
    let Some((conflict, own)) = event.conflict.as_ref().zip(claim_of(event)) else {
        return Vec::new();
    };
    if event.outcome != Outcome::Success || event.op != Op::Bind || !own.reuseport {
        return Vec::new();
    }
    // Each of them gets the multicasts, which is what such UDP sockets are shared for.
    let gets_multicasts = own.address.is_unspecified() || own.address.is_multicast();
    if own.transport != Transport::Tcp && gets_multicasts {
        return Vec::new();
    }
    let shares = |holder| {
        let (claim, is_known) = claim_of_holder(holder)?;
        let kind = kind_of(holder, conflict.connect_only);
        let takes_what_comes = matches!(kind, Kind::Listener | Kind::Bound);
        (is_known && takes_what_comes && claim.reuseport && claim.device == own.device)
            .then(|| overlap(&own, &claim))?
            .filter(|overlap| *overlap == Overlap::Exact)
            .map(|overlap| Culprit {
                holder: holder.clone(),
                kind,
                overlap: Some(overlap),
                reason: None,
            })
    };
    conflict.holders.iter().filter_map(shares).collect()
}

/// Whether another process is known to run a program that has nothing to do with the caller's: another
/// executable, which neither has started the other, nor does a unit or container keep them together.
#[must_use]
pub fn is_stranger(task: &Task, process: &Process, other: &Occupant) -> bool {
    let of_other = &other.process;
    let paths = process
        .executable_path
        .as_ref()
        .zip(of_other.executable_path.as_ref());
    let together = |own: Option<&str>, other: Option<&str>| own.is_some() && own == other;
    paths.is_some_and(|(own, other)| own != other)
        && task.parent_pid != Some(other.task.pid)
        && other.task.parent_pid != Some(task.pid)
        && !together(
            process
                .systemd_unit
                .as_deref()
                .filter(|unit| unit.ends_with(".service")),
            of_other.systemd_unit.as_deref(),
        )
        && !together(
            process
                .container
                .as_ref()
                .map(|container| container.id.as_str()),
            of_other
                .container
                .as_ref()
                .map(|container| container.id.as_str()),
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::Conflict,
        sample::{
            conflict::{held, occupant},
            sighting,
        },
    };

    #[test]
    fn only_those_of_the_same_group_share() {
        let found = |kind, local: &str, reuseport| {
            let mut event = *sighting(Op::Bind, "127.0.0.1:5000").event;
            event.socket.options.reuseport = Some(true);
            let socket = held(kind, local).holder(|holder| {
                holder.socket.options.reuseport = Some(reuseport);
            });
            event.conflict = Some(Conflict {
                holders: vec![socket.culprit.holder],
                total: 1,
                ..Conflict::default()
            });
            sharers(&event).len()
        };
        assert_eq!(found(Kind::Listener, "127.0.0.1:5000", true), 1);
        assert_eq!(found(Kind::Bound, "127.0.0.1:5000", true), 1);
        assert_eq!(found(Kind::Listener, "127.0.0.1:5000", false), 0);
        assert_eq!(
            found(Kind::Listener, "0.0.0.0:5000", true),
            0,
            "the specific one gets all"
        );
        assert_eq!(found(Kind::Client, "127.0.0.1:5000", true), 0);
    }

    #[test]
    fn strangers_are_of_another_program_and_no_relatives() {
        let own = occupant(10, "nginx");
        let judge = |other: &Occupant| is_stranger(&own.task, &own.process, other);
        assert!(judge(&occupant(11, "redis")));
        assert!(!judge(&occupant(11, "nginx")), "a worker");
        let mut child = occupant(11, "worker");
        child.task.parent_pid = Some(10);
        assert!(!judge(&child));
        let unknown = occupant(11, "x").with(|process| process.executable_path = None);
        assert!(!judge(&unknown), "not known is not another");
        let one = occupant(10, "nginx").of("web.service");
        let other = occupant(11, "php").of("web.service");
        assert!(!is_stranger(&one.task, &one.process, &other));
    }
}
