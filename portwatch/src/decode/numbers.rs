//! The kernel's numbers and ours, and what they mean.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Buf as _;
use portwatch_ebpf::abi::record::{freed, op, via};

use super::DecodeError;
use crate::event::{Family, Freed, Op, Transport, Via};

pub(super) fn address_bytes(b: &mut &[u8]) -> Result<[u8; 16], DecodeError> {
    let mut bytes = [0; 16];
    b.try_copy_to_slice(&mut bytes)?;
    Ok(bytes)
}

pub(super) const AF_UNSPEC: u16 = 0;
pub(super) const AF_INET: u16 = 2;
pub(super) const AF_INET6: u16 = 10;

pub(super) fn address(family: u16, bytes: [u8; 16]) -> Option<IpAddr> {
    match family {
        AF_INET | AF_UNSPEC => {
            let [a, b, c, d, ..] = bytes;
            Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
        }
        AF_INET6 => Some(IpAddr::V6(Ipv6Addr::from(bytes))),
        _ => None,
    }
}

pub(super) fn family(number: u16) -> Result<Family, DecodeError> {
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
pub(super) fn transport(number: u16) -> Result<Transport, DecodeError> {
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

pub(super) fn op_of(number: u8) -> Result<Op, DecodeError> {
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

pub(super) fn freed_of(number: u8) -> Result<Option<Freed>, DecodeError> {
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

pub(super) fn via_of(number: u8) -> Result<Option<Via>, DecodeError> {
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
