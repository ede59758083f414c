//! `struct sock` and the struct socket, file and inode around it.

use portwatch_ebpf::abi::{
    config::{detail, family, helper, protocol},
    layout::ABSENT,
    record::{SocketRecord, flags, present},
};

use aya_ebpf::helpers::generated::bpf_get_socket_cookie;

use super::{
    memory::{Memory, Ptr, Typed, config, detailed, offset, set},
    request::{AF_INET, AF_INET6},
};
use crate::state::closers::Place;

/// What portwatch makes of each IPPROTO_*: bits of [`protocol`] and [`INSIDE`]. A table, because the
/// verifier would follow every number of a `match` separately through all that comes after.
#[expect(clippy::indexing_slicing, reason = "evaluated when it is compiled")]
#[unsafe(no_mangle)]
static PROTOCOLS: [u8; 512] = {
    let mut table = [0u8; 512];
    let mut number = 0;
    while number < table.len() {
        table[number] = match number {
            6 => protocol::TCP as u8,
            // IPPROTO_MPTCP: the socket a program holds while TCP sockets inside carry its data.
            262 => protocol::TCP as u8 | OUTER,
            17 | 136 => protocol::UDP as u8,
            33 | 132 => protocol::OTHER as u8,
            _ => 0,
        };
        number += 1;
    }
    table
};

/// The outer socket of MPTCP.
const OUTER: u8 = 1 << 7;

/// include/uapi/linux/in.h
pub(crate) const IPPROTO_TCP: u8 = 6;
/// SOCK_RAW
const SOCK_RAW: u16 = 3;
/// include/net/sock.h
const SOCK_BINDPORT_LOCK: u32 = 8;

/// TCP states (include/net/tcp_states.h).
pub(crate) mod state {
    pub(crate) const ESTABLISHED: u8 = 1;
    pub(crate) const SYN_SENT: u8 = 2;
    pub(crate) const SYN_RECV: u8 = 3;
    pub(crate) const FIN_WAIT1: u8 = 4;
    pub(crate) const FIN_WAIT2: u8 = 5;
    pub(crate) const TIME_WAIT: u8 = 6;
    pub(crate) const CLOSE: u8 = 7;
    pub(crate) const LAST_ACK: u8 = 9;
    pub(crate) const LISTEN: u8 = 10;
    pub(crate) const CLOSING: u8 = 11;
    pub(crate) const NEW_SYN_RECV: u8 = 12;
}

/// What decides early whether a socket is ours to report.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) family: u16,
    pub(crate) protocol: u16,
    bits: u8,
}

impl Kind {
    /// `None`: a socket without ports (raw, ping) or of another family.
    #[inline(always)]
    pub(crate) fn of<M: Memory>(sk: Ptr) -> Option<Self> {
        let family = M::load::<u16>(sk, offset!(skc_family));
        if family != AF_INET && family != AF_INET6 {
            return None;
        }
        let protocol = M::load::<u16>(sk, offset!(sk_protocol));
        if M::load::<u16>(sk, offset!(sk_type)) == SOCK_RAW {
            return None;
        }
        let bits = *PROTOCOLS.get(protocol as usize & (PROTOCOLS.len() - 1))?;
        (bits != 0).then_some(Self {
            family,
            protocol,
            bits,
        })
    }

    /// What is TCP for certain.
    #[inline(always)]
    pub(crate) fn tcp(family: u16) -> Self {
        Self {
            family,
            protocol: u16::from(IPPROTO_TCP),
            bits: protocol::TCP as u8,
        }
    }

    /// Whether the configuration wants this protocol and family.
    #[inline(always)]
    pub(crate) fn wanted(self) -> bool {
        self.transport_is_wanted() && family_is_wanted(self.family)
    }

    /// Whether it wants this protocol.
    #[inline(always)]
    pub(crate) fn transport_is_wanted(self) -> bool {
        config!(protocols) & u32::from(self.bits) != 0
    }

    pub(crate) fn is_tcp(self) -> bool {
        self.bits & protocol::TCP as u8 != 0
    }

    pub(crate) fn is_udp(self) -> bool {
        self.bits & protocol::UDP as u8 != 0
    }

    /// The socket a program holds while TCP sockets carry its data.
    pub(crate) fn is_mptcp(self) -> bool {
        self.bits & OUTER != 0
    }
}

