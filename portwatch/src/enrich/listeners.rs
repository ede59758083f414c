//! The listeners of a port, asked of sock_diag(7): where the walk over the owners of a port was cut
//! short, the listener is what it missed. Connections join the list in front of it, and where the
//! verifier allows few rounds they are all that is seen.

use std::{io, time::Duration};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP},
    inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags, nlas::Nla},
};
use netlink_sys::{SocketAddr, protocols::NETLINK_SOCK_DIAG};
use portwatch_ebpf::abi::record::MAX_HOLDERS;

use crate::event::{
    Conflict, Endpoint, Family, Holder, Socket, SocketOptions, TcpState, Transport,
};

/// What one read takes: the kernel fills 32 KiB at most (net/netlink/af_netlink.c).
const ROOM: usize = 32 << 10;

/// The kernel answers while it is asked; this is for one that does not.
const PATIENCE: Duration = Duration::from_secs(1);

/// The TCP sockets listening on a port in the network namespace of the calling thread, IPv4 first;
/// as many as a conflict shows.
///
/// # Errors
/// When sock_diag is not there or does not answer.
pub fn of_port(port: u16) -> io::Result<Vec<Holder>> {
    let mut found = Vec::new();
    for family in [Family::Ipv4, Family::Ipv6] {
        ask(family, port, &mut found)?;
    }
    Ok(found)
}

/// Puts listeners that the kernel's walk did not get to in front of those it did.
pub fn add(conflict: &mut Conflict, mut listeners: Vec<Holder>) {
    let count = u32::try_from(listeners.len()).unwrap_or(u32::MAX);
    conflict.total = conflict.total.saturating_add(count);
    listeners.append(&mut conflict.holders);
    listeners.truncate(MAX_HOLDERS);
    conflict.holders = listeners;
}

/// Whether the walk over the owners may have missed a listener.
#[must_use]
pub fn are_wanted(conflict: &Conflict) -> bool {
    let is_listener = |holder: &Holder| holder.state == TcpState::Listen;
    conflict.truncated
        && !conflict.holders.iter().any(is_listener)
        && conflict
            .holders
            .iter()
            .all(|holder| holder.transport == Transport::Tcp)
}

fn ask(family: Family, port: u16, found: &mut Vec<Holder>) -> io::Result<()> {
    let (number, id) = match family {
        Family::Ipv4 => (AF_INET, SocketId::new_v4()),
        Family::Ipv6 => (AF_INET6, SocketId::new_v6()),
    };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let request = InetRequest {
        family: number,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::LISTEN,
        // Of sockets that listen, a dump lists those of this port (net/ipv4/inet_diag.c).
        socket_id: SocketId {
            source_port: port,
            ..id
        },
    };
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);

    let mut socket = netlink_sys::Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    nix::sys::socket::setsockopt(
        &socket,
        nix::sys::socket::sockopt::ReceiveTimeout,
        &nix::sys::time::TimeVal::new(PATIENCE.as_secs().cast_signed(), 0),
    )?;
    socket.send(&bytes, 0)?;
    let mut answer = Vec::with_capacity(ROOM);
    loop {
        answer.clear();
        socket.recv(&mut answer, 0)?;
        if !take(&answer, port, found)? {
            return Ok(());
        }
    }
}

/// Takes the messages of one read; whether there is more to come.
fn take(mut bytes: &[u8], port: u16, found: &mut Vec<Holder>) -> io::Result<bool> {
    while !bytes.is_empty() {
        let message = NetlinkMessage::<SockDiagMessage>::deserialize(bytes)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        match message.payload {
            NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                found.extend(holder(&response, port).filter(|_| found.len() < MAX_HOLDERS));
            }
            NetlinkPayload::Error(error) => return Err(error.to_io()),
            NetlinkPayload::Done(_) => return Ok(false),
            _ => {}
        }
        // Messages begin at multiples of four bytes (include/uapi/linux/netlink.h, NLMSG_ALIGN).
        let len = (message.header.length as usize).next_multiple_of(4);
        bytes = bytes.get(len.max(4)..).unwrap_or_default();
    }
    Ok(true)
}

