//! Bytes of the ring to [`Event`]s: total, trusting no length, never panicking. Knows no aya.

#[cfg(test)]
mod tests;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
};

use bytes::{Buf as _, TryGetError};
use portwatch_ebpf::abi::record::{
    ARGS_LEN, DescriptorRecord, Header, HolderRecord, MAX_HOLDERS, NAME_LEN, OwnersRecord,
    PATH_LEN, ProcessRecord, SocketRecord, VERSION, flags, freed, kind, op, present, unknown, via,
};
use thiserror::Error;

use crate::event::{
    Closer, Conflict, Descriptor, Endpoint, Errno, Event, Family, Freed, Holder, Last, Op, Outcome,
    ProcessImage, Socket, SocketOptions, Taker, Task, TcpState, Transport, UnknownReason, Via,
};

/// A decoded record.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// Something happened to a port.
    Socket {
        /// What.
        event: Box<Event>,
        /// CPU it was written on.
        cpu: u16,
        /// Events lost so far on that CPU.
        lost: u32,
    },
    /// The owners of a port, ahead of the refused call of the same thread.
    Owners {
        /// The thread.
        tid: u32,
        /// What stands in the way.
        conflict: Conflict,
    },
    /// A process, ahead of its first event.
    Image(ProcessImage),
}

/// Why a record was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The programs in the kernel are of another portwatch.
    #[error("record version {found}, this portwatch reads version {VERSION}")]
    Version {
        /// The version found.
        found: u16,
    },
    /// Shorter than it says.
    #[error("record cut short")]
    Short,
    /// Its length is not that of its kind.
    #[error("record of kind {kind} with length {len}")]
    Length {
        /// The kind.
        kind: u16,
        /// The length it claims.
        len: u32,
    },
    /// A kind nobody knows.
    #[error("record of unknown kind {0}")]
    Kind(u16),
    /// A number nobody knows.
    #[error("unknown {what} {number}")]
    Number {
        /// Of what.
        what: &'static str,
        /// The number.
        number: u32,
    },
}

impl From<TryGetError> for DecodeError {
    fn from(_: TryGetError) -> Self {
        Self::Short
    }
}

/// Decodes one record.
///
/// # Errors
/// When it is cut short, of another version, or holds a number that means nothing.
pub fn record(mut bytes: &[u8]) -> Result<Record, DecodeError> {
    let kind = header(&mut bytes, |kind| match kind {
        kind::SOCKET => Some(size_of::<SocketRecord>()),
        kind::OWNERS => Some(size_of::<OwnersRecord>()),
        kind::PROCESS => Some(size_of::<ProcessRecord>()),
        _ => None,
    })?;
    match kind {
        kind::PROCESS => image(bytes).map(Record::Image),
        kind::OWNERS => owners(bytes),
        _ => {
            let (event, cpu, lost) = socket(bytes)?;
            Ok(Record::Socket {
                event: Box::new(event),
                cpu,
                lost,
            })
        }
    }
}

/// Bytes of a record in the file of the iterator over descriptors.
pub const DESCRIPTOR_LEN: usize = size_of::<DescriptorRecord>();

/// Decodes one record of that file.
///
/// # Errors
/// As [`record`].
pub fn descriptor(mut bytes: &[u8]) -> Result<Descriptor, DecodeError> {
    let b = &mut bytes;
    header(b, |kind| {
        (kind == kind::DESCRIPTOR).then_some(DESCRIPTOR_LEN)
    })?;
    let pid = b.try_get_u32_ne()?;
    let fd = b.try_get_u32_ne()?;
    let netns = b.try_get_u32_ne()?;
    let of_thread = b.try_get_u32_ne()?;
    let (mut socket, _) = found(b)?;
    socket.socket.netns = Some(netns);
    Ok(Descriptor {
        pid,
        fd,
        of_thread: of_thread != 0,
        socket,
    })
}

/// Reads a header; returns the kind, if it is one of those that have a length, and all of it is there.
fn header(
    bytes: &mut &[u8],
    length: impl FnOnce(u16) -> Option<usize>,
) -> Result<u16, DecodeError> {
    let all = bytes.len();
    let version = bytes.try_get_u16_ne()?;
    let kind = bytes.try_get_u16_ne()?;
    let len = bytes.try_get_u32_ne()?;
    if version != VERSION {
        return Err(DecodeError::Version { found: version });
    }
    let expected = length(kind).ok_or(DecodeError::Kind(kind))?;
    if len as usize != expected {
        return Err(DecodeError::Length { kind, len });
    }
    if all < expected {
        return Err(DecodeError::Short);
    }
    Ok(kind)
}

