#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use portwatch_ebpf::abi::record::{FoundRecord, LastRecord, NowRecord, SCRATCH, TaskRecord};
use proptest::prelude::*;

use super::{record as decode, *};

/// The bytes of a record, as the kernel programs submit them.
fn bytes<T: Copy>(record: &T) -> Vec<u8> {
    // SAFETY: a `repr(C)` struct of integers whose padding is named: every byte is initialised.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(record).cast(), size_of::<T>()) }
        .to_vec()
}

fn header<T>(kind: u16) -> Header {
    Header {
        version: VERSION,
        kind,
        len: size_of::<T>() as u32,
    }
}

const ADDRESS: [u8; 16] = [127, 0, 0, 1, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];

fn comm(name: &[u8]) -> [u8; 16] {
    let mut comm = [0; 16];
    comm[..name.len()].copy_from_slice(name);
    comm
}

fn task_record() -> TaskRecord {
    TaskRecord {
        start_time: 11,
        process_key: 12,
        cgroup: 13,
        tgid: 14,
        tid: 15,
        parent: 16,
        vpid: 17,
        uid: 18,
        reserved: 0,
        comm: comm(b"server"),
    }
}

/// Every member differs from every other.
fn socket_record() -> SocketRecord {
    SocketRecord {
        header: header::<SocketRecord>(kind::SOCKET),
        time: 1,
        duration: 2,
        cookie: 3,
        inode: 4,
        task: task_record(),
        present: u32::MAX,
        flags: 0,
        error: 0,
        netns: 5,
        socket_uid: 6,
        device: 7,
        backlog: 8,
        lost: 9,
        local_address: ADDRESS,
        peer_address: ADDRESS.map(|byte| byte + 1),
        local_port: 8080,
        peer_port: 443,
        family: AF_INET,
        address_family: AF_INET,
        protocol: 6,
        cpu: 10,
        op: op::CONNECT,
        via: via::SYSCALL,
        unknown: 0,
        phase: 0,
        bound_port: 0,
        freed: 0,
        reserved: 0,
        own_range: 0,
    }
}

fn found_record(port: u16) -> FoundRecord {
    FoundRecord {
        cookie: 21,
        inode: 22,
        present: u32::MAX,
        flags: flags::REUSEADDR | flags::CHOSE_PORT | flags::HAS_IT,
        socket_uid: 23,
        device: 24,
        local_address: ADDRESS,
        peer_address: ADDRESS,
        local_port: port,
        peer_port: 1,
        family: AF_INET6,
        protocol: 6,
        state: 10,
        reserved: [0; 3],
        references: 25,
    }
}

fn holder_record(port: u16) -> HolderRecord {
    HolderRecord {
        found: found_record(port),
        noted: 26,
        task: task_record(),
        now: NowRecord {
            process_key: 27,
            uid: 28,
            parent: 29,
            comm: *b"now\0\0\0\0\0\0\0\0\0\0\0\0\0",
        },
    }
}

fn owners_record(count: u32) -> OwnersRecord {
    let mut holders = [holder_record(0); MAX_HOLDERS];
    for (port, holder) in (100..).zip(&mut holders) {
        holder.found.local_port = port;
    }
    OwnersRecord {
        header: header::<OwnersRecord>(kind::OWNERS),
        tid: 31,
        total: 32,
        count,
        flags: flags::TRUNCATED,
        last: LastRecord {
            closed: 33,
            addresses: 34,
            present: u32::MAX,
            reserved: 0,
            task: task_record(),
        },
        holders,
        scratch: [0; SCRATCH],
    }
}

