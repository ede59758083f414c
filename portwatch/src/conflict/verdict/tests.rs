#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::{
    event::{Endpoint, Family, Overlap, Reason, Socket, SocketOptions, Taker},
    sample::{endpoint, sighting},
};

/// A bind of user 0 without options that failed.
fn failed(op: Op, local: &str, errno: i32) -> Event {
    let mut event = *sighting(op, local).event;
    event.outcome = Outcome::Failure(Errno(errno.unsigned_abs()));
    event.socket = socket();
    event
}

fn socket() -> Socket {
    Socket {
        uid: Some(0),
        options: SocketOptions {
            reuseaddr: Some(false),
            reuseport: Some(false),
            ..SocketOptions::default()
        },
        ..Socket::default()
    }
}

fn holder(local: &str, state: TcpState) -> Holder {
    let local = endpoint(local);
    Holder {
        socket: socket(),
        ..Holder::new(
            Transport::Tcp,
            if local.address.unwrap().is_ipv4() {
                Family::Ipv4
            } else {
                Family::Ipv6
            },
            state,
            local,
        )
    }
}

fn in_the_way(local: &str, holders: Vec<Holder>) -> Verdict {
    let total = holders.len().try_into().unwrap();
    judged(local, holders, total, false)
}

fn judged(local: &str, holders: Vec<Holder>, total: u32, truncated: bool) -> Verdict {
    let mut event = failed(Op::Bind, local, libc::EADDRINUSE);
    event.conflict = Some(Conflict {
        holders,
        total,
        truncated,
        rest_apart: false,
        connect_only: false,
        last: None,
    });
    verdict_of(&event)
}

fn verdict_of(event: &Event) -> Verdict {
    judge(event, Backend::Tracing, || None).unwrap()
}

#[test]
fn what_is_no_failure_or_not_about_a_port_has_no_verdict() {
    let event = *sighting(Op::Bind, "127.0.0.1:80").event;
    assert_eq!(judge(&event, Backend::Tracing, || None), None);
    for errno in [
        libc::ECONNREFUSED,
        libc::ETIMEDOUT,
        libc::ENETUNREACH,
        libc::EFAULT,
    ] {
        let event = failed(Op::Connect, "127.0.0.1:80", errno);
        assert_eq!(judge(&event, Backend::Tracing, || None), None);
    }
}

#[test]
fn the_guilty_are_picked_and_the_first_of_them_leads() {
    use TcpState::{Closed, Established, Listen};
    let mut client = holder("127.0.0.1:8080", Established);
    client.socket.cookie = Some(1);
    client.chose_port = true;
    let mut listeners = [
        holder("127.0.0.1:8080", Listen),
        holder("127.0.0.1:8080", Listen),
    ];
    listeners[0].socket.cookie = Some(9);
    listeners[1].socket.cookie = Some(8);
    let [first, second] = listeners;
    let verdict = in_the_way(
        "0.0.0.0:8080",
        vec![holder("127.0.0.2:8080", Closed), client, first, second],
    );
    let kinds: Vec<_> = verdict.culprits.iter().map(|c| c.kind).collect();
    assert_eq!(
        kinds,
        [Kind::Listener, Kind::Listener, Kind::Bound, Kind::Client]
    );
    assert_eq!(verdict.culprits[0].holder.socket.cookie, Some(8));
    assert_eq!(verdict.kind, Kind::Listener);
    assert_eq!(verdict.overlap, Some(Overlap::Wildcard));
    assert_eq!(verdict.reason, Some(Reason::NoReuse));
    assert_eq!(verdict.device, Some(false));
    let verdict = in_the_way(
        "127.0.0.1:8080",
        vec![
            holder("127.0.0.2:8080", Listen),
            holder("127.0.0.1:8080", Closed),
        ],
    );
    assert_eq!(verdict.culprits.len(), 1);
    assert_eq!(verdict.kind, Kind::Bound);
    assert_eq!(verdict.total, 2);
}

#[test]
fn where_nobody_is_in_the_way_any_more_the_holder_is_gone() {
    assert_eq!(in_the_way("0.0.0.0:8080", Vec::new()).kind, Kind::Gone);
    let innocent = || vec![holder("127.0.0.2:8080", TcpState::Listen)];
    assert_eq!(in_the_way("127.0.0.1:8080", innocent()).kind, Kind::Gone);
    // There are others that nobody looked at.
    let verdict = judged("127.0.0.1:8080", innocent(), 9, false);
    assert_eq!(verdict.kind, Kind::Unknown);
    let verdict = judged("127.0.0.1:8080", innocent(), 1, true);
    assert_eq!(verdict.kind, Kind::Unknown);
    assert_eq!(verdict.device, None);
}