/// Whether the configuration wants this family.
#[inline(always)]
pub(crate) fn family_is_wanted(family: u16) -> bool {
    let family = if family == AF_INET6 {
        family::V6
    } else {
        family::V4
    };
    config!(families) & family != 0
}

/// The socket that bind and listen act on: for an MPTCP socket the first TCP socket inside.
#[inline(always)]
pub(crate) fn acting<F: Memory>(sk: Ptr) -> Ptr {
    let first = inner::<F>(sk);
    if first.is_null() { sk } else { first }
}

/// The first TCP socket inside an MPTCP one; null for any other.
#[inline(always)]
pub(crate) fn inner<F: Memory>(sk: Ptr) -> Ptr {
    let at = offset!(mptcp_first);
    if at == ABSENT || Kind::of::<F>(sk).is_none_or(|kind| !kind.is_mptcp()) {
        return core::ptr::null();
    }
    F::load::<Ptr>(sk, at)
}

/// Local port, host byte order; 0 when unbound.
#[inline(always)]
pub(crate) fn port<M: Memory>(sk: Ptr) -> u16 {
    M::load(sk, offset!(skc_num))
}

/// struct net of a socket.
#[inline(always)]
pub(crate) fn net<M: Memory>(sk: Ptr) -> Ptr {
    M::load(sk, offset!(skc_net))
}

/// Inode of the network namespace.
#[inline(always)]
pub(crate) fn netns<M: Memory>(sk: Ptr) -> u32 {
    M::load(net::<M>(sk), offset!(net_inum))
}

/// What stands between a sock and the programs that hold it.
#[derive(Clone, Copy)]
pub(crate) struct Handle {
    /// The sock the program holds: for the TCP socket inside an MPTCP one, that one.
    pub(crate) sk: Ptr,
    socket: Ptr,
    /// Something of the open file that is 0 when there is none: its inode's number, if wanted.
    file: u64,
    /// The struct socket has let go of its sock.
    released: bool,
}

impl Handle {
    #[inline(always)]
    pub(crate) fn of<M: Memory>(sk: Ptr) -> Self {
        let socket = M::load::<Ptr>(sk, offset!(sk_socket));
        // Not left to the kernel, which makes 0 of what is read through 0: see `Typed`.
        if socket.is_null() {
            return Self {
                sk,
                socket,
                file: 0,
                released: false,
            };
        }
        let outer = M::load::<Ptr>(socket, offset!(socket_sk));
        let file = M::load::<Ptr>(socket, offset!(socket_file));
        Self {
            sk: if outer.is_null() { sk } else { outer },
            socket,
            released: outer.is_null(),
            file: if file.is_null() {
                0
            } else if M::PLAIN && !detailed(detail::REST) {
                1
            } else if M::PLAIN {
                let inode = M::load::<Ptr>(file, offset!(file_inode));
                M::load(inode, offset!(inode_ino))
            } else {
                file as u64
            },
        }
    }

    /// Whether no process ever had a descriptor of the socket. Sockets of the kernel have no file.
    #[inline(always)]
    pub(crate) fn is_of_kernel(&self) -> bool {
        self.file == 0
    }

    /// Whether it is being closed: the socket lets go of the sock before that gives back its port
    /// (net/ipv4/af_inet.c, `inet_release`), and soon has no file either, though it is not the kernel's.
    #[inline(always)]
    pub(crate) fn is_released(&self) -> bool {
        self.released
    }

    /// The open file, for ways in that follow plain addresses; null when there is none.
    #[inline(always)]
    pub(crate) fn file(&self) -> Ptr {
        self.file as Ptr
    }

    /// Whether there is a struct socket: not of a connection nobody has accepted, nor of one that its
    /// program has closed.
    #[inline(always)]
    pub(crate) fn has_socket(&self) -> bool {
        !self.socket.is_null()
    }

    /// Inode of the socket file, 0 when there is none.
    #[inline(always)]
    pub(crate) fn inode<M: Memory, F: Memory>(&self) -> u64 {
        if M::PLAIN && self.file != 0 {
            return self.file;
        }
        // struct socket and its inode are allocated together (include/net/sock.h, SOCK_INODE).
        if self.socket.is_null() {
            return 0;
        }
        let at = offset!(socket_alloc_inode) + offset!(inode_ino);
        F::load(self.socket, at)
    }
}