fn process_record(path: &[u8], args: &[u8]) -> ProcessRecord {
    let mut record = ProcessRecord {
        header: header::<ProcessRecord>(kind::PROCESS),
        task: task_record(),
        present: present::PATH | present::ARGS,
        flags: 0,
        path_len: path.len() as u32,
        args_len: args.len() as u32,
        scratch: [0; 4],
        // What an earlier record left behind.
        path: [b'X'; PATH_LEN + NAME_LEN],
        args: [b'X'; ARGS_LEN],
    };
    record.path[..path.len()].copy_from_slice(path);
    record.args[..args.len()].copy_from_slice(args);
    record
}

fn event(record: &SocketRecord) -> Event {
    match decode(&bytes(record)).unwrap() {
        Record::Socket { event, .. } => *event,
        other => panic!("{other:?}"),
    }
}

fn conflict(record: &OwnersRecord) -> Conflict {
    match decode(&bytes(record)).unwrap() {
        Record::Owners { tid: 31, conflict } => conflict,
        other => panic!("{other:?}"),
    }
}

fn image_of(record: &ProcessRecord) -> ProcessImage {
    match decode(&bytes(record)).unwrap() {
        Record::Image(image) => image,
        other => panic!("{other:?}"),
    }
}

fn refusal(bytes: &[u8]) -> String {
    decode(bytes).unwrap_err().to_string()
}

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
fn another_version_is_refused_with_both_numbers() {
    let mut record = socket_record();
    record.header.version = VERSION + 41;
    assert_eq!(
        refusal(&bytes(&record)),
        format!(
            "record version {}, this portwatch reads version {VERSION}",
            VERSION + 41
        )
    );
}

#[test]
fn lengths_that_lie_are_refused() {
    let good = bytes(&socket_record());
    let told = |len: u32| {
        let mut data = good.clone();
        data[4..8].copy_from_slice(&len.to_ne_bytes());
        data
    };
    for len in [0, 8, 191, 193, u32::MAX] {
        assert_eq!(
            refusal(&told(len)),
            format!("record of kind 1 with length {len}")
        );
    }
    let mut record = socket_record();
    for kind in [0, 4, u16::MAX] {
        record.header.kind = kind;
        let message = format!("record of unknown kind {kind}");
        assert_eq!(refusal(&bytes(&record)), message);
    }
    // The length of one kind under the name of another.
    record.header.kind = kind::PROCESS;
    assert_eq!(refusal(&bytes(&record)), "record of kind 3 with length 192");
}

#[test]
fn cut_anywhere_a_record_is_refused() {
    for data in [
        bytes(&socket_record()),
        bytes(&owners_record(8)),
        bytes(&process_record(b"a\0", b"a\0")),
    ] {
        for len in 0..data.len() {
            assert_eq!(refusal(&data[..len]), "record cut short", "{len}");
        }
        // The ring hands out multiples of eight bytes: more than the record is no harm.
        let longer = [&data[..], &[0xff; 7]].concat();
        assert_eq!(decode(&longer), decode(&data));
    }
}

#[test]
fn every_member_of_a_holder_arrives() {
    let conflict = conflict(&owners_record(1));
    let address = Some(IpAddr::V6(Ipv6Addr::from(ADDRESS)));
    let expected = Holder {
        transport: Transport::Tcp,
        family: Family::Ipv6,
        state: TcpState::Listen,
        local: Endpoint {
            address,
            port: Some(100),
        },
        peer: Some(Endpoint {
            address,
            port: Some(1),
        }),
        socket: Socket {
            cookie: Some(21),
            inode: Some(22),
            netns: None,
            device: Some(24),
            uid: Some(23),
            options: SocketOptions {
                reuseaddr: Some(true),
                reuseport: Some(false),
                v6only: Some(false),
                freebind: Some(false),
                transparent: Some(false),
                bind_no_port: Some(false),
                mptcp: Some(false),
            },
        },
        chose_port: true,
        accepted: false,
        of_kernel: false,
        remnant: false,
        references: Some(25),
        caller_has_it: false,
        taker: Some(Box::new(Taker {
            task: event(&socket_record()).task,
            time_boot: 26,
            has_it: Some(Task {
                tid: event(&socket_record()).task.pid,
                uid: 28,
                key: Some(27),
                parent_pid: Some(29),
                comm: Some("now".to_owned()),
                ..event(&socket_record()).task
            }),
        })),
        // The same words as those of who got the port: a record has only one of both.
        closer: Some(Box::new(Closer {
            task: event(&socket_record()).task,
            time_boot: 26,
        })),
    };
    assert_eq!(conflict.holders, [expected]);
    let last = Last {
        closer: Closer {
            task: event(&socket_record()).task,
            time_boot: 33,
        },
        addresses: 34,
    };
    assert_eq!(conflict.last, Some(Box::new(last)));
    assert_eq!((conflict.total, conflict.truncated), (32, true));
}

