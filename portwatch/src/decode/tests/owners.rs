//! Sockets as they stood.

use super::*;

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