/// Inode of the socket file, 0 when there is none.
#[inline(always)]
pub(crate) fn inode<M: Memory, F: Memory>(sk: Ptr) -> u64 {
    let socket = M::load::<Ptr>(sk, offset!(sk_socket));
    if socket.is_null() {
        return 0;
    }
    if !M::PLAIN {
        // struct socket and its inode are allocated together (include/net/sock.h, SOCK_INODE).
        return F::load(socket, offset!(socket_alloc_inode) + offset!(inode_ino));
    }
    let file = M::load::<Ptr>(socket, offset!(socket_file));
    if file.is_null() {
        return 0;
    }
    M::load(
        M::load::<Ptr>(file, offset!(file_inode)),
        offset!(inode_ino),
    )
}

/// The socket that an open file is of (net/socket.c, `sock_from_file`); null where it is something else.
#[inline(always)]
pub(crate) fn of_file<F: Memory>(file: Ptr) -> Ptr {
    const S_IFMT: u16 = 0o170_000;
    const S_IFSOCK: u16 = 0o140_000;
    let inode = F::load::<Ptr>(file, offset!(file_inode));
    if F::load::<u16>(inode, offset!(inode_mode)) & S_IFMT != S_IFSOCK {
        return core::ptr::null();
    }
    // Sockets and their inodes are allocated together (include/net/sock.h, SOCKET_I): what is only the
    // place of a socket in a file system (O_PATH) has another one.
    let socket = F::load::<Ptr>(file, offset!(file_private));
    if socket.wrapping_byte_add(offset!(socket_alloc_inode) as usize) != inode {
        return core::ptr::null();
    }
    F::load(socket, offset!(socket_sk))
}

/// Number of the inode of an open file.
#[inline(always)]
pub(crate) fn inode_of_file<F: Memory>(file: Ptr) -> u64 {
    F::load(
        F::load::<Ptr>(file, offset!(file_inode)),
        offset!(inode_ino),
    )
}

/// References to an open file: one for each entry of a descriptor table, and for each system call that
/// is at work on it.
#[inline(always)]
pub(crate) fn references<F: Memory>(file: Ptr) -> Option<u32> {
    if offset!(file_count) != ABSENT {
        return Some(F::load::<u64>(file, offset!(file_count)) as u32);
    }
    if offset!(file_ref) == ABSENT {
        return None;
    }
    // The last one is 0, and what is beyond is dead (lib/file_ref.c, include/linux/file_ref.h).
    let count = F::load::<u64>(file, offset!(file_ref));
    Some(if count >> 62 == 0 {
        count as u32 + 1
    } else {
        0
    })
}

/// Writes the local address and port into the record.
#[inline(always)]
pub(crate) fn local<M: Memory>(record: &mut SocketRecord, sk: Ptr, family: u16) {
    let (v4, v6) = (offset!(skc_rcv_saddr), offset!(skc_v6_rcv_saddr));
    if address::<M>(&raw mut record.local_address, sk, family, v4, v6) {
        record.address_family = family;
        set(&mut record.present, present::LOCAL_ADDRESS);
    }
    record.local_port = port::<M>(sk);
    set(&mut record.present, present::LOCAL_PORT);
}

/// Low byte of IPPROTO_*: 6 of TCP and of MPTCP (262).
#[inline(always)]
pub(crate) fn protocol<M: Memory>(sk: Ptr) -> u8 {
    M::load::<u16>(sk, offset!(sk_protocol)) as u8
}

/// Where a socket with that local port is.
#[inline(always)]
pub(crate) fn place<M: Memory>(sk: Ptr, port: u16, transport: u8) -> Place {
    let (v6, v6_local) = (offset!(skc_v6_daddr), offset!(skc_v6_rcv_saddr));
    let addresses = if v6 != ABSENT
        && v6_local != ABSENT
        && M::load::<u16>(sk, offset!(skc_family)) == AF_INET6
    {
        let halves = |at: u32| M::load::<u64>(sk, at) ^ M::load::<u64>(sk, at + 8);
        halves(v6) ^ halves(v6_local).rotate_left(32)
    } else {
        let word = |at: u32| u64::from(M::load::<u32>(sk, at));
        word(offset!(skc_daddr)) | word(offset!(skc_rcv_saddr)) << 32
    };
    Place {
        netns: netns::<M>(sk),
        port,
        peer_port: M::load::<u16>(sk, offset!(skc_dport)),
        addresses,
        transport,
    }
}