#[test]
fn no_more_holders_than_the_record_has() {
    for (count, holders) in [(0, 0), (3, 3), (8, 8), (9, 8), (u32::MAX, 8)] {
        let conflict = conflict(&owners_record(count));
        let ports: Vec<_> = conflict.holders.iter().map(|one| one.local.port).collect();
        let expected: Vec<_> = (100..).map(Some).take(holders).collect();
        assert_eq!(ports, expected, "{count}");
    }
}

#[test]
fn a_holder_that_went_while_it_was_read_is_left_out() {
    let mut record = owners_record(4);
    record.holders[0].found.state = 0;
    record.holders[1].found.family = 0;
    record.holders[2].found.protocol = 99;
    let conflict = conflict(&record);
    assert_eq!(conflict.holders.len(), 1);
    assert_eq!(conflict.holders[0].local.port, Some(103));
}

#[test]
fn a_holder_in_time_wait_has_no_protocol() {
    let mut record = owners_record(1);
    record.holders[0].found.protocol = 0;
    record.holders[0].found.state = 6;
    let conflict = conflict(&record);
    assert_eq!(conflict.holders[0].state, TcpState::TimeWait);
    assert_eq!(conflict.holders[0].transport, Transport::Tcp);
}

fn descriptor_record() -> DescriptorRecord {
    DescriptorRecord {
        header: header::<DescriptorRecord>(kind::DESCRIPTOR),
        pid: 41,
        fd: 42,
        netns: 43,
        of_thread: 0,
        found: found_record(8080),
    }
}

#[test]
fn a_descriptor_says_whose_and_of_which_socket_it_is() {
    let record = descriptor_record();
    let all = bytes(&record);
    assert_eq!(all.len(), DESCRIPTOR_LEN);
    let found = descriptor(&all).unwrap();
    assert_eq!((found.pid, found.fd, found.of_thread), (41, 42, false));
    let socket = &found.socket;
    assert_eq!(socket.local.port, Some(8080));
    assert_eq!(socket.socket.inode, Some(22));
    assert_eq!(socket.socket.netns, Some(43));
    assert_eq!(socket.taker, None, "not told");
    // Otherwise it is what a holder is.
    let mut as_holder = conflict(&owners_record(1)).holders.remove(0);
    as_holder.local.port = Some(8080);
    as_holder.socket.netns = Some(43);
    (as_holder.taker, as_holder.closer) = (None, None);
    assert_eq!(*socket, as_holder);
    let of_thread = DescriptorRecord {
        of_thread: 1,
        ..record
    };
    assert!(descriptor(&bytes(&of_thread)).unwrap().of_thread);
}

#[test]
fn a_descriptor_is_not_in_the_ring_and_nothing_else_is_in_its_file() {
    let all = bytes(&descriptor_record());
    assert_eq!(decode(&all), Err(DecodeError::Kind(kind::DESCRIPTOR)));
    let other = bytes(&process_record(b"", b""));
    assert_eq!(descriptor(&other), Err(DecodeError::Kind(kind::PROCESS)));
    for cut in 0..all.len() {
        assert_eq!(descriptor(&all[..cut]), Err(DecodeError::Short));
    }
    let mut record = descriptor_record();
    record.found.state = 0;
    assert!(descriptor(&bytes(&record)).is_err());
}

