//! What an event should tell and does not (`missing` in the contract).

use crate::event::{
    Backend, Culprit, Event, Explanation, Family, Holder, Kind, Op, Outcome, Policy, PortFacts,
    Process, Transport, Via,
};

/// Everything that decides what is missing.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The event.
    pub event: &'a Event,
    /// Its process.
    pub process: &'a Process,
    /// The local port.
    pub local: &'a PortFacts,
    /// Why it was refused.
    pub explanation: Option<&'a Explanation>,
    /// Whether the name of the bound interface is known.
    pub interface: bool,
    /// Arguments are wanted.
    pub args: bool,
    /// The way into the kernel.
    pub backend: Backend,
}

/// EADDRINUSE, of which the kernel side brings the holders.
const EADDRINUSE: u32 = libc::EADDRINUSE.unsigned_abs();

/// The paths that should be there and are not, sorted.
///
/// Not listed because nothing need be there: names that a database or a host may not have (service,
/// user, container, unit), the local end of a connect that failed before it had one, the arguments
/// and the executable of a kernel thread, the descriptor's inode of a socket of the kernel.
#[must_use]
pub fn missing(facts: &Facts<'_>) -> Vec<&'static str> {
    let &Facts {
        event,
        process,
        local,
        explanation,
        interface,
        args,
        backend,
    } = facts;
    if event.op == Op::Release {
        return of_release(facts);
    }
    let success = event.outcome == Outcome::Success;
    let connect = event.op == Op::Connect;
    let has_peer = connect || event.op == Op::Accept && success;
    let kernel = event.via == Some(Via::Kernel);
    let known = event.has_process();
    let ipv6 = event.family == Family::Ipv6;
    let mptcp_capable = event.transport == Transport::Tcp;
    let options = &event.socket.options;
    // IP_BIND_ADDRESS_NO_PORT: the port comes with connect().
    let no_port = event.op == Op::Bind && options.bind_no_port == Some(true);
    let port = if success {
        !no_port
    } else {
        // Nobody asked for a port that the kernel should have chosen.
        !connect && !event.auto_port
    };
    let refused_for_holders = matches!(event.outcome, Outcome::Failure(errno) if errno.0 == EADDRINUSE)
        && matches!(event.op, Op::Bind | Op::Listen)
        && !event.auto_port
        && !matches!(event.transport, Transport::Sctp | Transport::Dccp);
    let known_port = event.local.port.is_some_and(|port| port != 0);
    let peer = event.peer.unwrap_or_default();
    // A path has a last part, so the name is there when the path is.
    let executable = process.executable_path.is_some();

    let mut missing = Vec::new();
    // Nothing is allocated, and no list built, for an event that lacks nothing.
    let mut rule = |path, expected: bool, present: bool| {
        if expected && !present {
            missing.push(path);
        }
    };
    let findings = explanation.map(|explanation| &explanation.findings);
    let exhausted = findings.and_then(|findings| findings.exhausted.as_ref());
    rule(
        "conflict.exhausted.top",
        exhausted.is_some(),
        exhausted.is_some_and(|exhausted| exhausted.top_is_whole),
    );
    rule(
        "conflict.exhausted.used",
        exhausted.is_some(),
        exhausted.is_some_and(|exhausted| exhausted.used.is_some()),
    );
    rule(
        "conflict.holders",
        refused_for_holders,
        event.conflict.is_some(),
    );
    rule(
        "conflict.holders.processes",
        true,
        explanation.is_none_or(owners_are_known),
    );
    rule(
        "conflict.interfaces",
        explanation.is_some_and(|explanation| explanation.verdict.kind == Kind::NotLocal),
        findings.is_some_and(|findings| findings.interfaces.is_some()),
    );
    rule(
        "conflict.policy.programs",
        findings.is_some_and(|findings| findings.policy == Some(Policy::Unread)),
        false,
    );
    rule("event.duration", true, event.duration.is_some());
    rule("event.via", backend != Backend::RawTp, event.via.is_some());
    rule(
        "network.interface.name",
        event.socket.device.is_some(),
        interface,
    );
    rule(
        "network.local.address",
        success || !connect,
        event.local.address.is_some(),
    );
    rule(
        "network.local.ephemeral",
        known_port,
        local.ephemeral.is_some(),
    );
    rule("network.local.port", port, event.local.port.is_some());
    rule("network.peer.address", has_peer, peer.address.is_some());
    rule("network.peer.port", has_peer, peer.port.is_some());
    rule("process", true, known);
    rule("process.comm", known, event.task.comm.is_some());
    rule(
        "process.command_args",
        args && !kernel,
        process.args.is_some(),
    );
    rule("process.creation.time", known, process.creation.is_some());
    rule("process.executable.name", !kernel, executable);
    rule("process.executable.path", !kernel, executable);
    rule("process.linux.cgroup", known, process.cgroup.is_some());
    rule("process.parent_pid", known, event.task.parent_pid.is_some());
    rule("process.vpid", known, event.task.vpid.is_some());
    rule(
        "socket.backlog",
        event.op == Op::Listen,
        event.backlog.is_some(),
    );
    rule("socket.bind_no_port", true, options.bind_no_port.is_some());
    rule("socket.cookie", true, event.socket.cookie.is_some());
    rule("socket.freebind", true, options.freebind.is_some());
    rule("socket.inode", !kernel, event.socket.inode.is_some());
    rule("socket.mptcp", mptcp_capable, options.mptcp.is_some());
    rule("socket.netns", true, event.socket.netns.is_some());
    rule("socket.reuseaddr", true, options.reuseaddr.is_some());
    rule("socket.reuseport", true, options.reuseport.is_some());
    rule("socket.transparent", true, options.transparent.is_some());
    rule("socket.uid", true, event.socket.uid.is_some());
    rule("socket.v6only", ipv6, options.v6only.is_some());
    missing
}

/// The same of a release. What TIME_WAIT has left of a socket has neither options nor an owner; since when a
/// port is held that is older than the trace, nobody knows; who had it last may be gone.
fn of_release(facts: &Facts<'_>) -> Vec<&'static str> {
    let &Facts {
        event,
        process,
        local,
        args,
        ..
    } = facts;
    let known = event.has_process();
    let executable = process.executable_path.is_some();
    let mut missing = Vec::new();
    for (path, present) in [
        ("network.local.address", event.local.address.is_some()),
        ("network.local.ephemeral", local.ephemeral.is_some()),
        ("network.local.port", event.local.port.is_some()),
        ("process", known),
        (
            "process.command_args",
            !known || !args || process.args.is_some(),
        ),
        ("process.comm", !known || event.task.comm.is_some()),
        (
            "process.creation.time",
            !known || process.creation.is_some(),
        ),
        ("process.executable.name", !known || executable),
        ("process.executable.path", !known || executable),
        ("process.linux.cgroup", !known || process.cgroup.is_some()),
        ("release.held", event.held.is_some()),
        ("socket.netns", event.socket.netns.is_some()),
    ] {
        if !present {
            missing.push(path);
        }
    }
    missing.sort_unstable();
    missing
}

/// Whether of each socket in the way that a process must have all are known.
fn owners_are_known(explanation: &Explanation) -> bool {
    let Explanation {
        verdict, owners, ..
    } = explanation;
    verdict.culprits.iter().zip(owners).all(|(culprit, owner)| {
        !has_process(culprit) || !(owner.processes.is_empty() || owner.incomplete)
    })
}

/// A connection that nobody has accepted yet, or that outlives its process, has no file.
fn has_process(culprit: &Culprit) -> bool {
    let Holder {
        socket, references, ..
    } = &culprit.holder;
    match culprit.kind {
        // The last one has closed it at that moment.
        _ if *references == Some(0) => false,
        Kind::Listener | Kind::Bound | Kind::Client | Kind::Unknown => true,
        Kind::Accepted | Kind::Closing => socket.inode.is_some(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::net::Ipv4Addr;

    use super::*;
    use crate::{
        enrich::tests::complete,
        event::{Conflict, Endpoint, Errno, Scope, Sighting},
        sample,
    };

    fn process() -> Process {
        Process {
            executable_path: Some("/usr/bin/a".to_owned()),
            args: Some(vec!["a".to_owned()]),
            creation: Some(jiff::Timestamp::UNIX_EPOCH),
            cgroup: Some("/".to_owned()),
            ..Process::default()
        }
    }

    fn check(event: &Event, process: &Process) -> Vec<&'static str> {
        let local = PortFacts {
            ephemeral: Some(true),
            ..PortFacts::default()
        };
        missing(&Facts {
            event,
            process,
            local: &local,
            explanation: None,
            interface: true,
            args: true,
            backend: Backend::Tracing,
        })
    }

    fn failure(op: Op, errno: i32) -> Event {
        Event {
            op,
            outcome: Outcome::Failure(Errno(errno.unsigned_abs())),
            ..complete(op)
        }
    }

    #[test]
    fn a_complete_event_misses_nothing() {
        for op in Op::ALL {
            assert_eq!(check(&complete(op), &process()), [""; 0], "{op:?}");
        }
    }

    #[test]
    fn an_empty_event_misses_everything_in_order() {
        for op in Op::ALL {
            let event = Event {
                duration: None,
                via: None,
                local: Endpoint::default(),
                peer: None,
                backlog: None,
                socket: crate::event::Socket {
                    device: Some(7),
                    ..Default::default()
                },
                task: Default::default(),
                family: Family::Ipv6,
                outcome: Outcome::Failure(Errno(EADDRINUSE)),
                ..complete(op)
            };
            let missing = missing(&Facts {
                event: &event,
                process: &Process::default(),
                local: &PortFacts::default(),
                explanation: None,
                interface: false,
                args: true,
                backend: Backend::Kprobe,
            });
            assert!(missing.is_sorted(), "{missing:?}");
            let expected = match op {
                Op::Bind => 25,
                Op::Listen => 26,
                Op::Connect => 24,
                Op::Autobind => 24,
                Op::Accept => 24,
                Op::Release => 5,
            };
            assert_eq!(missing.len(), expected, "{op:?} {missing:?}");
        }
    }

    #[test]
    fn who_asked_is_not_expected_of_raw_tracepoints() {
        let event = Event {
            via: None,
            ..complete(Op::Bind)
        };
        let on = |backend| {
            missing(&Facts {
                event: &event,
                process: &process(),
                local: &PortFacts {
                    ephemeral: Some(false),
                    ..PortFacts::default()
                },
                explanation: None,
                interface: false,
                args: true,
                backend,
            })
        };
        assert_eq!(on(Backend::Tracing), ["event.via"]);
        assert_eq!(on(Backend::Kprobe), ["event.via"]);
        assert_eq!(on(Backend::RawTp), [""; 0]);
    }

    #[test]
    fn unwanted_arguments_are_not_missing() {
        let process = Process {
            args: None,
            ..process()
        };
        let event = complete(Op::Bind);
        assert_eq!(check(&event, &process), ["process.command_args"]);
        let local = PortFacts {
            ephemeral: Some(true),
            ..PortFacts::default()
        };
        let without = missing(&Facts {
            event: &event,
            process: &process,
            local: &local,
            explanation: None,
            interface: false,
            args: false,
            backend: Backend::Tracing,
        });
        assert_eq!(without, [""; 0]);
    }

    #[test]
    fn findings_that_could_not_be_made_are_missing() {
        let paths = |sighting: Sighting| {
            let explanation = sighting.explanation.as_deref();
            let local = PortFacts::default();
            let event = complete(Op::Bind);
            missing(&Facts {
                event: &event,
                process: &process(),
                local: &local,
                explanation,
                interface: true,
                args: true,
                backend: Backend::Tracing,
            })
            .into_iter()
            .filter(|path| path.starts_with("conflict."))
            .collect::<Vec<_>>()
        };
        let bind = || sample::sighting(Op::Bind, "10.0.0.1:8080");
        let exhausted = || sample::exhausted(bind(), Scope::Address, libc::EADDRINUSE);
        assert_eq!(
            paths(exhausted()),
            ["conflict.exhausted.top", "conflict.exhausted.used"]
        );
        assert_eq!(paths(sample::used_by(exhausted(), 5, 0, &[])), [""; 0]);
        let not_local = || sample::refused(bind(), Kind::NotLocal, libc::EADDRNOTAVAIL);
        assert_eq!(paths(not_local()), ["conflict.interfaces"]);
        assert_eq!(paths(sample::borne(not_local(), &[], None)), [""; 0]);
        let by = |policy| {
            let refused = sample::refused(bind(), Kind::Policy, libc::EPERM);
            paths(sample::by_policy(refused, policy))
        };
        assert_eq!(by(Policy::Unread), ["conflict.policy.programs"]);
        assert_eq!(by(Policy::Module), [""; 0]);
        assert_eq!(by(Policy::Programs(Vec::new(), true)), [""; 0]);
    }

    #[test]
    fn the_kernel_has_no_executable_and_no_descriptors() {
        let mut event = complete(Op::Bind);
        event.via = Some(Via::Kernel);
        event.socket.inode = None;
        let process = Process {
            executable_path: None,
            args: None,
            ..process()
        };
        assert_eq!(check(&event, &process), [""; 0]);
        event.via = Some(Via::Syscall);
        assert_eq!(
            check(&event, &process),
            [
                "process.command_args",
                "process.executable.name",
                "process.executable.path",
                "socket.inode"
            ]
        );
    }

    #[test]
    fn a_bind_without_port_has_none() {
        let mut event = complete(Op::Bind);
        event.local.port = None;
        assert_eq!(check(&event, &process()), ["network.local.port"]);
        event.socket.options.bind_no_port = Some(true);
        assert_eq!(check(&event, &process()), [""; 0]);
        event.op = Op::Autobind;
        assert_eq!(check(&event, &process()), ["network.local.port"]);
    }

    #[test]
    fn a_failed_connect_may_have_no_local_end_but_was_going_somewhere() {
        let mut event = failure(Op::Connect, libc::ECONNREFUSED);
        event.local = Endpoint::default();
        assert_eq!(check(&event, &process()), [""; 0]);
        event.peer = Some(Endpoint {
            address: Some(Ipv4Addr::LOCALHOST.into()),
            port: None,
        });
        assert_eq!(check(&event, &process()), ["network.peer.port"]);
        event.peer = None;
        assert_eq!(
            check(&event, &process()),
            ["network.peer.address", "network.peer.port"]
        );
    }

    #[test]
    fn no_port_was_asked_for_where_the_kernel_should_have_chosen() {
        let mut event = failure(Op::Autobind, libc::EAGAIN);
        event.local.port = None;
        assert_eq!(check(&event, &process()), ["network.local.port"]);
        event.auto_port = true;
        assert_eq!(check(&event, &process()), [""; 0]);
    }

    #[test]
    fn a_port_in_use_has_holders() {
        let mut event = failure(Op::Bind, libc::EADDRINUSE);
        assert_eq!(check(&event, &process()), ["conflict.holders"]);
        event.conflict = Some(Conflict::default());
        assert_eq!(check(&event, &process()), [""; 0]);
        event.conflict = None;
        event.transport = Transport::Sctp;
        assert_eq!(check(&event, &process()), [""; 0]);
        assert_eq!(check(&failure(Op::Bind, libc::EACCES), &process()), [""; 0]);
        assert_eq!(
            check(&failure(Op::Connect, libc::EADDRINUSE), &process()),
            [""; 0]
        );
    }

    #[test]
    fn a_socket_in_the_way_has_processes_unless_it_has_no_file() {
        for (kind, references, expected) in [
            (Kind::Listener, Some(0), false),
            (Kind::Listener, Some(1), true),
            (Kind::Bound, Some(1), true),
            (Kind::Client, Some(1), true),
            (Kind::Accepted, Some(1), true),
            (Kind::Accepted, None, false),
            (Kind::Closing, Some(1), true),
            (Kind::Closing, None, false),
            (Kind::TimeWait, None, false),
            (Kind::Kernel, Some(1), false),
        ] {
            let holder = sample::held(kind, "127.0.0.1:8080").holder(|holder| {
                holder.references = references;
                holder.socket.inode = references.map(|_| 12345);
            });
            let missing = |holder| {
                let refused = sample::refused_by(
                    sample::sighting(Op::Bind, "127.0.0.1:8080"),
                    vec![sample::nginx(), holder],
                );
                missing(&Facts {
                    event: &refused.event,
                    process: &refused.process,
                    local: &refused.local,
                    explanation: refused.explanation.as_deref(),
                    interface: true,
                    args: true,
                    backend: Backend::Tracing,
                })
            };
            let found = missing(holder.clone());
            let paths = ["conflict.holders.processes"];
            assert_eq!(found, paths[usize::from(!expected)..], "{kind:?}");
            assert_eq!(missing(holder.by(sample::occupant(7, "a"))), [""; 0]);
        }
    }

    #[test]
    fn options_of_the_other_family_and_transport_are_not_expected() {
        let mut event = complete(Op::Bind);
        event.socket.options.v6only = None;
        event.socket.options.mptcp = None;
        event.transport = Transport::Udp;
        assert_eq!(check(&event, &process()), [""; 0]);
        event.family = Family::Ipv6;
        event.transport = Transport::Tcp;
        assert_eq!(check(&event, &process()), ["socket.mptcp", "socket.v6only"]);
    }

    #[test]
    fn the_range_is_expected_of_real_ports_only() {
        let mut event = complete(Op::Bind);
        let without = |event: &Event| {
            missing(&Facts {
                event,
                process: &process(),
                local: &PortFacts::default(),
                explanation: None,
                interface: true,
                args: true,
                backend: Backend::Tracing,
            })
        };
        assert_eq!(without(&event), ["network.local.ephemeral"]);
        event.local.port = Some(0);
        assert_eq!(without(&event), [""; 0]);
    }

    #[test]
    fn a_bound_device_has_a_name() {
        let mut event = complete(Op::Bind);
        event.socket.device = Some(3);
        let facts = Facts {
            event: &event,
            process: &process(),
            local: &PortFacts {
                ephemeral: Some(true),
                ..PortFacts::default()
            },
            explanation: None,
            interface: false,
            args: true,
            backend: Backend::Tracing,
        };
        assert_eq!(missing(&facts).first().unwrap(), &"network.interface.name");
    }
}