/// Decodes a socket record that was read from a map rather than from the ring: its header is only
/// written when it is sent.
///
/// # Errors
/// As [`record`].
pub fn pending(bytes: &[u8]) -> Result<Event, DecodeError> {
    let body = bytes.get(size_of::<Header>()..size_of::<SocketRecord>());
    let (event, _, _) = socket(body.ok_or(DecodeError::Short)?)?;
    Ok(event)
}

/// A value whose bit is set.
fn when<T>(bits: u32, bit: u32, value: T) -> Option<T> {
    (bits & bit != 0).then_some(value)
}

/// A socket record without its header: the event, the CPU, the losses there so far.
fn socket(mut bytes: &[u8]) -> Result<(Event, u16, u32), DecodeError> {
    let b = &mut bytes;
    let time = b.try_get_u64_ne()?;
    let duration = b.try_get_u64_ne()?;
    let cookie = b.try_get_u64_ne()?;
    let inode = b.try_get_u64_ne()?;
    let task = task(b)?;
    let bits = b.try_get_u32_ne()?;
    let flag_bits = b.try_get_u32_ne()?;
    let error = b.try_get_u32_ne()?;
    let netns = b.try_get_u32_ne()?;
    let socket_uid = b.try_get_u32_ne()?;
    let device = b.try_get_u32_ne()?;
    let backlog = b.try_get_u32_ne()?;
    let lost = b.try_get_u32_ne()?;
    let local_address = address_bytes(b)?;
    let peer_address = address_bytes(b)?;
    let local_port = b.try_get_u16_ne()?;
    let peer_port = b.try_get_u16_ne()?;
    let family = family(b.try_get_u16_ne()?)?;
    let address_family = b.try_get_u16_ne()?;
    let transport = transport(b.try_get_u16_ne()?)?;
    let cpu = b.try_get_u16_ne()?;
    let operation = b.try_get_u8()?;
    let asked_via = b.try_get_u8()?;
    let unknown_reason = b.try_get_u8()?;
    let _phase = b.try_get_u8()?;
    let bound_port = b.try_get_u16_ne()?;
    let freed = b.try_get_u8()?;
    let _reserved = b.try_get_u8()?;
    let own_range = b.try_get_u32_ne()?;

    let local = Endpoint {
        address: when(bits, present::LOCAL_ADDRESS, ())
            .and_then(|()| address(address_family, local_address)),
        // 0 asks for any port: `auto_port` says so, and no socket ever has it.
        port: when(bits, present::LOCAL_PORT, local_port).filter(|&port| port != 0),
    };
    let peer = when(bits, present::PEER, ()).map(|()| Endpoint {
        address: address(address_family, peer_address),
        port: Some(peer_port),
    });
    let outcome = match (unknown_reason, error) {
        (0, 0) => Outcome::Success,
        (0, errno) => Outcome::Failure(Errno(errno)),
        (unknown::CLOSED, _) => Outcome::Unknown(UnknownReason::Closed),
        (other, _) => {
            return Err(DecodeError::Number {
                what: "reason",
                number: u32::from(other),
            });
        }
    };
    let op = op_of(operation)?;
    let duration = when(bits, present::DURATION, duration);
    let (duration, held) = match op {
        Op::Release => (None, duration),
        _ => (duration, None),
    };
    let event = Event {
        time_boot: time,
        duration,
        op,
        outcome,
        via: via_of(asked_via)?,
        transport,
        family,
        local,
        peer,
        auto_port: flag_bits & flags::AUTO_PORT != 0,
        backlog: when(bits, present::BACKLOG, backlog),
        socket: Socket {
            cookie: when(bits, present::COOKIE, cookie),
            inode: when(bits, present::INODE, inode),
            netns: when(bits, present::NETNS, netns),
            device: when(bits, present::DEVICE, device).filter(|&index| index != 0),
            uid: when(bits, present::SOCKET_UID, socket_uid),
            options: options(bits, flag_bits, family),
        },
        freed: freed_of(freed)?,
        held,
        task: task_of(&task, bits),
        refused_by_policy: flag_bits & flags::REFUSED_BY_POLICY != 0,
        may_bind_low: match (
            flag_bits & flags::MAY_BIND_LOW != 0,
            flag_bits & flags::MAY_NOT_BIND_LOW != 0,
        ) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        },
        no_port_left: flag_bits & flags::NO_PORT_LEFT != 0,
        bound_port: (bound_port != 0).then_some(bound_port),
        own_range: (own_range != 0).then(|| range_of(own_range)),
        conflict: None,
    };
    Ok((event, cpu, lost))
}

