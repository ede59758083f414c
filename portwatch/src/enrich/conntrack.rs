//! Connections as the kernel tracks them (ctnetlink), of the network namespace of the calling thread.

use std::{io, net::IpAddr, time::Instant};

use netlink_packet_core::{
    DefaultNla, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, Nla as _,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    conntrack::{
        ConntrackAttribute, ConntrackMessage, IPTuple, ProtoInfo, ProtoInfoTCP, ProtoTuple,
        Protocol, Status, Tuple,
    },
};
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::netlink;
use crate::event::Transport;

/// The ends of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Who sends.
    pub source: (IpAddr, u16),
    /// To whom.
    pub destination: (IpAddr, u16),
}

/// A connection whose source was translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// CTA_ID: tells it from an earlier one with the same ends.
    pub id: u32,
    /// Conntrack zone; ends are unique within one.
    pub zone: u16,
    /// TCP, UDP or UDP-Lite.
    pub transport: Transport,
    /// As the client sent.
    pub original: Ends,
    /// As the destination answers: to the external address.
    pub reply: Ends,
    /// State of TCP (include/uapi/linux/netfilter/nf_conntrack_tcp.h, `enum tcp_conntrack`).
    pub tcp_state: Option<u8>,
}

impl Connection {
    /// Whether it has closed and is kept for a while still.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        const TIME_WAIT: u8 = 7; // TCP_CONNTRACK_TIME_WAIT
        self.tcp_state == Some(TIME_WAIT)
    }
}

// include/uapi/linux/netfilter/nfnetlink_conntrack.h
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_STATUS_MASK: u16 = 26;
const CTA_STATS_INSERT_FAILED: u16 = 9;
const IPCTNL_MSG_CT_GET_STATS_CPU: u8 = 4;

/// Lists the connections whose source was translated, up to `deadline`; whether these are all. Kernels that know
/// CTA_STATUS_MASK send no others; those before send all, which are passed over here.
///
/// # Errors
/// When the kernel does not permit it, does not track, or does not answer.
pub fn translated(deadline: Instant, mut visit: impl FnMut(Connection)) -> io::Result<bool> {
    dump(of_translated(), deadline, |message| {
        if let ConntrackMessage::New(attributes) = message
            && let Some(connection) = connection(&attributes)
        {
            visit(connection);
        }
    })
}

/// Asks for those whose status has the bit for a translated source.
fn of_translated() -> ConntrackMessage {
    let wanted = Status::SrcNat;
    let mask = wanted.bits().to_be_bytes().to_vec();
    ConntrackMessage::Get(vec![
        ConntrackAttribute::CtaStatus(wanted),
        ConntrackAttribute::Other(DefaultNla::new(CTA_STATUS_MASK, mask)),
    ])
}

/// How many connections could not be entered since this namespace was made: no port was left, or the same one came
/// twice at a time.
///
/// # Errors
/// When the kernel does not permit it, does not track, or does not answer.
pub fn failed(deadline: Instant) -> io::Result<u64> {
    let request = ConntrackMessage::Other {
        message_type: IPCTNL_MSG_CT_GET_STATS_CPU,
        attributes: Vec::new(),
    };
    let mut sum = 0;
    // A message for each CPU.
    let is_whole = dump(request, deadline, |message| {
        if let ConntrackMessage::Other { attributes, .. } = message {
            let count = attributes
                .iter()
                .filter(|nla| nla.kind() == CTA_STATS_INSERT_FAILED)
                .find_map(number);
            sum += u64::from(count.unwrap_or_default());
        }
    })?;
    if is_whole {
        Ok(sum)
    } else {
        Err(io::ErrorKind::TimedOut.into())
    }
}

