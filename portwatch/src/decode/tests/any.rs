//! Whatever a record holds.

use proptest::prelude::*;

use super::*;

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