/// The local address as its two words in memory, IPv4 in the first half of the first.
#[inline(always)]
pub(crate) fn local_words<M: Memory>(sk: Ptr, family: u16) -> [u64; 2] {
    let v6 = offset!(skc_v6_rcv_saddr);
    if family == AF_INET6 && v6 != ABSENT {
        [M::load(sk, v6), M::load(sk, v6 + 8)]
    } else {
        [u64::from(M::load::<u32>(sk, offset!(skc_rcv_saddr))), 0]
    }
}

/// Peer port, host byte order; 0 when there is none.
#[inline(always)]
pub(crate) fn peer_port<M: Memory>(sk: Ptr) -> u16 {
    u16::from_be(M::load::<u16>(sk, offset!(skc_dport)))
}

/// Writes the peer's address and port into the record.
#[inline(always)]
pub(crate) fn peer<M: Memory>(record: &mut SocketRecord, sk: Ptr, family: u16) {
    let (v4, v6) = (offset!(skc_daddr), offset!(skc_v6_daddr));
    if address::<M>(&raw mut record.peer_address, sk, family, v4, v6) {
        record.peer_port = peer_port::<M>(sk);
        record.address_family = family;
        set(&mut record.present, present::PEER);
    }
}

/// Writes an address to zeroed, aligned memory, IPv4 in the first four bytes; false where the kernel
/// has none.
///
/// Word by word: a value of sixteen bytes on its way through an `Option` becomes calls of memset()
/// and memcpy() that go byte by byte.
#[inline(always)]
pub(crate) fn address<M: Memory>(
    to: *mut [u8; 16],
    sk: Ptr,
    family: u16,
    v4: u32,
    v6: u32,
) -> bool {
    let to = to.cast::<u32>();
    if family != AF_INET6 {
        // SAFETY: the first four of sixteen bytes; records keep addresses aligned.
        unsafe { to.write_volatile(M::load::<u32>(sk, v4)) };
        return true;
    }
    if v6 == ABSENT {
        return false;
    }
    let to = to.cast::<u64>();
    // SAFETY: the two halves of sixteen bytes; records keep addresses aligned.
    unsafe {
        to.write_volatile(M::load::<u64>(sk, v6));
        to.add(1).write_volatile(M::load::<u64>(sk, v6 + 8));
    }
    true
}

/// `inet_sport`, which survives where `skc_num` is cleared; host byte order.
#[inline(always)]
pub(crate) fn source_port<F: Memory>(sk: Ptr) -> u16 {
    u16::from_be(F::load::<u16>(sk, offset!(inet_sport)))
}

/// IP_LOCAL_PORT_RANGE of a socket (Linux 6.3, net/ipv4/ip_sockglue.c), the upper end in the upper half; 0
/// without.
#[inline(always)]
pub(crate) fn own_range<F: Memory>(sk: Ptr) -> u32 {
    let at = offset!(inet_port_range);
    if at == ABSENT { 0 } else { F::load(sk, at) }
}

/// The backlog of a listen() that asks for so much: net.core.somaxconn at most (net/socket.c, `__sys_listen`).
#[inline(always)]
pub(crate) fn backlog<F: Memory>(sk: Ptr, asked: u32) -> u32 {
    let at = offset!(net_somaxconn);
    if at == ABSENT {
        return asked;
    }
    asked.min(F::load(net::<F>(sk), at))
}

/// Whether the caller named a port itself in bind(); otherwise the kernel chose it.
#[inline(always)]
pub(crate) fn chose_port<M: Memory>(sk: Ptr) -> bool {
    M::bits(sk, offset!(sk_userlocks)) & SOCK_BINDPORT_LOCK != 0
}

/// Options that stand in `struct sock_common`.
#[inline(always)]
pub(crate) fn common_flags<M: Memory>(sk: Ptr) -> u32 {
    // SK_CAN_REUSE is 1, SK_FORCE_REUSE 2. No branches: see `set`.
    let reuse = M::bits(sk, offset!(skc_reuse));
    (reuse | reuse >> 1) & 1
        | M::bit(sk, offset!(skc_reuseport)) << 1
        | M::bit(sk, offset!(skc_ipv6only)) << 2
}