#[test]
fn a_path_is_put_together_from_its_end() {
    for (components, cut, path) in [
        (&b"nginx\0sbin\0usr\0"[..], false, Some("/usr/sbin/nginx")),
        (b"init\0", false, Some("/init")),
        (b"c\0b\0", true, Some("b/c")),
        (b"c\0", true, Some("c")),
        (b"", false, None),
        // Not ended: the programs wrote something else than they told.
        (b"nginx", false, None),
        (b"caf\xc3\0\xff\0", false, Some("/\u{fffd}/caf\u{fffd}")),
        (b"a\nb\0\x1b[2J\0", false, Some("/\x1b[2J/a\nb")),
    ] {
        let mut record = process_record(components, b"");
        if cut {
            record.flags = flags::CUT_PATH;
        }
        let image = image_of(&record);
        assert_eq!(image.executable_path.as_deref(), path);
        assert_eq!((image.path_cut, image.args_cut), (cut, false));
        assert_eq!((image.pid, image.key), (14, 12));
    }
}

#[test]
fn arguments_end_with_nul_each() {
    for (args, expected) in [
        (
            &b"nginx\0-g\0daemon off;\0"[..],
            &["nginx", "-g", "daemon off;"][..],
        ),
        (b"one", &["one"]),
        (b"", &[]),
        (b"\0\0\0", &[]),
        (b"a\0\0b\0", &["a", "", "b"]),
        (b"nginx: master process\0\0\0\0", &["nginx: master process"]),
        (b"caf\xc3", &["caf\u{fffd}"]),
    ] {
        let mut record = process_record(b"a\0", args);
        record.flags = flags::CUT_ARGS;
        let image = image_of(&record);
        assert_eq!(image.args.unwrap(), expected);
        assert_eq!((image.path_cut, image.args_cut), (false, true));
    }
}

#[test]
fn a_process_without_path_or_arguments_has_none() {
    let mut record = process_record(b"a\0", b"a\0");
    record.present = 0;
    let image = image_of(&record);
    assert_eq!((image.executable_path, image.args), (None, None));
}

#[test]
fn lengths_inside_a_process_record_may_lie() {
    let mut record = process_record(b"a\0", b"a\0");
    record.path_len = (PATH_LEN + NAME_LEN + 1) as u32;
    assert_eq!(refusal(&bytes(&record)), "record cut short");
    record.path_len = u32::MAX;
    assert_eq!(refusal(&bytes(&record)), "record cut short");
    record.path_len = 2;
    record.args_len = u32::MAX;
    let args = image_of(&record).args.unwrap();
    assert_eq!(args.iter().map(String::len).sum::<usize>(), ARGS_LEN - 1);
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

/// Records that the kernel programs wrote, one of each sort; also the seeds of the fuzz target.
const RECORDED: [(&str, &[u8]); 12] = {
    macro_rules! seed {
        ($name:literal) => {
            (
                $name,
                include_bytes!(concat!("../../../tests/fuzz/seeds/decode/", $name)) as &[u8],
            )
        };
    }
    [
        seed!("process"),
        seed!("bind-tcp4"),
        seed!("listen-tcp4"),
        seed!("bind-tcp6-v6only"),
        seed!("connect-established"),
        seed!("owners-tcp4"),
        seed!("bind-refused-tcp4"),
        seed!("connect-refused"),
        seed!("owners-udp6"),
        seed!("connect-udp"),
        seed!("bind-not-local"),
        seed!("bind-mptcp"),
    ]
};

/// A kernel of little-endian byte order wrote them.
#[cfg(target_endian = "little")]
#[test]
fn recorded_records_mean_what_happened() {
    let mut text = String::new();
    for (name, data) in RECORDED {
        text.push_str(&format!("{name}: {:#?}\n", decode(data).unwrap()));
    }
    insta::assert_snapshot!(text);
}

/// xorshift64*: the same bytes in every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % below
    }
}