#[test]
fn who_got_the_port_after_the_refusal_is_not_blamed_for_it() {
    let mut late = holder("127.0.0.1:8080", TcpState::Listen);
    let event = failed(Op::Bind, "127.0.0.1:8080", libc::EADDRINUSE);
    let mut taken = |time_boot| {
        late.taker = Some(Box::new(Taker {
            task: event.task.clone(),
            time_boot,
            has_it: None,
        }));
        in_the_way("127.0.0.1:8080", vec![late.clone()]).kind
    };
    assert_eq!(taken(event.time_boot), Kind::Listener);
    assert_eq!(taken(event.time_boot + 1), Kind::Unknown);
}

#[test]
fn owners_that_never_arrived_are_no_guess() {
    let event = failed(Op::Bind, "127.0.0.1:8080", libc::EADDRINUSE);
    assert_eq!(verdict_of(&event).kind, Kind::Unknown);
    let mut blind = event;
    blind.socket.options = SocketOptions::default();
    blind.conflict = Some(Conflict {
        holders: vec![holder("127.0.0.1:8080", TcpState::Listen)],
        total: 1,
        truncated: false,
        rest_apart: false,
        connect_only: false,
        last: None,
    });
    assert_eq!(verdict_of(&blind).kind, Kind::Unknown);
}

#[test]
fn a_listener_without_options_is_in_the_way_by_no_rule() {
    let mut listener = holder("0.0.0.0:8080", TcpState::Listen);
    listener.socket.options = SocketOptions::default();
    let verdict = in_the_way("127.0.0.1:8080", vec![listener.clone()]);
    assert_eq!(verdict.kind, Kind::Listener);
    assert_eq!(verdict.overlap, Some(Overlap::Wildcard));
    assert_eq!(verdict.reason, None);
    let mut event = failed(Op::Bind, "127.0.0.1:8080", libc::EADDRINUSE);
    event.socket.options.reuseport = Some(true);
    event.conflict = Some(Conflict {
        holders: vec![listener],
        total: 9,
        truncated: true,
        rest_apart: false,
        connect_only: false,
        last: None,
    });
    assert_eq!(verdict_of(&event).kind, Kind::Unknown);
}

#[test]
fn a_connection_beside_its_listener_came_in() {
    use TcpState::{Established, Listen};
    let kinds = |listener: Holder, connection: Holder| -> Vec<Kind> {
        let verdict = in_the_way("127.0.0.1:8080", vec![listener, connection]);
        verdict.culprits.iter().map(|it| it.kind).collect()
    };
    let listener = || holder("0.0.0.0:8080", Listen);
    let connection = || holder("127.0.0.1:8080", Established);
    assert_eq!(
        kinds(listener(), connection()),
        [Kind::Listener, Kind::Accepted]
    );
    // With SO_REUSEADDR a client may have had the port before.
    let sharing = |mut holder: Holder| {
        holder.socket.options.reuseaddr = Some(true);
        holder
    };
    assert_eq!(
        kinds(sharing(listener()), sharing(connection())),
        [Kind::Listener, Kind::Unknown]
    );
    // A listener elsewhere says nothing.
    let verdict = in_the_way(
        "127.0.0.1:8080",
        vec![holder("127.0.0.2:8080", Listen), connection()],
    );
    assert_eq!(verdict.kind, Kind::Unknown);
    assert_eq!(verdict.culprits.len(), 1);
}

#[test]
fn a_connection_without_a_file_is_of_two_users() {
    let judged = |own: u32, uid, inode| {
        let mut held = holder("127.0.0.1:8080", TcpState::Established);
        held.accepted = true;
        held.socket.inode = inode;
        held.socket.uid = Some(uid);
        held.socket.options.reuseport = Some(true);
        let mut event = failed(Op::Bind, "127.0.0.1:8080", libc::EADDRINUSE);
        event.socket.uid = Some(own);
        event.socket.options.reuseaddr = Some(false);
        event.socket.options.reuseport = Some(true);
        event.conflict = Some(Conflict {
            holders: vec![held],
            total: 1,
            truncated: false,
            rest_apart: false,
            connect_only: false,
            last: None,
        });
        verdict_of(&event).kind
    };
    assert_eq!(judged(1000, 1001, None), Kind::Accepted);
    // Before Linux 6.17 it is in the way, since then it is not, or the other way round.
    assert_eq!(judged(1000, 1000, None), Kind::Unknown);
    assert_eq!(judged(0, 1000, None), Kind::Unknown);
    assert_eq!(judged(1000, 1000, Some(1)), Kind::Gone);
    assert_eq!(judged(0, 1000, Some(1)), Kind::Accepted);
}