fn dump(
    request: ConntrackMessage,
    deadline: Instant,
    mut visit: impl FnMut(ConntrackMessage),
) -> io::Result<bool> {
    let socket = netlink::open(NETLINK_NETFILTER)?;
    socket.send(&message(request), 0)?;
    let mut answer = Vec::with_capacity(netlink::ROOM);
    loop {
        answer.clear();
        socket.recv(&mut answer, 0)?;
        if !take(&answer, &mut visit)? {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
    }
}

fn message(request: ConntrackMessage) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    // Of both families.
    let netfilter = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, 0);
    let mut message = NetlinkMessage::new(header, NetfilterMessage::new(netfilter, request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn take(bytes: &[u8], visit: &mut impl FnMut(ConntrackMessage)) -> io::Result<bool> {
    netlink::take(bytes, |message: NetfilterMessage, _| {
        if let NetfilterMessageInner::Conntrack(message) = message.inner {
            visit(message);
        }
    })
}

/// An attribute of the library's that it does not know: a number of four bytes, the highest first.
fn number(nla: &DefaultNla) -> Option<u32> {
    let mut value = [0; 4];
    (nla.value_len() == value.len()).then(|| {
        nla.emit_value(&mut value);
        u32::from_be_bytes(value)
    })
}

/// `None` where its source was not translated, or what is needed is not there.
fn connection(attributes: &[ConntrackAttribute]) -> Option<Connection> {
    let (mut original, mut reply) = (None, None);
    let (mut id, mut zone, mut tcp_state) = (0, 0, None);
    let mut is_translated = false;
    for attribute in attributes {
        match attribute {
            ConntrackAttribute::CtaTupleOrig(parts) => original = ends(parts),
            ConntrackAttribute::CtaTupleReply(parts) => reply = ends(parts),
            ConntrackAttribute::CtaStatus(status) => {
                is_translated = status.contains(Status::SrcNat);
            }
            ConntrackAttribute::CtaProtoInfo(parts) => tcp_state = state(parts),
            ConntrackAttribute::Other(nla) if nla.kind() == CTA_ID => id = number(nla)?,
            ConntrackAttribute::Other(nla) if nla.kind() == CTA_ZONE => {
                let mut value = [0; 2];
                if nla.value_len() == value.len() {
                    nla.emit_value(&mut value);
                    zone = u16::from_be_bytes(value);
                }
            }
            _ => {}
        }
    }
    let ((transport, original), (_, reply)) = original.zip(reply)?;
    is_translated.then_some(Connection {
        id,
        zone,
        transport,
        original,
        reply,
        tcp_state,
    })
}

fn state(parts: &[ProtoInfo]) -> Option<u8> {
    let mut tcp = parts.iter().filter_map(|part| match part {
        ProtoInfo::TCP(parts) => Some(parts),
        _ => None,
    });
    tcp.next()?.iter().find_map(|part| match part {
        ProtoInfoTCP::State(state) => Some(*state),
        _ => None,
    })
}

/// `None` of transports without ports.
fn ends(parts: &[Tuple]) -> Option<(Transport, Ends)> {
    let (mut source, mut destination) = (None, None);
    let (mut transport, mut from, mut to) = (None, None, None);
    for part in parts {
        match part {
            Tuple::Ip(parts) => {
                for part in parts {
                    match part {
                        IPTuple::SourceAddress(address) => source = Some(*address),
                        IPTuple::DestinationAddress(address) => destination = Some(*address),
                        _ => {}
                    }
                }
            }
            Tuple::Proto(parts) => {
                for part in parts {
                    match part {
                        ProtoTuple::Protocol(Protocol::Tcp) => transport = Some(Transport::Tcp),
                        ProtoTuple::Protocol(Protocol::Udp) => transport = Some(Transport::Udp),
                        ProtoTuple::Protocol(Protocol::UdpLite) => {
                            transport = Some(Transport::UdpLite);
                        }
                        ProtoTuple::SourcePort(port) => from = Some(*port),
                        ProtoTuple::DestinationPort(port) => to = Some(*port),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let ends = Ends {
        source: (source?, from?),
        destination: (destination?, to?),
    };
    Some((transport?, ends))
}

#[cfg(test)]
mod tests;
