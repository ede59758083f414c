//! Sockets as sock_diag(7) lists them, of the network namespace of the calling thread.

use std::{
    io,
    net::IpAddr,
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, Nla as _};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE},
    inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags, Timer, nlas::Nla},
};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use super::netlink::{self, ROOM};
use crate::event::{Endpoint, Family, Holder, Socket, SocketOptions, TcpState, Transport};

/// Which sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// TCP, UDP or UDP-Lite; of others nothing is listed.
    pub transport: Transport,
    /// Their states.
    pub states: StateFlags,
    /// Their local ports. The kernel goes by it, so that it costs little to ask for few of many.
    pub ports: RangeInclusive<u16>,
    /// The port of their peer, where it matters. Sockets that listen are listed all the same.
    pub peer_port: Option<u16>,
}

/// A socket that is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Family.
    pub family: Family,
    /// State. One that is bound and does not listen is [`TcpState::Closed`].
    pub state: TcpState,
    /// Local end.
    pub local: Endpoint,
    /// Peer, all zeros where there is none.
    pub peer: Endpoint,
    /// Index of the interface that it is bound to.
    pub device: Option<u32>,
    /// Inode of its file.
    pub inode: Option<u64>,
    /// Cookie.
    pub cookie: Option<u64>,
    /// Owner.
    pub uid: u32,
    /// IPV6_V6ONLY; the kernel tells it only of sockets that listen or are closed, and of IPv6.
    pub v6only: Option<bool>,
    /// IP_FREEBIND, IP_TRANSPARENT and IP_BIND_ADDRESS_NO_PORT; since Linux 5.10.
    pub ip_options: Option<IpOptions>,
    /// The kernel keeps no more of it than of one in TIME_WAIT.
    pub remnant: bool,
    /// Time until its timer runs out, zero where none runs: of TIME_WAIT how long that lasts still.
    pub expires: Duration,
}

/// Options of the IP layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpOptions {
    /// IP_FREEBIND.
    pub freebind: bool,
    /// IP_TRANSPARENT.
    pub transparent: bool,
    /// IP_BIND_ADDRESS_NO_PORT.
    pub bind_no_port: bool,
}

impl IpOptions {
    /// INET_DIAG_SOCKOPT (include/uapi/linux/inet_diag.h)
    const ATTRIBUTE: u16 = 22;

    /// From `struct inet_diag_sockopt`: bits, of which the first is the lowest on a little-endian machine
    /// and the highest on another.
    fn parse(value: &[u8]) -> Option<Self> {
        let [first, second, ..] = *value else {
            return None;
        };
        let bit = |byte: u8, at: u32| {
            let at = if cfg!(target_endian = "little") {
                at
            } else {
                7 - at
            };
            byte >> at & 1 != 0
        };
        Some(Self {
            freebind: bit(first, 2),
            transparent: bit(first, 5),
            bind_no_port: bit(second, 0),
        })
    }
}

impl Listed {
    /// The socket as others are described, without its namespace and what sock_diag does not tell.
    #[must_use]
    pub fn holder(self, transport: Transport) -> Holder {
        let Self {
            family,
            state,
            local,
            peer,
            device,
            inode,
            cookie,
            uid,
            v6only,
            ip_options,
            remnant,
            expires: _,
        } = self;
        let local = Endpoint {
            port: local.port.filter(|&port| port != 0),
            ..local
        };
        let has_port = |end: &Endpoint| end.port.is_some_and(|port| port != 0);
        Holder {
            peer: Some(peer).filter(has_port),
            socket: Socket {
                cookie,
                inode,
                netns: None,
                device,
                // A connection that ended belongs to nobody; the kernel says 0.
                uid: Some(uid).filter(|_| !remnant),
                options: SocketOptions {
                    v6only,
                    freebind: ip_options.map(|options| options.freebind),
                    transparent: ip_options.map(|options| options.transparent),
                    bind_no_port: ip_options.map(|options| options.bind_no_port),
                    ..SocketOptions::default()
                },
            },
            remnant,
            ..Holder::new(transport, family, state, local)
        }
    }
}

/// `nlmsghdr`, and in `inet_diag_msg` what is before `idiag_expires`: four bytes and the ends of the
/// socket (include/uapi/linux/inet_diag.h). The library does not read it of TIME_WAIT.
const EXPIRES: usize = 16 + 4 + 48;

