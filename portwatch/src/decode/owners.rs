//! Sockets as they stood in the kernel: the owners of a port, and what descriptors lead to.

use bytes::Buf as _;
use portwatch_ebpf::abi::record::{HolderRecord, MAX_HOLDERS, flags, present};

use super::{
    DecodeError, Record,
    numbers::{address, address_bytes, family, transport},
    process::{RawTask, task, task_of},
    socket::options,
    when,
};
use crate::event::{Closer, Conflict, Endpoint, Holder, Last, Socket, Taker, TcpState, Transport};

pub(super) fn owners(mut bytes: &[u8]) -> Result<Record, DecodeError> {
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
pub(super) struct Bits {
    pub(super) present: u32,
    pub(super) flags: u32,
}

/// A socket as it stood, without who got the port for it.
pub(super) fn found(b: &mut &[u8]) -> Result<(Holder, Bits), DecodeError> {
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