/// Options that stand in `struct inet_sock`, which no BTF pointer leads to.
#[inline(always)]
fn inet_flags<F: Memory>(sk: Ptr) -> Option<u32> {
    let (freebind, transparent, no_port) = (
        offset!(inet_freebind),
        offset!(inet_transparent),
        offset!(inet_bind_no_port),
    );
    if freebind == ABSENT || transparent == ABSENT || no_port == ABSENT {
        return None;
    }
    // Both the old bitfields and the new flag word lie within eight bytes of the first: the loader has
    // checked it.
    let base = freebind >> 3;
    let word = F::load::<u64>(sk, base);
    let bit = |at: u32| (word >> (at.wrapping_sub(base * 8) & 63)) as u32 & 1;
    Some(bit(freebind) << 3 | bit(transparent) << 4 | bit(no_port) << 5)
}

/// Identity and options of the socket.
#[inline(always)]
pub(crate) fn describe<M: Memory, F: Memory>(
    record: &mut SocketRecord,
    sk: Ptr,
    handle: &Handle,
    kind: Kind,
) {
    record.family = kind.family;
    record.protocol = kind.protocol;
    set(&mut record.present, present::SOCKET | present::NETNS);
    if detailed(detail::REST) {
        shares::<M>(record, sk);
        if let Some(bits) = inet_flags::<F>(sk) {
            set(&mut record.flags, bits);
            set(&mut record.present, present::INET_FLAGS);
        }
    }
    if kind.is_tcp() {
        if kind.is_mptcp() || handle.sk != sk {
            set(&mut record.flags, flags::MPTCP);
        } else if handle.is_of_kernel() {
            // A further path of an MPTCP connection, not yet joined to the program's socket.
            set(&mut record.flags, inside_mptcp::<F>(sk) << 6);
        }
    }
    record.netns = netns::<M>(sk);
    if detailed(detail::REST) {
        put_inode(record, handle.inode::<M, F>());
    }
}

/// Writes the inode of the socket file, if there is one.
#[inline(always)]
pub(crate) fn put_inode(record: &mut SocketRecord, inode: u64) {
    if inode != 0 {
        record.inode = inode;
        set(&mut record.present, present::INODE);
    }
}

/// What decides whether the socket may share a port.
#[inline(always)]
pub(crate) fn shares<M: Memory>(record: &mut SocketRecord, sk: Ptr) {
    set(
        &mut record.present,
        present::SOCKET_FLAGS | present::DEVICE | present::SOCKET_UID,
    );
    set(&mut record.flags, common_flags::<M>(sk));
    record.device = M::load(sk, offset!(skc_bound_dev_if));
    record.socket_uid = M::load(sk, offset!(sk_uid));
}

/// 1 for a TCP socket that carries an MPTCP connection.
#[inline(always)]
pub(crate) fn inside_mptcp<F: Memory>(sk: Ptr) -> u32 {
    let bit = offset!(tcp_is_mptcp);
    if bit == ABSENT { 0 } else { F::bit(sk, bit) }
}

// The bits are moved into place above without branches.
const _: () = assert!(
    flags::REUSEADDR == 1
        && flags::REUSEPORT == 1 << 1
        && flags::V6ONLY == 1 << 2
        && flags::FREEBIND == 1 << 3
        && flags::TRANSPARENT == 1 << 4
        && flags::BIND_NO_PORT == 1 << 5
        && flags::MPTCP == 1 << 6
);

/// The cookie that is there already; 0 when nobody has asked for one yet.
#[inline(always)]
pub(crate) fn existing_cookie<M: Memory>(sk: Ptr) -> u64 {
    M::load(sk, offset!(skc_cookie))
}

/// Writes the cookie, if there is one.
#[inline(always)]
pub(crate) fn put_cookie(record: &mut SocketRecord, cookie: u64) {
    if cookie != 0 {
        record.cookie = cookie;
        set(&mut record.present, present::COOKIE);
    }
}

/// Asks the kernel for the cookie of a socket given as argument of a tracing program.
#[inline(always)]
pub(crate) fn assigned_cookie(sk: Ptr) -> u64 {
    if config!(helpers) & helper::SOCKET_COOKIE == 0 {
        return existing_cookie::<Typed>(sk);
    }
    // SAFETY: the verifier checks that sk is a BTF pointer to a socket.
    unsafe { bpf_get_socket_cookie(sk.cast_mut()) }
}
