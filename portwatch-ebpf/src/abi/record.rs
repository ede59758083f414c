//! The records of the ring buffer.

/// Version of the record layout. User space refuses any other and names both.
pub const VERSION: u16 = 4;

/// Kinds of record, [`Header::kind`].
pub mod kind {
    /// A [`super::SocketRecord`].
    pub const SOCKET: u16 = 1;
    /// A [`super::OwnersRecord`].
    pub const OWNERS: u16 = 2;
    /// A [`super::ProcessRecord`].
    pub const PROCESS: u16 = 3;
    /// A [`super::DescriptorRecord`], which the ring does not carry.
    pub const DESCRIPTOR: u16 = 4;
}

/// What was done to the socket, [`SocketRecord::op`].
pub mod op {
    /// bind()
    pub const BIND: u8 = 1;
    /// listen()
    pub const LISTEN: u8 = 2;
    /// connect()
    pub const CONNECT: u8 = 3;
    /// A port taken because a datagram was sent or the like.
    pub const AUTOBIND: u8 = 4;
    /// accept()
    pub const ACCEPT: u8 = 5;
    /// The last socket on a port has given it back: it is free for everybody again.
    pub const RELEASE: u8 = 6;
}

/// Who asked, [`SocketRecord::via`]. 0 is "not known on this backend".
pub mod via {
    /// A system call of the socket family.
    pub const SYSCALL: u8 = 1;
    /// io_uring, whichever thread ran the request.
    pub const IO_URING: u8 = 2;
    /// The kernel itself: a kernel thread, or a socket no process has a descriptor of.
    pub const KERNEL: u8 = 3;
    /// Nobody asked for a port: it came with a send.
    pub const IMPLICIT: u8 = 4;
}

/// Why an outcome is unknown, [`SocketRecord::unknown`]. 0: the outcome is known.
pub mod unknown {
    /// The socket was closed before its connection was established or refused.
    pub const CLOSED: u8 = 1;
}

/// How the last socket gave its port back, [`SocketRecord::freed`].
pub mod freed {
    /// Its program has closed it, or is gone.
    pub const CLOSED: u8 = 1;
    /// It was in TIME_WAIT, which has ended.
    pub const TIME_WAIT: u8 = 2;
    /// Its program has it still: a connect() that failed, a connection that the peer reset,
    /// connect(AF_UNSPEC).
    pub const GIVEN_BACK: u8 = 3;
}

/// What a record holds, bits of `present`.
pub mod present {
    /// `local_address`
    pub const LOCAL_ADDRESS: u32 = 1 << 0;
    /// `local_port`
    pub const LOCAL_PORT: u32 = 1 << 1;
    /// `peer_address` and `peer_port`
    pub const PEER: u32 = 1 << 2;
    /// `duration`
    pub const DURATION: u32 = 1 << 3;
    /// `cookie`
    pub const COOKIE: u32 = 1 << 4;
    /// `inode`
    pub const INODE: u32 = 1 << 5;
    /// `netns`
    pub const NETNS: u32 = 1 << 6;
    /// `socket_uid`
    pub const SOCKET_UID: u32 = 1 << 7;
    /// the option bits of `flags` that come from `struct inet_sock`
    pub const INET_FLAGS: u32 = 1 << 8;
    /// `backlog`
    pub const BACKLOG: u32 = 1 << 9;
    /// `parent`
    pub const PARENT: u32 = 1 << 10;
    /// `vpid`
    pub const VPID: u32 = 1 << 11;
    /// `start_time` and `process_key`
    pub const START_TIME: u32 = 1 << 12;
    /// `comm`
    pub const COMM: u32 = 1 << 13;
    /// `socket_type`, `protocol`, `family` and the state of the socket
    pub const SOCKET: u32 = 1 << 14;
    /// `path` of a [`super::ProcessRecord`]
    pub const PATH: u32 = 1 << 15;
    /// `args` of a [`super::ProcessRecord`]
    pub const ARGS: u32 = 1 << 16;
    /// `device`
    pub const DEVICE: u32 = 1 << 17;
    /// the option bits of `flags` that come from `struct sock_common`
    pub const SOCKET_FLAGS: u32 = 1 << 18;
    /// `references` of a [`super::FoundRecord`]
    pub const REFERENCES: u32 = 1 << 19;
    /// `noted` and `task` of a [`super::HolderRecord`]: who got the port
    pub const TAKER: u32 = 1 << 20;
    /// `noted` and `task` of a [`super::HolderRecord`] or [`super::LastRecord`]: who closed the socket
    pub const CLOSER: u32 = 1 << 21;
    /// Of a note of who had a port: the filters let that process pass, when it did. The programs' own.
    pub const FOLLOWED: u32 = 1 << 22;
}

