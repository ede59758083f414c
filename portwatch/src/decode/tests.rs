#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod any;
mod damaged;
mod owners;
mod process;
mod socket;

use std::net::{IpAddr, Ipv6Addr};

use portwatch_ebpf::abi::record::{
    ARGS_LEN, FoundRecord, HolderRecord, LastRecord, MAX_HOLDERS, NAME_LEN, NowRecord, PATH_LEN,
    SCRATCH, TaskRecord, flags, freed, op, present, unknown, via,
};

use super::{
    numbers::{AF_INET, AF_INET6, AF_UNSPEC},
    record as decode, *,
};
use crate::event::{
    Closer, Endpoint, Errno, Family, Freed, Holder, Last, Op, Outcome, Socket, SocketOptions,
    Taker, Task, TcpState, Transport, UnknownReason, Via,
};

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
