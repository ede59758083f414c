//! Sightings of any kind: what no machine shows in a lifetime, but a reader must bear.

use std::net::IpAddr;

use proptest::{option, prelude::*, sample::select};

use super::*;

fn one_of<T: Word + std::fmt::Debug>() -> impl Strategy<Value = T> {
    select(T::WORDS)
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Success),
        Just(Outcome::Unknown(UnknownReason::Closed)),
        Just(Outcome::Unknown(UnknownReason::TraceEnded)),
        any::<u32>().prop_map(|errno| Outcome::Failure(Errno(errno))),
    ]
}

fn end() -> impl Strategy<Value = Endpoint> {
    (any::<Option<IpAddr>>(), any::<Option<u16>>())
        .prop_map(|(address, port)| Endpoint { address, port })
}

/// Facts are told of a port that is known.
fn port_facts(port: Option<u16>) -> impl Strategy<Value = PortFacts> {
    (
        option::of("[a-z\u{7f}\"]{0,5}"),
        option::of(one_of::<PortClass>()),
        any::<Option<bool>>(),
    )
        .prop_map(move |(service, class, ephemeral)| match port {
            None => PortFacts::default(),
            Some(_) => PortFacts {
                service: service.map(Arc::from),
                class,
                ephemeral,
            },
        })
}

fn socket() -> impl Strategy<Value = Socket> {
    (
        any::<Option<u64>>(),
        any::<Option<u64>>(),
        any::<(Option<u32>, Option<u32>)>(),
        any::<[Option<bool>; 7]>(),
    )
        .prop_map(|(cookie, inode, (netns, uid), options)| {
            let [
                reuseaddr,
                reuseport,
                v6only,
                freebind,
                transparent,
                bind_no_port,
                mptcp,
            ] = options;
            Socket {
                cookie,
                inode,
                netns,
                device: None,
                uid,
                options: SocketOptions {
                    reuseaddr,
                    reuseport,
                    v6only,
                    freebind,
                    transparent,
                    bind_no_port,
                    mptcp,
                },
            }
        })
}

fn task() -> impl Strategy<Value = Task> {
    (
        0u32..5,
        0u32..3,
        any::<(Option<u32>, Option<u32>)>(),
        0u32..3,
        any::<Option<String>>(),
    )
        .prop_map(|(pid, thread, (parent_pid, vpid), uid, comm)| Task {
            pid,
            tid: pid + thread,
            parent_pid,
            vpid,
            uid,
            comm,
            ..Task::default()
        })
}

fn any_process() -> impl Strategy<Value = Process> {
    (
        any::<Option<String>>(),
        any::<Option<Vec<String>>>(),
        option::of(-1_000_000_000i64..4_000_000_000),
        option::of("[a-z]{0,3}"),
        any::<(Option<String>, Option<String>)>(),
        option::of((
            "[0-9a-f]{1,8}",
            option::of(select(&["docker", "podman"][..])),
        )),
    )
        .prop_map(
            |(executable_path, args, creation, user, (cgroup, systemd_unit), container)| Process {
                executable_path,
                args,
                creation: creation.map(|second| jiff::Timestamp::from_second(second).unwrap()),
                user_name: user.map(Arc::from),
                cgroup,
                container: container.map(|(id, runtime)| Container { id, runtime }),
                systemd_unit,
            },
        )
}

/// Any event without a conflict; those are made of what a machine can show ([`conflicts`]).
pub(crate) fn any_sighting() -> impl Strategy<Value = Sighting> {
    let what = (
        one_of::<Op>(),
        outcome(),
        option::of(one_of::<Via>()),
        one_of::<Transport>(),
        one_of::<Family>(),
        any::<(bool, bool, Option<u32>, Option<u64>)>(),
    );
    let ends = (end(), option::of(end())).prop_flat_map(|(local, peer)| {
        let port = peer.and_then(|peer| peer.port);
        (
            Just(local),
            Just(peer),
            port_facts(local.port),
            port_facts(port),
        )
    });
    let missing = proptest::collection::vec(
        select(&["event.duration", "socket.cookie", "process.comm"][..]),
        0..3,
    );
    let time = (any::<u64>(), any::<i64>());
    (
        what,
        ends,
        socket(),
        (task(), any_process()),
        option::of("[a-z0-9]{1,4}"),
        missing,
        time,
    )
        .prop_map(
            |(what, ends, socket, (task, process), interface, missing, (boot, nanosecond))| {
                let (op, outcome, via, transport, family, (auto_port, policy, backlog, duration)) =
                    what;
                let (local, peer, local_facts, peer_facts) = ends;
                let is_release = op == Op::Release;
                let utc = jiff::Timestamp::from_nanosecond(nanosecond.into()).unwrap();
                Sighting {
                    event: Box::new(Event {
                        time_boot: boot,
                        duration: duration.filter(|_| !is_release),
                        held: duration.filter(|_| is_release),
                        op,
                        outcome: if is_release {
                            Outcome::Success
                        } else {
                            outcome
                        },
                        via,
                        transport,
                        family,
                        local,
                        peer,
                        auto_port,
                        backlog,
                        socket,
                        task,
                        refused_by_policy: policy,
                        ..*sighting(op, "0.0.0.0:1").event
                    }),
                    time: Time { boot, utc },
                    process: Arc::new(process),
                    local: local_facts,
                    peer: peer_facts,
                    interface,
                    explanation: None,
                    warning: None,
                    missing,
                }
            },
        )
}