/// INET_DIAG_NOCOOKIE (include/uapi/linux/inet_diag.h)
const ANY_COOKIE: [u8; 8] = [u8::MAX; 8];

/// All states, `TCP_BOUND_INACTIVE` too: kernels before 6.8 do not know that one, and do not show such
/// sockets.
#[must_use]
pub const fn every_state() -> StateFlags {
    StateFlags::from_bits_retain(u32::MAX)
}

/// Sockets that listen, and of others those that are bound; of TCP with `bound` those too that are bound and
/// nothing else.
///
/// Where TCP sockets that listen are enough, no other state is asked for: for any, the kernel goes through its
/// table of connections too (`inet_diag_dump_icsk`, net/ipv4/inet_diag.c; later `tcp_diag_dump`,
/// net/ipv4/tcp_diag.c).
#[must_use]
pub fn bound_states(transport: Transport, bound: bool) -> StateFlags {
    match transport {
        Transport::Tcp if bound => StateFlags::from_bits_retain(
            StateFlags::LISTEN.bits() | 1 << TcpState::BoundInactive as u32,
        ),
        Transport::Tcp => StateFlags::LISTEN,
        _ => StateFlags::CLOSE,
    }
}

/// Lists the sockets, IPv4 first, up to `deadline`; whether these are all.
///
/// # Errors
/// When sock_diag is not there or does not answer.
pub fn list(
    query: &Query,
    deadline: Option<Instant>,
    mut visit: impl FnMut(Listed),
) -> io::Result<bool> {
    for family in [Family::Ipv4, Family::Ipv6] {
        if !ask(family, query, deadline, &mut visit)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The TCP connection with these ends, bound to that interface (0: to none); `None` where there is none.
///
/// # Errors
/// When sock_diag is not there or does not answer.
pub fn connection(
    family: Family,
    [local, peer]: [(IpAddr, u16); 2],
    interface: u32,
) -> io::Result<Option<Listed>> {
    let address = |address: IpAddr| match (family, address) {
        (Family::Ipv6, IpAddr::V4(address)) => address.to_ipv6_mapped().into(),
        (_, address) => address,
    };
    let request = InetRequest {
        family: number(family),
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: every_state(),
        socket_id: SocketId {
            source_address: address(local.0),
            source_port: local.1,
            destination_address: address(peer.0),
            destination_port: peer.1,
            interface_id: interface,
            cookie: ANY_COOKIE,
        },
    };
    let socket = netlink::open(NETLINK_SOCK_DIAG)?;
    socket.send(&message(request, 0), 0)?;
    let mut answer = Vec::with_capacity(ROOM);
    socket.recv(&mut answer, 0)?;
    let mut found = None;
    match take(&answer, &mut |socket| found = Some(socket)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        taken => taken.map(|_| found),
    }
}

fn message(request: InetRequest, flags: u16) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn number(family: Family) -> u8 {
    match family {
        Family::Ipv4 => AF_INET,
        Family::Ipv6 => AF_INET6,
    }
}

fn ask(
    family: Family,
    query: &Query,
    deadline: Option<Instant>,
    visit: &mut impl FnMut(Listed),
) -> io::Result<bool> {
    let socket = netlink::open(NETLINK_SOCK_DIAG)?;
    socket.send(&request(family, query)?, 0)?;
    let mut answer = Vec::with_capacity(ROOM);
    loop {
        answer.clear();
        socket.recv(&mut answer, 0)?;
        if !take(&answer, visit)? {
            return Ok(true);
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(false);
        }
    }
}

fn request(family: Family, query: &Query) -> io::Result<Vec<u8>> {
    let Query {
        transport,
        states,
        ports,
        peer_port,
    } = query;
    let id = match family {
        Family::Ipv4 => SocketId::new_v4(),
        Family::Ipv6 => SocketId::new_v6(),
    };
    let protocol = match transport {
        Transport::Tcp => IPPROTO_TCP,
        Transport::Udp => IPPROTO_UDP,
        Transport::UdpLite => IPPROTO_UDPLITE,
        _ => return Err(io::ErrorKind::Unsupported.into()),
    };
    let request = InetRequest {
        family: number(family),
        protocol,
        extensions: ExtensionFlags::empty(),
        states: states.clone(),
        // net/ipv4/inet_diag.c, `inet_diag_dump_icsk`: `r->id.idiag_dport != inet->inet_dport`
        socket_id: SocketId {
            destination_port: peer_port.unwrap_or_default(),
            ..id
        },
    };
    let mut bytes = message(request, NLM_F_DUMP);
    if *ports != (0..=u16::MAX) {
        bytes.extend(within(ports));
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        // The length of a message stands at its beginning (include/uapi/linux/netlink.h).
        bytes
            .get_mut(..4)
            .ok_or(io::ErrorKind::InvalidData)?
            .copy_from_slice(&length.to_ne_bytes());
    }
    Ok(bytes)
}

/// The attribute INET_DIAG_REQ_BYTECODE (include/uapi/linux/inet_diag.h) that passes sockets with a local
/// port of these: two comparisons, each of two `inet_diag_bc_op` {code, yes, no}, of which the second has
/// the number in `no`. A jump to the end passes, one beyond it does not (`inet_diag_bc_run`).
fn within(ports: &RangeInclusive<u16>) -> Vec<u8> {
    const BYTECODE: u16 = 1;
    const S_GE: u8 = 2;
    const S_LE: u8 = 3;
    const LENGTH: u16 = 16;
    let mut bytes = Vec::with_capacity(20);
    bytes.extend((LENGTH + 4).to_ne_bytes());
    bytes.extend(BYTECODE.to_ne_bytes());
    for (code, beyond, port) in [
        (S_GE, LENGTH + 4, ports.start()),
        (S_LE, LENGTH - 8 + 4, ports.end()),
    ] {
        bytes.extend([code, 8]);
        bytes.extend(beyond.to_ne_bytes());
        bytes.extend([0, 0]);
        bytes.extend(port.to_ne_bytes());
    }
    bytes
}

/// Takes the messages of one read; whether there is more to come.
fn take(bytes: &[u8], visit: &mut impl FnMut(Listed)) -> io::Result<bool> {
    netlink::take(bytes, |message, bytes| {
        if let SockDiagMessage::InetResponse(response) = message
            && let Some(socket) = listed(&response, expires(bytes))
        {
            visit(socket);
        }
    })
}

/// `idiag_expires`, in milliseconds, of the message that `bytes` begin with.
fn expires(bytes: &[u8]) -> Duration {
    let field = bytes.get(EXPIRES..).and_then(<[u8]>::first_chunk);
    Duration::from_millis(field.map_or(0, |&field| u32::from_ne_bytes(field)).into())
}

fn listed(response: &InetResponse, expires: Duration) -> Option<Listed> {
    let InetResponse { header, nlas } = response;
    let id = &header.socket_id;
    let family = match header.family {
        AF_INET => Family::Ipv4,
        AF_INET6 => Family::Ipv6,
        _ => return None,
    };
    let v6only = nlas.iter().find_map(|nla| match nla {
        Nla::SkV6Only(only) => Some(*only),
        _ => None,
    });
    let ip_options = nlas.iter().find_map(|nla| match nla {
        Nla::Other(nla) if nla.kind() == IpOptions::ATTRIBUTE => {
            let mut room = [0; 8];
            let value = room.get_mut(..nla.value_len())?;
            nla.emit_value(value);
            IpOptions::parse(value)
        }
        _ => None,
    });
    Some(Listed {
        family,
        state: TcpState::from_kernel(header.state)?,
        local: Endpoint {
            address: Some(id.source_address),
            port: Some(id.source_port),
        },
        peer: Endpoint {
            address: Some(id.destination_address),
            port: Some(id.destination_port),
        },
        device: Some(id.interface_id).filter(|&index| index != 0),
        inode: Some(u64::from(header.inode)).filter(|&inode| inode != 0),
        cookie: Some(u64::from_ne_bytes(id.cookie)).filter(|&cookie| cookie != 0),
        uid: header.uid,
        v6only: v6only.filter(|_| family == Family::Ipv6),
        ip_options,
        // In FIN_WAIT2 it is not always one, but only these have that timer (net/ipv4/tcp_diag.c and
        // net/ipv4/inet_diag.c, `inet_twsk_diag_fill`).
        remnant: header.timer == Some(Timer::TimeWait),
        expires,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::{
        net::{TcpListener, TcpStream, UdpSocket},
        os::{fd::AsRawFd, unix::fs::MetadataExt},
    };

    use super::*;

    fn query(transport: Transport, port: u16) -> Query {
        Query {
            transport,
            states: every_state(),
            ports: port..=port,
            peer_port: None,
        }
    }

    /// What is listed; `None` where there is no sock_diag.
    fn found(query: &Query) -> Option<Vec<Listed>> {
        let mut found = Vec::new();
        match list(query, None, |socket| found.push(socket)) {
            Ok(whole) => assert!(whole),
            Err(error) => {
                println!("skip: no sock_diag ({error})");
                return None;
            }
        }
        Some(found)
    }

    fn inode(socket: &impl AsRawFd) -> u64 {
        let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
        std::fs::metadata(path).unwrap().ino()
    }

    #[test]
    fn the_sockets_of_a_port_and_no_others() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let Some(sockets) = found(&query(Transport::Tcp, address.port())) else {
            return;
        };
        let mut inodes: Vec<_> = sockets.iter().filter_map(|socket| socket.inode).collect();
        let mut expected = vec![inode(&listener), inode(&accepted)];
        inodes.sort_unstable();
        expected.sort_unstable();
        assert_eq!(inodes, expected);
        let source = client.local_addr().unwrap();
        let to_it = Query {
            ports: 0..=u16::MAX,
            peer_port: Some(address.port()),
            states: StateFlags::ESTABLISHED,
            ..query(Transport::Tcp, 0)
        };
        let sockets = found(&to_it).unwrap();
        assert_eq!(sockets.len(), 1, "{sockets:?}");
        assert_eq!(sockets[0].inode, Some(inode(&client)));
        assert_eq!(sockets[0].local.port, Some(source.port()));
        assert_eq!(sockets[0].peer.address, Some(address.ip()));
    }

    #[test]
    fn ports_beside_the_range_are_left_out() {
        let socket = UdpSocket::bind("[::1]:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let count = |ports| {
            let query = Query {
                ports,
                ..query(Transport::Udp, port)
            };
            let own = inode(&socket);
            let is_own = |other: &Listed| other.inode == Some(own);
            Some(found(&query)?.into_iter().filter(is_own).count())
        };
        let Some(all) = count(0..=u16::MAX) else {
            return;
        };
        assert_eq!(all, 1);
        assert_eq!(count(port - 1..=port), Some(1));
        assert_eq!(count(port..=port + 1), Some(1));
        assert_eq!(count(port + 1..=u16::MAX), Some(0));
        assert_eq!(count(1..=port - 1), Some(0));
    }

    #[test]
    fn options_of_the_ip_layer_are_told() {
        use rustix::net::sockopt::set_ip_freebind;

        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let query = query(Transport::Udp, socket.local_addr().unwrap().port());
        let of = || Some(found(&query)?.pop().unwrap().ip_options);
        let Some(before) = of() else {
            return;
        };
        let none = IpOptions {
            freebind: false,
            transparent: false,
            bind_no_port: false,
        };
        assert_eq!(before, Some(none));
        set_ip_freebind(&socket, true).unwrap();
        let freebind = IpOptions {
            freebind: true,
            ..none
        };
        assert_eq!(of(), Some(Some(freebind)));
        nix::sys::socket::setsockopt(
            &socket,
            nix::sys::socket::sockopt::IpBindAddressNoPort,
            &true,
        )
        .unwrap();
        let both = IpOptions {
            bind_no_port: true,
            ..freebind
        };
        assert_eq!(of(), Some(Some(both)));
        // Needs CAP_NET_ADMIN.
        assert!(IpOptions::parse(&[1 << 5, 0]).unwrap().transparent);
        assert_eq!(IpOptions::parse(&[0]), None);
    }

    #[test]
    fn there_is_an_end_to_it() {
        let _socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let all = Query {
            ports: 0..=u16::MAX,
            ..query(Transport::Tcp, 0)
        };
        if let Ok(whole) = list(&all, Some(Instant::now()), |_| ()) {
            assert!(!whole);
        }
    }

    #[test]
    fn a_damaged_answer_is_an_error_and_no_panic() {
        let mut found = Vec::new();
        let mut visit = |socket| found.push(socket);
        assert!(take(&[1, 2, 3], &mut visit).is_err());
        assert!(take(&[0; 64], &mut visit).is_err() || found.is_empty());
    }
}
