//! Whether the user asked to see an event. Pure; the kernel side has decided most of it already,
//! and what both decide they decide alike.

use std::ops::RangeInclusive;

use crate::{
    event::{Errno, Event, Op, Outcome, Sighting},
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
        brief: _,
    } = selection;
    let Sighting { event, process, .. } = sighting;

    any(events, |op| *op == event.op)
        && any(transports, |transport| *transport == event.transport)
        && any(families, |family| *family == event.family)
        && (!failed || event.outcome.is_failure())
        && (!conflicts || is_conflict(event))
        && in_ranges(ports, event.local.port)
        && in_ranges(peer_ports, event.peer.and_then(|peer| peer.port))
        && any(pids, |pid| event.has_process() && *pid == event.task.pid)
        && any(uids, |uid| event.has_process() && *uid == event.task.uid)
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
        // accept() asks for no address and no port.
        Outcome::Failure(_) if event.op == Op::Accept => false,
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        event::{Container, Family, SocketOptions, Transport, UnknownReason},
        sample::{connect, failed, sighting},
    };

    fn all() -> Selection {
        Selection {
            events: Op::ALL.to_vec(),
            ..Selection::default()
        }
    }

    /// Whether a selection with one thing changed wants the sighting.
    fn with(change: impl FnOnce(&mut Selection), sighting: &Sighting) -> bool {
        let mut selection = all();
        change(&mut selection);
        wants(&selection, sighting)
    }

    fn bind() -> Sighting {
        sighting(Op::Bind, "0.0.0.0:8080")
    }

    #[test]
    fn everything_passes_an_empty_selection() {
        for op in Op::ALL {
            assert!(wants(&all(), &sighting(op, "[::1]:80")));
        }
    }

    #[test]
    fn values_of_a_kind_are_joined_by_or_and_kinds_by_and() {
        let selection = Selection {
            ports: vec![80..=80, 8000..=8100],
            pids: vec![1, 2214],
            ..all()
        };
        assert!(wants(&selection, &bind()));
        assert!(!wants(&selection, &sighting(Op::Bind, "0.0.0.0:81")));
        let mut other = bind();
        other.event.task.pid = 2;
        assert!(!wants(&selection, &other));
    }

    #[test]
    fn ports() {
        for (range, expected) in [
            (8080..=8080, true),
            (8000..=8080, true),
            (8080..=9000, true),
            (1..=8079, false),
            (8081..=65535, false),
        ] {
            assert_eq!(with(|s| s.ports = vec![range], &bind()), expected);
        }
        let mut unknown = bind();
        unknown.event.local.port = None;
        assert!(!with(|s| s.ports = vec![1..=65535], &unknown));
        assert!(with(
            |s| s.ports = vec![8080..=8080],
            &failed(bind(), libc::EADDRINUSE)
        ));
    }

    #[test]
    fn peer_ports() {
        let to_https = connect("127.0.0.1:40000", "10.0.0.9:443");
        assert!(with(|s| s.peer_ports = vec![443..=443], &to_https));
        assert!(!with(|s| s.peer_ports = vec![40000..=40000], &to_https));
        assert!(!with(|s| s.ports = vec![443..=443], &to_https));
        assert!(!with(|s| s.peer_ports = vec![1..=65535], &bind()));
    }

    #[test]
    fn who() {
        assert!(with(|s| s.pids = vec![2214], &bind()));
        assert!(!with(|s| s.pids = vec![2215], &bind()));
        assert!(with(|s| s.uids = vec![0, 1000], &bind()));
        assert!(!with(|s| s.uids = vec![0], &bind()));
        assert!(with(|s| s.comms = vec!["node".into()], &bind()));
        assert!(!with(|s| s.comms = vec!["nod".into()], &bind()));
        let mut nameless = bind();
        nameless.event.task.comm = None;
        assert!(!with(|s| s.comms = vec!["node".into()], &nameless));
    }

    #[test]
    fn where_it_runs() {
        assert!(with(|s| s.netns = vec![4_026_531_840], &bind()));
        assert!(!with(|s| s.netns = vec![1], &bind()));
        for (path, expected) in [
            ("/system.slice/web.service", true),
            ("/system.slice", true),
            ("/system.slice/", true),
            ("/", true),
            ("/system.slice/web", false),
            ("/system.slice/web.service/sub", false),
            ("/user.slice", false),
        ] {
            assert_eq!(
                with(|s| s.cgroups = vec![path.into()], &bind()),
                expected,
                "{path}"
            );
        }

        let mut contained = bind();
        Arc::make_mut(&mut contained.process).container = Some(Container {
            id: "0a1b2c".into(),
            runtime: None,
        });
        assert!(with(|s| s.containers = vec!["0a1".into()], &contained));
        assert!(!with(|s| s.containers = vec!["a1b".into()], &contained));
        assert!(!with(|s| s.containers = vec!["0a1".into()], &bind()));
    }

    #[test]
    fn transport_and_family() {
        let mut mptcp = bind();
        mptcp.event.socket.options = SocketOptions {
            mptcp: Some(true),
            ..SocketOptions::default()
        };
        let tcp = |s: &mut Selection| s.transports = vec![Transport::Tcp];
        let both = |s: &mut Selection| s.transports = vec![Transport::Tcp, Transport::Udp];
        let udp = sighting(Op::Autobind, "0.0.0.0:5353");
        assert!(with(tcp, &bind()) && with(tcp, &mptcp) && !with(tcp, &udp));
        assert!(with(both, &bind()) && with(both, &udp));

        let v6 = |s: &mut Selection| s.families = vec![Family::Ipv6];
        assert!(with(v6, &sighting(Op::Bind, "[::ffff:10.0.0.1]:80")));
        assert!(!with(v6, &bind()));
    }

    #[test]
    fn events() {
        let listen = |s: &mut Selection| s.events = vec![Op::Listen, Op::Connect];
        assert!(with(listen, &sighting(Op::Listen, "0.0.0.0:80")));
        assert!(!with(listen, &bind()));
    }

    #[test]
    fn failures_and_conflicts() {
        let failures = |s: &mut Selection| s.failed = true;
        let conflicts = |s: &mut Selection| s.conflicts = true;
        let mut unknown = connect("127.0.0.1:40000", "10.0.0.9:443");
        unknown.event.outcome = Outcome::Unknown(UnknownReason::Closed);
        for quiet in [bind(), unknown] {
            assert!(!with(failures, &quiet) && !with(conflicts, &quiet));
        }
        for errno in [
            libc::EADDRINUSE,
            libc::EACCES,
            libc::EPERM,
            libc::EINVAL,
            libc::EADDRNOTAVAIL,
            libc::EAGAIN,
        ] {
            let failed = failed(bind(), errno);
            assert!(
                with(failures, &failed) && with(conflicts, &failed),
                "{errno}"
            );
        }
        for errno in [
            libc::ECONNREFUSED,
            libc::ETIMEDOUT,
            libc::ENETUNREACH,
            libc::EHOSTUNREACH,
        ] {
            let failed = failed(bind(), errno);
            assert!(
                with(failures, &failed) && !with(conflicts, &failed),
                "{errno}"
            );
        }
    }
}
