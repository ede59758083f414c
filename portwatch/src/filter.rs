//! Whether the user asked to see an event. Pure; the kernel side has decided most of it already,
//! and what both decide they decide alike.

use std::ops::RangeInclusive;

use crate::{
    event::{Errno, Event, Outcome, Sighting},
    selection::Selection,
};

/// Whether `sighting` is wanted. Kinds are joined by AND, the values of one kind by OR; a kind
/// without values lets everything pass. A fact that is not known matches nothing.
///
/// [`Selection::descendants`] is not looked at: only the kernel side sees every fork, and it sends
/// nothing else.
#[must_use]
pub fn wants(selection: &Selection, sighting: &Sighting) -> bool {
    let Selection {
        ports,
        peer_ports,
        pids,
        comms,
        uids,
        netns,
        cgroups,
        containers,
        transports,
        families,
        events,
        failed,
        conflicts,
        descendants: _,
    } = selection;
    let Sighting { event, process, .. } = sighting;

    any(events, |op| *op == event.op)
        && any(transports, |transport| *transport == event.transport)
        && any(families, |family| *family == event.family)
        && (!failed || event.outcome.is_failure())
        && (!conflicts || is_conflict(event))
        && in_ranges(ports, event.local.port)
        && in_ranges(peer_ports, event.peer.and_then(|peer| peer.port))
        && any(pids, |pid| *pid == event.task.pid)
        && any(uids, |uid| *uid == event.task.uid)
        && any(comms, |comm| Some(comm) == event.task.comm.as_ref())
        && any(netns, |inode| Some(*inode) == event.socket.netns)
        && any(cgroups, |wanted| {
            process
                .cgroup
                .as_deref()
                .is_some_and(|path| is_at_or_below(path, wanted))
        })
        && any(containers, |prefix| {
            process
                .container
                .as_ref()
                .is_some_and(|container| container.id.starts_with(prefix.as_str()))
        })
}

/// Whether the event is one of those that carry `conflict`: something, not necessarily a socket,
/// stood in the way of a local address or port.
#[must_use]
pub fn is_conflict(event: &Event) -> bool {
    match event.outcome {
        Outcome::Failure(errno) => is_conflict_errno(errno),
        Outcome::Success | Outcome::Unknown(_) => false,
    }
}

/// The errno rule of `conflict`. ECONNREFUSED, ETIMEDOUT and the unreachable family are the peer's
/// or the network's doing and are no conflicts.
const fn is_conflict_errno(errno: Errno) -> bool {
    matches!(
        errno.0.cast_signed(),
        libc::EADDRINUSE
            | libc::EACCES
            | libc::EPERM
            | libc::EINVAL
            | libc::EADDRNOTAVAIL
            | libc::EAGAIN
    )
}

fn any<T>(wanted: &[T], matches: impl FnMut(&T) -> bool) -> bool {
    wanted.is_empty() || wanted.iter().any(matches)
}

fn in_ranges(wanted: &[RangeInclusive<u16>], port: Option<u16>) -> bool {
    any(wanted, |range| {
        port.is_some_and(|port| range.contains(&port))
    })
}

/// Whether `path` is the cgroup `wanted` or lies below it. `/` is the root and holds everything.
fn is_at_or_below(path: &str, wanted: &str) -> bool {
    let wanted = wanted.strip_suffix('/').unwrap_or(wanted);
    path.strip_prefix(wanted)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