/// The lower end in the lower half (net/ipv4/ip_sockglue.c, `IP_LOCAL_PORT_RANGE`).
fn range_of(word: u32) -> RangeInclusive<u16> {
    let [first, second, third, fourth] = word.to_le_bytes();
    u16::from_le_bytes([first, second])..=u16::from_le_bytes([third, fourth])
}

fn options(bits: u32, flag_bits: u32, family: Family) -> SocketOptions {
    let common = |flag| when(bits, present::SOCKET_FLAGS, flag_bits & flag != 0);
    let inet = |flag| when(bits, present::INET_FLAGS, flag_bits & flag != 0);
    SocketOptions {
        reuseaddr: common(flags::REUSEADDR),
        reuseport: common(flags::REUSEPORT),
        v6only: common(flags::V6ONLY).filter(|_| family == Family::Ipv6),
        freebind: inet(flags::FREEBIND),
        transparent: inet(flags::TRANSPARENT),
        bind_no_port: inet(flags::BIND_NO_PORT),
        mptcp: when(bits, present::SOCKET, flag_bits & flags::MPTCP != 0),
    }
}

#[derive(Clone, Copy)]
struct RawTask {
    start_time: u64,
    key: u64,
    cgroup: u64,
    tgid: u32,
    tid: u32,
    parent: u32,
    vpid: u32,
    uid: u32,
    comm: [u8; 16],
}

fn task(b: &mut &[u8]) -> Result<RawTask, DecodeError> {
    let task = RawTask {
        start_time: b.try_get_u64_ne()?,
        key: b.try_get_u64_ne()?,
        cgroup: b.try_get_u64_ne()?,
        tgid: b.try_get_u32_ne()?,
        tid: b.try_get_u32_ne()?,
        parent: b.try_get_u32_ne()?,
        vpid: b.try_get_u32_ne()?,
        uid: b.try_get_u32_ne()?,
        comm: {
            let _reserved = b.try_get_u32_ne()?;
            address_bytes(b)?
        },
    };
    Ok(task)
}

fn task_of(raw: &RawTask, bits: u32) -> Task {
    Task {
        pid: raw.tgid,
        tid: raw.tid,
        parent_pid: when(bits, present::PARENT, raw.parent),
        vpid: when(bits, present::VPID, raw.vpid),
        uid: raw.uid,
        comm: when(bits, present::COMM, ())
            .map(|()| text(&raw.comm))
            .filter(|name| !name.is_empty()),
        start_boot: when(bits, present::START_TIME, raw.start_time),
        key: when(bits, present::START_TIME, raw.key),
        cgroup: (raw.cgroup != 0).then_some(raw.cgroup),
    }
}

/// Bytes up to the first NUL; what is not UTF-8 is replaced.
fn text(bytes: &[u8]) -> String {
    let len = bytes
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..len]).into_owned()
}

fn owners(mut bytes: &[u8]) -> Result<Record, DecodeError> {
    let b = &mut bytes;
    let tid = b.try_get_u32_ne()?;
    let total = b.try_get_u32_ne()?;
    let count = b.try_get_u32_ne()? as usize;
    let flag_bits = b.try_get_u32_ne()?;
    let last = last(b)?;
    let holders = holders_of(b, count.min(MAX_HOLDERS))?;
    let truncated = flag_bits & flags::TRUNCATED != 0;
    Ok(Record::Owners {
        tid,
        conflict: Conflict {
            holders,
            total,
            truncated,
            rest_apart: flag_bits & flags::REST_APART != 0,
            connect_only: flag_bits & flags::CONNECT_ONLY != 0,
            last,
        },
    })
}

fn last(b: &mut &[u8]) -> Result<Option<Box<Last>>, DecodeError> {
    let closed = b.try_get_u64_ne()?;
    let addresses = b.try_get_u64_ne()?;
    let bits = b.try_get_u32_ne()?;
    b.try_copy_to_slice(&mut [0; 4])?;
    let closer = task(b)?;
    Ok(when(bits, present::CLOSER, ()).map(|()| {
        Box::new(Last {
            closer: Closer {
                task: task_of(&closer, bits),
                time_boot: closed,
            },
            addresses,
        })
    }))
}

fn holders_of(b: &mut &[u8], count: usize) -> Result<Vec<Holder>, DecodeError> {
    let mut holders = Vec::with_capacity(count);
    for index in 0..MAX_HOLDERS {
        let Some((one, rest)) = b.split_at_checked(size_of::<HolderRecord>()) else {
            return Err(DecodeError::Short);
        };
        *b = rest;
        // One that closed while it was read holds nothing.
        if index < count
            && let Ok(holder) = holder(one)
        {
            holders.push(holder);
        }
    }
    Ok(holders)
}

