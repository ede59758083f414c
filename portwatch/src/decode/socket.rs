//! What happened to a port.

use std::ops::RangeInclusive;

use bytes::Buf as _;
use portwatch_ebpf::abi::record::{flags, present, unknown};

use super::{
    DecodeError,
    numbers::{address, address_bytes, family, freed_of, op_of, transport, via_of},
    process::{task, task_of},
    when,
};
use crate::event::{
    Endpoint, Errno, Event, Family, Op, Outcome, Socket, SocketOptions, UnknownReason,
};

/// A socket record without its header: the event, the CPU, the losses there so far.
pub(super) fn socket(mut bytes: &[u8]) -> Result<(Event, u16, u32), DecodeError> {
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

pub(super) fn options(bits: u32, flag_bits: u32, family: Family) -> SocketOptions {
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
