//! What happened to a port.

use super::*;

#[test]
fn every_member_of_a_socket_record_arrives() {
    let record = decode(&bytes(&socket_record())).unwrap();
    let local: IpAddr = "127.0.0.1".parse().unwrap();
    let peer: IpAddr = "128.1.1.2".parse().unwrap();
    let expected = Event {
        time_boot: 1,
        duration: Some(2),
        op: Op::Connect,
        outcome: Outcome::Success,
        via: Some(Via::Syscall),
        transport: Transport::Tcp,
        family: Family::Ipv4,
        local: Endpoint {
            address: Some(local),
            port: Some(8080),
        },
        peer: Some(Endpoint {
            address: Some(peer),
            port: Some(443),
        }),
        auto_port: false,
        backlog: Some(8),
        socket: Socket {
            cookie: Some(3),
            inode: Some(4),
            netns: Some(5),
            device: Some(7),
            uid: Some(6),
            options: SocketOptions {
                reuseaddr: Some(false),
                reuseport: Some(false),
                v6only: None,
                freebind: Some(false),
                transparent: Some(false),
                bind_no_port: Some(false),
                mptcp: Some(false),
            },
        },
        task: Task {
            pid: 14,
            tid: 15,
            parent_pid: Some(16),
            vpid: Some(17),
            uid: 18,
            comm: Some("server".to_owned()),
            start_boot: Some(11),
            key: Some(12),
            cgroup: Some(13),
        },
        refused_by_policy: false,
        may_bind_low: None,
        no_port_left: false,
        bound_port: None,
        own_range: None,
        freed: None,
        held: None,
        conflict: None,
    };
    assert_eq!(
        record,
        Record::Socket {
            event: Box::new(expected),
            cpu: 10,
            lost: 9
        }
    );
}

#[test]
fn what_is_not_present_is_absent() {
    let mut record = socket_record();
    record.present = 0;
    record.flags = u32::MAX;
    record.task.cgroup = 0;
    let event = event(&record);
    assert_eq!(event.local, Endpoint::default());
    assert_eq!(
        (event.peer, event.duration, event.backlog),
        (None, None, None)
    );
    assert_eq!(event.socket, Socket::default());
    let expected = Task {
        pid: 14,
        tid: 15,
        uid: 18,
        ..Task::default()
    };
    assert_eq!(event.task, expected);
}

/// Looks at one thing of an event.
type Look<T> = fn(&Event) -> T;
/// Changes one thing of a record.
type Change = fn(&mut SocketRecord);

#[test]
fn each_bit_of_present_brings_its_own_member() {
    let bits: [(u32, Look<bool>); 16] = [
        (present::LOCAL_ADDRESS, |e| e.local.address.is_some()),
        (present::LOCAL_PORT, |e| e.local.port.is_some()),
        (present::PEER, |e| e.peer.is_some()),
        (present::DURATION, |e| e.duration.is_some()),
        (present::COOKIE, |e| e.socket.cookie.is_some()),
        (present::INODE, |e| e.socket.inode.is_some()),
        (present::NETNS, |e| e.socket.netns.is_some()),
        (present::SOCKET_UID, |e| e.socket.uid.is_some()),
        (present::INET_FLAGS, |e| e.socket.options.freebind.is_some()),
        (present::BACKLOG, |e| e.backlog.is_some()),
        (present::PARENT, |e| e.task.parent_pid.is_some()),
        (present::VPID, |e| e.task.vpid.is_some()),
        (present::START_TIME, |e| {
            e.task.start_boot.is_some() && e.task.key.is_some()
        }),
        (present::COMM, |e| e.task.comm.is_some()),
        (present::DEVICE, |e| e.socket.device.is_some()),
        (present::SOCKET_FLAGS, |e| {
            e.socket.options.reuseaddr.is_some() && e.socket.options.reuseport.is_some()
        }),
    ];
    for (bit, _) in bits {
        let mut record = socket_record();
        record.present = bit;
        let event = event(&record);
        for (other, is_there) in bits {
            assert_eq!(is_there(&event), bit == other, "{bit:#x} {other:#x}");
        }
    }
}

#[test]
fn each_flag_is_its_own_option() {
    let options: [(u32, Look<Option<bool>>); 9] = [
        (flags::REUSEADDR, |e| e.socket.options.reuseaddr),
        (flags::REUSEPORT, |e| e.socket.options.reuseport),
        (flags::V6ONLY, |e| e.socket.options.v6only),
        (flags::FREEBIND, |e| e.socket.options.freebind),
        (flags::TRANSPARENT, |e| e.socket.options.transparent),
        (flags::BIND_NO_PORT, |e| e.socket.options.bind_no_port),
        (flags::MPTCP, |e| e.socket.options.mptcp),
        (flags::AUTO_PORT, |e| Some(e.auto_port)),
        (flags::REFUSED_BY_POLICY, |e| Some(e.refused_by_policy)),
    ];
    for (flag, _) in options {
        let mut record = socket_record();
        record.family = AF_INET6;
        record.flags = flag;
        let event = event(&record);
        for (other, value) in options {
            assert_eq!(value(&event), Some(flag == other), "{flag:#x} {other:#x}");
        }
    }
}

#[test]
fn v6only_is_nothing_that_an_ipv4_socket_has() {
    let mut record = socket_record();
    record.flags = flags::V6ONLY;
    assert_eq!(event(&record).socket.options.v6only, None);
}