fn holder(response: &InetResponse, port: u16) -> Option<Holder> {
    let InetResponse { header, nlas } = response;
    let id = &header.socket_id;
    let state = TcpState::from_kernel(header.state)?;
    // Kernels may show more than they were asked for.
    if state != TcpState::Listen || id.source_port != port {
        return None;
    }
    let family = match header.family {
        AF_INET => Family::Ipv4,
        AF_INET6 => Family::Ipv6,
        _ => return None,
    };
    let v6only = nlas.iter().find_map(|nla| match nla {
        Nla::SkV6Only(only) => Some(*only),
        _ => None,
    });
    Some(Holder {
        transport: Transport::Tcp,
        family,
        state,
        local: Endpoint {
            address: Some(id.source_address),
            port: Some(port),
        },
        peer: None,
        socket: Socket {
            cookie: Some(u64::from_ne_bytes(id.cookie)).filter(|&cookie| cookie != 0),
            inode: Some(u64::from(header.inode)).filter(|&inode| inode != 0),
            netns: None,
            device: Some(id.interface_id).filter(|&index| index != 0),
            uid: Some(header.uid),
            options: SocketOptions {
                v6only: v6only.filter(|_| family == Family::Ipv6),
                ..SocketOptions::default()
            },
        },
        chose_port: false,
        accepted: false,
        of_kernel: false,
        references: None,
        taker: None,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::{
        net::{TcpListener, TcpStream},
        os::{fd::AsRawFd, unix::fs::MetadataExt},
    };

    use super::*;

    fn client(port: u16) -> Holder {
        Holder {
            transport: Transport::Tcp,
            family: Family::Ipv4,
            state: TcpState::Established,
            local: Endpoint {
                address: None,
                port: Some(port),
            },
            peer: None,
            socket: Socket::default(),
            chose_port: false,
            accepted: false,
            of_kernel: false,
            references: None,
            taker: None,
        }
    }

    #[test]
    fn a_listener_is_found_among_its_connections() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let _client = TcpStream::connect(address).unwrap();
        let _accepted = listener.accept().unwrap();
        let found = match of_port(address.port()) {
            Ok(found) => found,
            Err(error) => {
                println!("skip: no sock_diag ({error})");
                return;
            }
        };
        let path = format!("/proc/self/fd/{}", listener.as_raw_fd());
        let inode = std::fs::metadata(path).unwrap().ino();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].local.address, Some(address.ip()));
        assert_eq!(found[0].local.port, Some(address.port()));
        assert_eq!(found[0].socket.inode, Some(inode));
    }

    #[test]
    fn a_walk_that_was_cut_short_of_the_listener_gets_it_in_front() {
        let mut conflict = Conflict {
            holders: vec![client(80); MAX_HOLDERS],
            total: 64,
            connect_only: false,
            truncated: true,
        };
        assert!(are_wanted(&conflict));
        let listener = Holder {
            state: TcpState::Listen,
            ..client(80)
        };
        add(&mut conflict, vec![listener]);
        assert_eq!(conflict.holders[0].state, TcpState::Listen);
        assert_eq!(conflict.holders.len(), MAX_HOLDERS);
        assert_eq!(conflict.total, 65);
        assert!(!are_wanted(&conflict), "one is there now");
    }

    #[test]
    fn a_complete_walk_asks_nobody() {
        let conflict = Conflict {
            holders: vec![client(80)],
            total: 1,
            connect_only: false,
            truncated: false,
        };
        assert!(!are_wanted(&conflict));
    }

    #[test]
    fn a_damaged_answer_is_an_error_and_no_panic() {
        let mut found = Vec::new();
        assert!(take(&[1, 2, 3], 80, &mut found).is_err());
        assert!(take(&[0; 64], 80, &mut found).is_err() || found.is_empty());
    }
}