/// Options and properties of a socket, bits of `flags`.
pub mod flags {
    /// SO_REUSEADDR
    pub const REUSEADDR: u32 = 1 << 0;
    /// SO_REUSEPORT
    pub const REUSEPORT: u32 = 1 << 1;
    /// IPV6_V6ONLY as the socket stands. The kernel sets it itself while it binds any IPv6 address
    /// but `::` (net/ipv6/af_inet6.c, `__inet6_bind`).
    pub const V6ONLY: u32 = 1 << 2;
    /// IP_FREEBIND
    pub const FREEBIND: u32 = 1 << 3;
    /// IP_TRANSPARENT
    pub const TRANSPARENT: u32 = 1 << 4;
    /// IP_BIND_ADDRESS_NO_PORT
    pub const BIND_NO_PORT: u32 = 1 << 5;
    /// The socket, or the one the caller holds, is an MPTCP socket.
    pub const MPTCP: u32 = 1 << 6;
    /// The kernel chose the port.
    pub const AUTO_PORT: u32 = 1 << 7;
    /// The walk over the owners of a port ended before the list did.
    pub const TRUNCATED: u32 = 1 << 8;
    /// Refused before the socket layer's own code ran (LSM), or by a cgroup program.
    pub const REFUSED_BY_POLICY: u32 = 1 << 9;
    /// The path is longer than what the record carries: the components at its end are here.
    pub const CUT_PATH: u32 = 1 << 10;
    /// The arguments are longer than what the record carries: their beginning is here.
    pub const CUT_ARGS: u32 = 1 << 11;
    /// The program named the port itself in bind().
    pub const CHOSE_PORT: u32 = 1 << 12;
    /// The socket came out of a listener's queue.
    pub const ACCEPTED: u32 = 1 << 13;
    /// No process ever had a descriptor of the socket.
    pub const OF_KERNEL: u32 = 1 << 14;
    /// The process that got the port has a descriptor of the socket.
    pub const HAS_IT: u32 = 1 << 15;
    /// The process whose call was refused has a descriptor of the socket.
    pub const CALLER_HAS_IT: u32 = 1 << 22;
    /// No owner of the port that may be in the way is left out of the record.
    pub const REST_APART: u32 = 1 << 23;
    /// The process that got the port is about to give it back: it has closed the last descriptor of the
    /// socket, which is not yet gone.
    pub const CLOSING: u32 = 1 << 20;
    /// All sockets on the port got it from connect(): no accepted connection is among them.
    pub const CONNECT_ONLY: u32 = 1 << 19;
    /// In FIN_WAIT2, though its state is TIME_WAIT: the kernel keeps no more of it than of such a one
    /// (net/ipv4/tcp_minisocks.c, `tcp_time_wait`).
    pub const FIN_WAIT2: u32 = 1 << 21;
    /// connect() was on its way and found no free port for the socket.
    pub const NO_PORT_LEFT: u32 = 1 << 16;
    /// The caller has CAP_NET_BIND_SERVICE in the socket's network namespace.
    pub const MAY_BIND_LOW: u32 = 1 << 17;
    /// It has not. Where neither is set, that is not known.
    pub const MAY_NOT_BIND_LOW: u32 = 1 << 18;
}

/// Why an event was lost: slots of the per-CPU map `LOST`.
pub mod loss {
    /// The ring buffer was full.
    pub const RING_FULL: u32 = 0;
    /// A table of calls in flight was full.
    pub const TABLE_FULL: u32 = 1;
    /// The socket's memory could not be read.
    pub const UNREADABLE: u32 = 2;
    /// The kernel did not run the program at the return of a call.
    pub const RETURN_MISSED: u32 = 3;
    /// All reasons together, [`super::SocketRecord::lost`].
    pub const ALL: u32 = 4;
    /// Number of slots.
    pub const SLOTS: u32 = 5;
}

/// The start of every record.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// [`VERSION`]
    pub version: u16,
    /// One of [`kind`].
    pub kind: u16,
    /// Length of the whole record in bytes, this header included.
    pub len: u32,
}