/// Where no fuzzer is at hand, this is what stands in for it: recorded records, some bytes of them
/// changed, cut or swapped with those of others, the same ones in every run.
#[test]
fn damaged_records_are_survived() {
    const VALUES: [u8; 8] = [0, 1, 2, 10, 0x7f, 0x80, 0xfe, 0xff];
    let began = Instant::now();
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let (mut decoded, mut refused) = (0u64, 0u64);
    for _ in 0..400_000 {
        // Slow machines do less; the first rounds are the same everywhere.
        if began.elapsed() > Duration::from_secs(5) {
            break;
        }
        let (_, seed) = RECORDED[noise.next(RECORDED.len())];
        let mut data = seed.to_vec();
        for _ in 0..=noise.next(6) {
            let at = noise.next(data.len());
            match noise.next(4) {
                0 => data[at] = VALUES[noise.next(VALUES.len())],
                1 => data[at] ^= 1 << noise.next(8),
                2 => {
                    let (_, other) = RECORDED[noise.next(RECORDED.len())];
                    let len = noise.next(64).min(data.len() - at).min(other.len());
                    let from = noise.next(other.len() - len + 1);
                    data[at..at + len].copy_from_slice(&other[from..from + len]);
                }
                _ => {
                    let len = (at + noise.next(16)).min(data.len());
                    data[at..len].fill(VALUES[noise.next(VALUES.len())]);
                }
            }
        }
        if noise.next(16) == 0 {
            data.truncate(noise.next(data.len()));
        }
        match decode(&data) {
            Ok(Record::Owners { conflict, .. }) => {
                assert!(conflict.holders.len() <= MAX_HOLDERS);
                decoded += 1;
            }
            Ok(Record::Image(image)) => {
                let path = image.executable_path.map_or(0, |path| path.len());
                // A byte that is no UTF-8 becomes three.
                assert!(path <= 3 * (PATH_LEN + NAME_LEN) + 1);
                decoded += 1;
            }
            Ok(Record::Socket { .. }) => decoded += 1,
            Err(_) => refused += 1,
        }
    }
    // Neither all good nor all bad: the damage reaches what lies behind the header.
    assert!(decoded > 1000 && refused > 1000, "{decoded} {refused}");
}

fn any_task() -> impl Strategy<Value = TaskRecord> {
    (any::<[u64; 3]>(), any::<[u32; 5]>(), any::<[u8; 16]>()).prop_map(
        |([start_time, process_key, cgroup], [tgid, tid, parent, vpid, uid], comm)| TaskRecord {
            start_time,
            process_key,
            cgroup,
            tgid,
            tid,
            parent,
            vpid,
            uid,
            reserved: 0,
            comm,
        },
    )
}

fn any_socket() -> impl Strategy<Value = SocketRecord> {
    let numbers = (
        prop::sample::select(vec![AF_INET, AF_INET6]),
        any::<u16>(),
        prop::sample::select(vec![6u16, 17, 33, 132, 136, 262]),
        1u8..=4,
        0u8..=4,
        0u8..=1,
    );
    (
        any_task(),
        any::<[u64; 4]>(),
        any::<[u32; 8]>(),
        any::<[[u8; 16]; 2]>(),
        any::<[u16; 3]>(),
        numbers,
    )
        .prop_map(|(task, longs, words, addresses, shorts, numbers)| {
            let (family, address_family, protocol, op, via, unknown) = numbers;
            SocketRecord {
                task,
                time: longs[0],
                duration: longs[1],
                cookie: longs[2],
                inode: longs[3],
                present: words[0],
                flags: words[1],
                error: words[2],
                netns: words[3],
                socket_uid: words[4],
                device: words[5],
                backlog: words[6],
                lost: words[7],
                local_address: addresses[0],
                peer_address: addresses[1],
                local_port: shorts[0],
                peer_port: shorts[1],
                cpu: shorts[2],
                family,
                address_family,
                protocol,
                op,
                via,
                unknown,
                ..socket_record()
            }
        })
}