#[test]
fn outcomes() {
    for (unknown, error, outcome) in [
        (0, 0, Outcome::Success),
        (0, 98, Outcome::Failure(Errno(98))),
        (unknown::CLOSED, 0, Outcome::Unknown(UnknownReason::Closed)),
        (unknown::CLOSED, 98, Outcome::Unknown(UnknownReason::Closed)),
    ] {
        let mut record = socket_record();
        record.unknown = unknown;
        record.error = error;
        assert_eq!(event(&record).outcome, outcome);
    }
}

#[test]
fn a_release_tells_how_long_the_port_was_held_and_how_it_was_given_back() {
    for (number, freed) in [
        (freed::CLOSED, Freed::Closed),
        (freed::TIME_WAIT, Freed::TimeWait),
        (freed::GIVEN_BACK, Freed::GivenBack),
    ] {
        let mut record = socket_record();
        record.op = op::RELEASE;
        record.freed = number;
        record.duration = 7;
        record.present |= present::DURATION;
        record.task.tgid = 0;
        let event = event(&record);
        assert_eq!((event.duration, event.held), (None, Some(7)));
        assert_eq!(event.freed, Some(freed));
        assert!(!event.has_process());
    }
}

#[test]
fn numbers_that_mean_something() {
    for (number, op) in [
        (op::BIND, Op::Bind),
        (op::LISTEN, Op::Listen),
        (op::CONNECT, Op::Connect),
        (op::AUTOBIND, Op::Autobind),
        (op::ACCEPT, Op::Accept),
        (op::RELEASE, Op::Release),
    ] {
        let mut record = socket_record();
        record.op = number;
        assert_eq!(event(&record).op, op);
    }
    for (number, via) in [
        (0, None),
        (via::SYSCALL, Some(Via::Syscall)),
        (via::IO_URING, Some(Via::IoUring)),
        (via::KERNEL, Some(Via::Kernel)),
        (via::IMPLICIT, Some(Via::Implicit)),
    ] {
        let mut record = socket_record();
        record.via = number;
        assert_eq!(event(&record).via, via);
    }
    for (number, transport) in [
        (6, Transport::Tcp),
        (262, Transport::Tcp),
        (17, Transport::Udp),
        (33, Transport::Dccp),
        (132, Transport::Sctp),
        (136, Transport::UdpLite),
    ] {
        let mut record = socket_record();
        record.protocol = number;
        assert_eq!(event(&record).transport, transport);
    }
}

#[test]
fn numbers_that_mean_nothing_are_named() {
    let changes: [(Change, &str); 6] = [
        (|record| record.op = 7, "unknown operation 7"),
        (|record| record.freed = 4, "unknown end of a socket 4"),
        (|record| record.via = 200, "unknown caller 200"),
        (|record| record.protocol = 1, "unknown protocol 1"),
        (|record| record.family = 1, "unknown address family 1"),
        (|record| record.unknown = 9, "unknown reason 9"),
    ];
    for (change, message) in changes {
        let mut record = socket_record();
        change(&mut record);
        assert_eq!(refusal(&bytes(&record)), message);
    }
}

#[test]
fn addresses_have_the_family_the_caller_gave_them() {
    let v6 = IpAddr::V6(Ipv6Addr::from(ADDRESS));
    let v4: IpAddr = "127.0.0.1".parse().unwrap();
    for (family, address) in [
        (AF_INET, Some(v4)),
        (AF_INET6, Some(v6)),
        // bind() takes AF_UNSPEC for AF_INET (net/ipv4/af_inet.c, `__inet_bind`).
        (AF_UNSPEC, Some(v4)),
        (1, None),
        (u16::MAX, None),
    ] {
        let mut record = socket_record();
        record.family = AF_INET6;
        record.address_family = family;
        let event = event(&record);
        assert_eq!(event.local.address, address, "{family}");
        // What was asked for is still worth telling.
        assert_eq!(event.local.port, Some(8080));
        assert_eq!(event.family, Family::Ipv6);
    }
}

#[test]
fn the_range_of_a_socket_has_its_upper_end_in_the_upper_half() {
    let mut record = socket_record();
    assert_eq!(event(&record).own_range, None);
    record.own_range = 40_000 | 41_000 << 16;
    assert_eq!(event(&record).own_range, Some(40_000..=41_000));
}

#[test]
fn a_socket_without_a_device_names_none() {
    let mut record = socket_record();
    record.device = 0;
    assert_eq!(event(&record).socket.device, None);
}

#[test]
fn names_end_at_the_first_nul_or_not_at_all() {
    for (name, text) in [
        (*b"sixteen bytes!!!", "sixteen bytes!!!"),
        (comm(b""), ""),
        (comm(b"a\0rest"), "a"),
        (comm(b"\x1b[31m\n"), "\x1b[31m\n"),
        (comm(b"caf\xc3"), "caf\u{fffd}"),
        (comm(b"\xff\xfe"), "\u{fffd}\u{fffd}"),
    ] {
        let mut record = socket_record();
        record.task.comm = name;
        let expected = Some(text).filter(|text| !text.is_empty());
        assert_eq!(event(&record).task.comm.as_deref(), expected);
    }
}

#[test]
fn a_bind_to_port_0_that_found_none_has_no_port() {
    let mut record = socket_record();
    record.local_port = 0;
    record.flags = flags::AUTO_PORT;
    let event = event(&record);
    assert_eq!(event.local.port, None);
    assert!(event.auto_port);
}

#[test]
fn an_attempt_that_is_open_at_the_end_needs_no_header() {
    let record = socket_record();
    let mut open = bytes(&record);
    open[..size_of::<Header>()].fill(0xff);
    assert!(decode(&open).is_err());
    assert_eq!(pending(&open).unwrap(), event(&record));
    for len in 0..open.len() {
        assert_eq!(pending(&open[..len]), Err(DecodeError::Short));
    }
}