/// The task that made the call, as the kernel had it at that moment.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct TaskRecord {
    /// CLOCK_BOOTTIME at which the process started, ns.
    pub start_time: u64,
    /// Identifies process and executable together: changes at exec, differs after pid reuse.
    /// Joins a socket record to a [`ProcessRecord`]. Opaque.
    pub process_key: u64,
    /// Id of the cgroup (v2 hierarchy): the inode of its directory.
    pub cgroup: u64,
    /// Process id in the initial pid namespace.
    pub tgid: u32,
    /// Thread id in the initial pid namespace.
    pub tid: u32,
    /// Process id of the parent in the initial pid namespace.
    pub parent: u32,
    /// Process id in its own pid namespace.
    pub vpid: u32,
    /// Real user id in the initial user namespace.
    pub uid: u32,
    /// Must be 0.
    pub reserved: u32,
    /// The kernel's task name, NUL-padded.
    pub comm: [u8; 16],
}

/// One bind, listen, connect, autobind or accept with its outcome, or a release.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SocketRecord {
    /// Version, kind, length.
    pub header: Header,
    /// CLOCK_BOOTTIME when the outcome was known, ns.
    pub time: u64,
    /// Time the call took, ns; of a release the time for which the port was held.
    pub duration: u64,
    /// Socket cookie, as sock_diag shows it.
    pub cookie: u64,
    /// Inode of the socket file.
    pub inode: u64,
    /// Caller; of a release who had the port last, zeros where that is not known.
    pub task: TaskRecord,
    /// Bits of [`present`].
    pub present: u32,
    /// Bits of [`flags`].
    pub flags: u32,
    /// 0 on success, else the positive errno.
    pub error: u32,
    /// Inode of the network namespace.
    pub netns: u32,
    /// Owner of the socket (`sk_uid`).
    pub socket_uid: u32,
    /// Interface index the socket is bound to, 0 for none.
    pub device: u32,
    /// Backlog given to listen().
    pub backlog: u32,
    /// Events lost so far on the CPU this record was written on (all reasons): user space sees from
    /// the difference where in the stream the gap is.
    pub lost: u32,
    /// Local address, network byte order; IPv4 in the first four bytes.
    pub local_address: [u8; 16],
    /// Peer address, likewise.
    pub peer_address: [u8; 16],
    /// Local port, host byte order.
    pub local_port: u16,
    /// Peer port, host byte order.
    pub peer_port: u16,
    /// Address family of the socket: AF_INET or AF_INET6.
    pub family: u16,
    /// Address family of the addresses above, which a caller may have got wrong.
    pub address_family: u16,
    /// IPPROTO_*
    pub protocol: u16,
    /// CPU the record was written on.
    pub cpu: u16,
    /// One of [`op`].
    pub op: u8,
    /// One of [`via`].
    pub via: u8,
    /// One of [`unknown`].
    pub unknown: u8,
    /// How an attempt stands that waits in the kernel: the programs' own, nothing to readers.
    pub phase: u8,
    /// The port that the socket had when bind() was refused, host byte order; 0 for none.
    pub bound_port: u16,
    /// One of [`freed`], of a release.
    pub freed: u8,
    /// Must be 0.
    pub reserved: u8,
    /// IP_LOCAL_PORT_RANGE of the socket whose call was refused, the upper end in the upper half; 0 where it
    /// has none.
    pub own_range: u32,
}

/// A socket as it stands in the kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FoundRecord {
    /// Socket cookie; not present when the kernel had not yet given one.
    pub cookie: u64,
    /// Inode of the socket file.
    pub inode: u64,
    /// Bits of [`present`].
    pub present: u32,
    /// Bits of [`flags`].
    pub flags: u32,
    /// Owner of the socket.
    pub socket_uid: u32,
    /// Interface index the socket is bound to, 0 for none.
    pub device: u32,
    /// Local address as in [`SocketRecord`].
    pub local_address: [u8; 16],
    /// Peer address.
    pub peer_address: [u8; 16],
    /// Local port.
    pub local_port: u16,
    /// Peer port.
    pub peer_port: u16,
    /// AF_INET or AF_INET6.
    pub family: u16,
    /// IPPROTO_*
    pub protocol: u16,
    /// TCP state (include/net/tcp_states.h), also of UDP sockets.
    pub state: u8,
    /// Must be 0.
    pub reserved: [u8; 3],
    /// References to the open file: one for each entry of a descriptor table, and for each system
    /// call that is at work on it.
    pub references: u32,
}

/// A socket found in the kernel's hash under the port that was asked for.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HolderRecord {
    /// The socket.
    pub found: FoundRecord,
    /// When it got the port or, of what nobody has open, was closed, CLOCK_BOOTTIME, ns.
    pub noted: u64,
    /// Who did that, as the process was then: see [`present::TAKER`], [`present::CLOSER`].
    pub task: TaskRecord,
    /// What that process is now, with [`flags::HAS_IT`] and [`flags::CLOSING`].
    pub now: NowRecord,
}