proptest! {
    #[test]
    fn any_bytes_are_survived(data in prop::collection::vec(any::<u8>(), 0..2048)) {
        let _ = decode(&data);
        let _ = pending(&data);
    }

    #[test]
    fn any_bytes_behind_a_good_header_are_survived(kind in 1u16..=3, noise in prop::collection::vec(any::<u8>(), 2048)) {
        let header = match kind {
            kind::SOCKET => header::<SocketRecord>(kind),
            kind::OWNERS => header::<OwnersRecord>(kind),
            _ => header::<ProcessRecord>(kind),
        };
        let mut data = bytes(&header);
        data.extend_from_slice(&noise);
        match decode(&data) {
            Ok(Record::Owners { conflict, .. }) => prop_assert!(conflict.holders.len() <= MAX_HOLDERS),
            Ok(_) => {}
            Err(error) => {
                let known = !matches!(error, DecodeError::Version { .. } | DecodeError::Kind(_));
                prop_assert!(known, "{}", error);
            }
        }
    }

    #[test]
    fn whatever_a_record_holds_arrives(record in any_socket()) {
        let Ok(Record::Socket { event, cpu, lost }) = decode(&bytes(&record)) else {
            panic!("refused");
        };
        let has = |bit: u32| record.present & bit != 0;
        prop_assert_eq!((cpu, lost), (record.cpu, record.lost));
        prop_assert_eq!(event.time_boot, record.time);
        prop_assert_eq!(event.duration, has(present::DURATION).then_some(record.duration));
        prop_assert_eq!(event.socket.cookie, has(present::COOKIE).then_some(record.cookie));
        prop_assert_eq!(event.socket.netns, has(present::NETNS).then_some(record.netns));
        let port = has(present::LOCAL_PORT).then_some(record.local_port);
        prop_assert_eq!(event.local.port, port.filter(|&port| port != 0));
        prop_assert_eq!(
            event.peer.and_then(|peer| peer.port),
            has(present::PEER).then_some(record.peer_port)
        );
        prop_assert_eq!(crate::plan::number(event.op), record.op);
        prop_assert_eq!(event.task.pid, record.task.tgid);
        prop_assert_eq!(event.task.key, has(present::START_TIME).then_some(record.task.process_key));
        prop_assert_eq!(event.outcome.is_failure(), record.unknown == 0 && record.error != 0);
        prop_assert_eq!(
            event.socket.options.reuseport,
            has(present::SOCKET_FLAGS).then_some(record.flags & flags::REUSEPORT != 0)
        );
        prop_assert_eq!(event.task.comm.is_some_and(|comm| comm.contains('\0')), false);
    }

    #[test]
    fn paths_and_arguments_come_back(
        path in prop::collection::vec("[^/\0]{1,20}", 1..8),
        args in prop::collection::vec("[^\0]{1,40}", 1..6),
    ) {
        let mut components = Vec::new();
        for name in path.iter().rev() {
            components.extend_from_slice(name.as_bytes());
            components.push(0);
        }
        let mut joined = args.join("\0").into_bytes();
        joined.push(0);
        prop_assume!(components.len() <= PATH_LEN && joined.len() <= ARGS_LEN);
        let image = image_of(&process_record(&components, &joined));
        let whole = format!("/{}", path.join("/"));
        prop_assert_eq!(image.executable_path.as_ref(), Some(&whole));
        prop_assert_eq!(image.args, Some(args));
        let mut record = process_record(&components, &joined);
        record.flags = flags::CUT_PATH;
        let cut = image_of(&record).executable_path;
        prop_assert_eq!(cut.as_deref(), whole.strip_prefix('/'));
    }
}