fn holder(mut bytes: &[u8]) -> Result<Holder, DecodeError> {
    let b = &mut bytes;
    let (holder, Bits { present, flags }) = found(b)?;
    let noted = b.try_get_u64_ne()?;
    let who = task(b)?;
    let now = RawTask {
        key: b.try_get_u64_ne()?,
        uid: b.try_get_u32_ne()?,
        parent: b.try_get_u32_ne()?,
        comm: address_bytes(b)?,
        // Of a process it is the main thread that is looked at.
        tid: who.tgid,
        ..who
    };
    Ok(Holder {
        taker: when(present, present::TAKER, ()).map(|()| {
            Box::new(Taker {
                task: task_of(&who, present),
                time_boot: noted,
                has_it: when(flags, flags::HAS_IT | flags::CLOSING, ())
                    .map(|()| task_of(&now, present | present::PARENT)),
            })
        }),
        closer: when(present, present::CLOSER, ()).map(|()| {
            Box::new(Closer {
                task: task_of(&who, present),
                time_boot: noted,
            })
        }),
        ..holder
    })
}

/// What a record says of itself.
struct Bits {
    present: u32,
    flags: u32,
}

/// A socket as it stood, without who got the port for it.
fn found(b: &mut &[u8]) -> Result<(Holder, Bits), DecodeError> {
    let cookie = b.try_get_u64_ne()?;
    let inode = b.try_get_u64_ne()?;
    let bits = b.try_get_u32_ne()?;
    let flag_bits = b.try_get_u32_ne()?;
    let uid = b.try_get_u32_ne()?;
    let device = b.try_get_u32_ne()?;
    let local_address = address_bytes(b)?;
    let peer_address = address_bytes(b)?;
    let local_port = b.try_get_u16_ne()?;
    let peer_port = b.try_get_u16_ne()?;
    let number = b.try_get_u16_ne()?;
    let family = family(number)?;
    let protocol = b.try_get_u16_ne()?;
    let state = b.try_get_u8()?;
    b.try_copy_to_slice(&mut [0; 3])?;
    let references = b.try_get_u32_ne()?;
    let stands = TcpState::from_kernel(state).ok_or(DecodeError::Number {
        what: "state",
        number: u32::from(state),
    })?;
    // Sockets in TIME_WAIT have no protocol field; only TCP has that state.
    let transport = if protocol == 0 {
        Transport::Tcp
    } else {
        transport(protocol)?
    };
    let state = if flag_bits & flags::FIN_WAIT2 != 0 {
        TcpState::FinWait2
    } else {
        stands
    };
    let local = Endpoint {
        address: when(bits, present::LOCAL_ADDRESS, ())
            .and_then(|()| address(number, local_address)),
        port: when(bits, present::LOCAL_PORT, local_port),
    };
    let holder = Holder {
        remnant: stands == TcpState::TimeWait,
        peer: when(bits, present::PEER, ()).map(|()| Endpoint {
            address: address(number, peer_address),
            port: Some(peer_port),
        }),
        socket: Socket {
            cookie: when(bits, present::COOKIE, cookie),
            inode: when(bits, present::INODE, inode),
            netns: None,
            device: when(bits, present::DEVICE, device).filter(|&index| index != 0),
            uid: when(bits, present::SOCKET_UID, uid),
            options: options(bits, flag_bits, family),
        },
        chose_port: flag_bits & flags::CHOSE_PORT != 0,
        accepted: flag_bits & flags::ACCEPTED != 0,
        of_kernel: flag_bits & flags::OF_KERNEL != 0,
        references: when(bits, present::REFERENCES, references),
        caller_has_it: flag_bits & flags::CALLER_HAS_IT != 0,
        ..Holder::new(transport, family, state, local)
    };
    let bits = Bits {
        present: bits,
        flags: flag_bits,
    };
    Ok((holder, bits))
}