/// What may have changed of a process since it got a port.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NowRecord {
    /// As in [`TaskRecord`]: another one after exec.
    pub process_key: u64,
    /// Real user id.
    pub uid: u32,
    /// Process id of the parent in the initial pid namespace.
    pub parent: u32,
    /// The kernel's name of the main thread, NUL-padded.
    pub comm: [u8; 16],
}

/// Holders that a record carries at most.
pub const MAX_HOLDERS: usize = 8;

/// Classes that the walk sorts owners into: listening, bound, client or accepted, the rest, and those
/// whose address cannot be in the way.
pub const HOLDER_CLASSES: usize = 5;

/// Words of scratch: eight candidates and a count for each class, and where the walks stand.
pub const SCRATCH: usize = (MAX_HOLDERS + 1) * HOLDER_CLASSES + 11;

/// The last socket without a peer (listening, bound) that was closed on a port.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct LastRecord {
    /// When, CLOCK_BOOTTIME, ns.
    pub closed: u64,
    /// Its addresses in a word: of IPv4 that of the peer and, in the upper half, the local one, as they lie
    /// in memory; of IPv6 the halves of each XORed, the local one's rotated by 32 bits, both XORed. The
    /// peer's is 0 here.
    pub addresses: u64,
    /// Bits of [`present`]: [`present::CLOSER`] where there is one.
    pub present: u32,
    /// Must be 0.
    pub reserved: u32,
    /// Who closed it, as the process was then.
    pub task: TaskRecord,
}

/// The owners of a port, sent ahead of the socket record of the refused bind or listen by the same
/// thread.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct OwnersRecord {
    /// Version, kind, length.
    pub header: Header,
    /// The thread whose call was refused.
    pub tid: u32,
    /// Owners of the port seen, at least.
    pub total: u32,
    /// How many `holders` are filled in.
    pub count: u32,
    /// [`flags::TRUNCATED`], [`flags::CONNECT_ONLY`], [`flags::REST_APART`]
    pub flags: u32,
    /// Who had the port last.
    pub last: LastRecord,
    /// The first `count` are filled in.
    pub holders: [HolderRecord; MAX_HOLDERS],
    /// Scratch of the walk: zero when the record is submitted.
    pub scratch: [u64; SCRATCH],
}

/// A descriptor of a socket that has ports, as the iterator over all descriptor tables comes by it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DescriptorRecord {
    /// Version, kind, length.
    pub header: Header,
    /// Process id in the pid namespace of whoever reads.
    pub pid: u32,
    /// Number of the descriptor.
    pub fd: u32,
    /// Inode of the network namespace.
    pub netns: u32,
    /// 1: not in the table of the main thread, which is the one that `/proc/PID/fd` shows, but in that
    /// of another thread.
    pub of_thread: u32,
    /// The socket; inside an MPTCP one the first TCP socket, if there is one.
    pub found: FoundRecord,
}

/// Bytes of path that a [`ProcessRecord`] carries at most.
pub const PATH_LEN: usize = 512;
/// Longest single path component that is copied whole.
pub const NAME_LEN: usize = 256;
/// Bytes of arguments that a [`ProcessRecord`] carries at most.
pub const ARGS_LEN: usize = 1024;

/// A process, sent once ahead of its first event.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ProcessRecord {
    /// Version, kind, length.
    pub header: Header,
    /// The process; `tid` is the thread that was seen first.
    pub task: TaskRecord,
    /// Bits of [`present`].
    pub present: u32,
    /// Bits of [`flags`].
    pub flags: u32,
    /// Bytes used of `path`.
    pub path_len: u32,
    /// Bytes used of `args`.
    pub args_len: u32,
    /// Scratch of the climb: zero when the record is submitted.
    pub scratch: [u64; 4],
    /// Path of the executable: components from the file upwards, each ended by NUL.
    pub path: [u8; PATH_LEN + NAME_LEN],
    /// Arguments, each ended by NUL.
    pub args: [u8; ARGS_LEN],
}

const _: () = assert!(size_of::<Header>() == 8);
const _: () = assert!(size_of::<TaskRecord>() == 64);
const _: () = assert!(size_of::<SocketRecord>() == 192);
const _: () = assert!(size_of::<FoundRecord>() == 80);
const _: () = assert!(size_of::<HolderRecord>() == 80 + 104);
const _: () = assert!(size_of::<DescriptorRecord>() == 8 + 16 + 80);
const _: () = assert!(size_of::<LastRecord>() == 88);
const _: () = assert!(size_of::<OwnersRecord>() == 24 + 88 + 8 * 184 + 448);
const _: () = assert!(size_of::<ProcessRecord>() == 8 + 64 + 16 + 32 + 768 + 1024);