#[test]
fn what_a_socket_is() {
    use TcpState::{Closed, Established, FinWait2, Listen, SynReceived, SynSent, TimeWait};
    for (state, kind) in [
        (Listen, Kind::Listener),
        (Closed, Kind::Bound),
        (Established, Kind::Client),
        (SynSent, Kind::Client),
        (SynReceived, Kind::Accepted),
        (FinWait2, Kind::Closing),
        (TimeWait, Kind::TimeWait),
    ] {
        assert_eq!(kind_of(&holder("127.0.0.1:80", state), true), kind);
    }
    let mut accepted = holder("127.0.0.1:80", Established);
    accepted.accepted = true;
    assert_eq!(kind_of(&accepted, false), Kind::Accepted);
    accepted.accepted = false;
    assert_eq!(kind_of(&accepted, false), Kind::Unknown);
    accepted.chose_port = true;
    assert_eq!(kind_of(&accepted, false), Kind::Client);
    let mut udp = holder("127.0.0.1:80", Established);
    udp.transport = Transport::Udp;
    assert_eq!(kind_of(&udp, false), Kind::Client);
    udp.chose_port = true;
    assert_eq!(kind_of(&udp, false), Kind::Bound);
    udp.of_kernel = true;
    assert_eq!(kind_of(&udp, false), Kind::Kernel);
}

#[test]
fn a_bound_device_that_took_part_is_told() {
    let mut on_lo = holder("0.0.0.0:8080", TcpState::Closed);
    on_lo.socket.device = Some(1);
    let verdict = in_the_way("0.0.0.0:8080", vec![on_lo]);
    assert_eq!(verdict.device, Some(true));
}

#[test]
fn without_another_socket() {
    for (op, errno, kind) in [
        (Op::Bind, libc::EPERM, Kind::Policy),
        (Op::Listen, libc::EACCES, Kind::Policy),
        (Op::Connect, libc::EPERM, Kind::Policy),
        (Op::Connect, libc::EACCES, Kind::Unknown),
        (Op::Bind, libc::EADDRNOTAVAIL, Kind::NotLocal),
        (Op::Connect, libc::EADDRNOTAVAIL, Kind::Unknown),
        (Op::Bind, libc::EINVAL, Kind::Unknown),
        (Op::Autobind, libc::EAGAIN, Kind::Exhausted),
    ] {
        let event = failed(op, "127.0.0.1:8080", errno);
        assert_eq!(verdict_of(&event).kind, kind, "{op:?} {errno}");
    }
    let mut again = failed(Op::Bind, "127.0.0.1:8080", libc::EINVAL);
    again.bound_port = Some(80);
    assert_eq!(verdict_of(&again).kind, Kind::AlreadyBound);
    let mut refused = failed(Op::Connect, "127.0.0.1:8080", libc::EACCES);
    refused.refused_by_policy = true;
    assert_eq!(verdict_of(&refused).kind, Kind::Policy);
}

#[test]
fn one_cause_has_three_errnos() {
    let any = |op, errno| {
        let mut event = failed(op, "127.0.0.1:0", errno);
        event.auto_port = true;
        event.local = Endpoint {
            port: None,
            ..event.local
        };
        event
    };
    assert_eq!(
        verdict_of(&any(Op::Bind, libc::EADDRINUSE)).kind,
        Kind::Exhausted
    );
    assert_eq!(
        verdict_of(&any(Op::Listen, libc::EADDRINUSE)).kind,
        Kind::Exhausted
    );
    let mut connect = any(Op::Connect, libc::EADDRNOTAVAIL);
    assert_eq!(verdict_of(&connect).kind, Kind::Unknown);
    connect.no_port_left = true;
    assert_eq!(verdict_of(&connect).kind, Kind::Exhausted);
    let mut datagram = any(Op::Connect, libc::EAGAIN);
    assert_eq!(verdict_of(&datagram).kind, Kind::Unknown);
    datagram.transport = Transport::Udp;
    assert_eq!(verdict_of(&datagram).kind, Kind::Exhausted);
}

#[test]
fn a_port_that_needs_a_privilege() {
    use Kind::{Policy, Privileged, Unknown};
    for (start, held, by_policy, backend, kind) in [
        (Some(1024), Some(false), false, Backend::RawTp, Privileged),
        (Some(1024), None, false, Backend::Tracing, Privileged),
        (Some(1024), None, false, Backend::RawTp, Unknown),
        (Some(1024), Some(true), false, Backend::RawTp, Policy),
        (Some(80), Some(false), false, Backend::RawTp, Policy),
        (None, Some(false), false, Backend::Tracing, Unknown),
        (None, None, true, Backend::Tracing, Policy),
        (Some(1024), Some(false), true, Backend::Tracing, Policy),
    ] {
        let mut event = failed(Op::Bind, "127.0.0.1:80", libc::EACCES);
        event.refused_by_policy = by_policy;
        event.may_bind_low = held;
        let verdict = judge(&event, backend, || start).unwrap();
        assert_eq!(verdict.kind, kind, "{start:?} {held:?} {backend:?}");
    }
    let mut event = failed(Op::Bind, "127.0.0.1:80", libc::EACCES);
    event.local.port = None;
    assert_eq!(verdict_of(&event).kind, Policy);
}