fn image(mut bytes: &[u8]) -> Result<ProcessImage, DecodeError> {
    let b = &mut bytes;
    let task = task(b)?;
    let bits = b.try_get_u32_ne()?;
    let flag_bits = b.try_get_u32_ne()?;
    let path_len = b.try_get_u32_ne()? as usize;
    let args_len = b.try_get_u32_ne()? as usize;
    b.try_copy_to_slice(&mut [0; 32])?;
    let (path, args) = b
        .split_at_checked(PATH_LEN + NAME_LEN)
        .ok_or(DecodeError::Short)?;
    let path = path.get(..path_len).ok_or(DecodeError::Short)?;
    let args = args
        .get(..args_len.min(ARGS_LEN))
        .ok_or(DecodeError::Short)?;
    let path_cut = flag_bits & flags::CUT_PATH != 0;
    Ok(ProcessImage {
        key: task.key,
        pid: task.tgid,
        executable_path: when(bits, present::PATH, ()).and_then(|()| join_path(path, path_cut)),
        path_cut,
        args: when(bits, present::ARGS, ()).map(|()| split_args(args)),
        args_cut: flag_bits & flags::CUT_ARGS != 0,
    })
}

/// Components from the file upwards, each ended by NUL. The end of a path that was cut does not
/// begin with `/`: nobody shall take it for the path of another file.
fn join_path(components: &[u8], cut: bool) -> Option<String> {
    let components = components.strip_suffix(&[0])?;
    let mut path = String::with_capacity(components.len() + 1);
    for name in components.rsplit(|&byte| byte == 0) {
        if !(cut && path.is_empty()) {
            path.push('/');
        }
        path.push_str(&String::from_utf8_lossy(name));
    }
    Some(path)
}

fn split_args(args: &[u8]) -> Vec<String> {
    // A program may have overwritten its arguments; what is left then ends in padding.
    let end = args
        .iter()
        .rposition(|&byte| byte != 0)
        .map_or(0, |last| last + 1);
    if end == 0 {
        return Vec::new();
    }
    args[..end]
        .split(|&byte| byte == 0)
        .map(|one| String::from_utf8_lossy(one).into_owned())
        .collect()
}

fn address_bytes(b: &mut &[u8]) -> Result<[u8; 16], DecodeError> {
    let mut bytes = [0; 16];
    b.try_copy_to_slice(&mut bytes)?;
    Ok(bytes)
}

const AF_UNSPEC: u16 = 0;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

fn address(family: u16, bytes: [u8; 16]) -> Option<IpAddr> {
    match family {
        AF_INET | AF_UNSPEC => {
            let [a, b, c, d, ..] = bytes;
            Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
        }
        AF_INET6 => Some(IpAddr::V6(Ipv6Addr::from(bytes))),
        _ => None,
    }
}

fn family(number: u16) -> Result<Family, DecodeError> {
    match number {
        AF_INET => Ok(Family::Ipv4),
        AF_INET6 => Ok(Family::Ipv6),
        _ => Err(DecodeError::Number {
            what: "address family",
            number: u32::from(number),
        }),
    }
}

/// IPPROTO_* (include/uapi/linux/in.h).
fn transport(number: u16) -> Result<Transport, DecodeError> {
    match number {
        6 | 262 => Ok(Transport::Tcp),
        17 => Ok(Transport::Udp),
        33 => Ok(Transport::Dccp),
        132 => Ok(Transport::Sctp),
        136 => Ok(Transport::UdpLite),
        _ => Err(DecodeError::Number {
            what: "protocol",
            number: u32::from(number),
        }),
    }
}

fn op_of(number: u8) -> Result<Op, DecodeError> {
    match number {
        op::BIND => Ok(Op::Bind),
        op::LISTEN => Ok(Op::Listen),
        op::CONNECT => Ok(Op::Connect),
        op::AUTOBIND => Ok(Op::Autobind),
        op::ACCEPT => Ok(Op::Accept),
        op::RELEASE => Ok(Op::Release),
        _ => Err(DecodeError::Number {
            what: "operation",
            number: u32::from(number),
        }),
    }
}

fn freed_of(number: u8) -> Result<Option<Freed>, DecodeError> {
    match number {
        0 => Ok(None),
        freed::CLOSED => Ok(Some(Freed::Closed)),
        freed::TIME_WAIT => Ok(Some(Freed::TimeWait)),
        freed::GIVEN_BACK => Ok(Some(Freed::GivenBack)),
        _ => Err(DecodeError::Number {
            what: "end of a socket",
            number: u32::from(number),
        }),
    }
}

fn via_of(number: u8) -> Result<Option<Via>, DecodeError> {
    match number {
        0 => Ok(None),
        via::SYSCALL => Ok(Some(Via::Syscall)),
        via::IO_URING => Ok(Some(Via::IoUring)),
        via::KERNEL => Ok(Some(Via::Kernel)),
        via::IMPLICIT => Ok(Some(Via::Implicit)),
        _ => Err(DecodeError::Number {
            what: "caller",
            number: u32::from(number),
        }),
    }
}
