//! What stood in the way of a call: the sockets as the kernel had them, and the verdict on them.

use std::{ops::RangeInclusive, sync::Arc};

use super::{Endpoint, Family, PortFacts, Process, Socket, Task, Time, Transport};

/// A socket found under the port that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Transport.
    pub transport: Transport,
    /// Family.
    pub family: Family,
    /// TCP state, also of UDP sockets.
    pub state: TcpState,
    /// Local end.
    pub local: Endpoint,
    /// Peer, of connected sockets.
    pub peer: Option<Endpoint>,
    /// Identity and options.
    pub socket: Socket,
    /// The program named the port itself in bind(); otherwise the kernel chose it, or a listener
    /// passed it on.
    pub chose_port: bool,
    /// It came out of a listener's queue.
    pub accepted: bool,
    /// No process ever had a descriptor of it.
    pub of_kernel: bool,
    /// A connection of which the kernel keeps no more than of one in TIME_WAIT, to which its rules take it
    /// for one: in FIN_WAIT2 too (net/ipv4/tcp_minisocks.c, `tcp_time_wait`).
    pub remnant: bool,
    /// References to its open file at that moment: one for each descriptor table entry, and for
    /// each system call that is at work on it. `None` where there is no file.
    pub references: Option<u32>,
    /// The process whose call was refused had a descriptor of it then.
    pub caller_has_it: bool,
    /// Who got the port for it.
    pub taker: Option<Box<Taker>>,
    /// Who closed it, of a connection that no process has open any more.
    pub closer: Option<Box<Closer>>,
}

impl Holder {
    /// A socket of which no more is known than this.
    #[must_use]
    pub fn new(transport: Transport, family: Family, state: TcpState, local: Endpoint) -> Self {
        Self {
            transport,
            family,
            state,
            local,
            peer: None,
            socket: Socket::default(),
            chose_port: false,
            accepted: false,
            of_kernel: false,
            remnant: false,
            references: None,
            caller_has_it: false,
            taker: None,
            closer: None,
        }
    }
}

/// Who got the port for a socket, as the kernel's programs noted it then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taker {
    /// The process, as it was then.
    pub task: Task,
    /// When, CLOCK_BOOTTIME, ns.
    pub time_boot: u64,
    /// The process as it was when the other call was refused, if it had a descriptor of the socket
    /// then, or was closing it.
    pub has_it: Option<Task>,
}

/// Who closed a socket, as the kernel's programs noted it then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closer {
    /// The process, as it was then.
    pub task: Task,
    /// When it closed the last descriptor, CLOCK_BOOTTIME, ns.
    pub time_boot: u64,
}

/// Who last closed a socket without a peer on a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Last {
    /// Who, and when.
    pub closer: Closer,
    /// The local address of the socket, folded as [`LastRecord`] says.
    ///
    /// [`LastRecord`]: portwatch_ebpf::abi::record::LastRecord::addresses
    pub addresses: u64,
}

/// TCP states (include/net/tcp_states.h), named as OpenTelemetry's `network.connection.state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the states of RFC 9293")]
pub enum TcpState {
    Established = 1,
    SynSent = 2,
    SynReceived = 3,
    FinWait1 = 4,
    FinWait2 = 5,
    TimeWait = 6,
    Closed = 7,
    CloseWait = 8,
    LastAck = 9,
    Listen = 10,
    Closing = 11,
    NewSynReceived = 12,
    BoundInactive = 13,
}

impl TcpState {
    /// From the kernel's number.
    #[must_use]
    pub const fn from_kernel(state: u8) -> Option<Self> {
        Some(match state {
            1 => Self::Established,
            2 => Self::SynSent,
            3 => Self::SynReceived,
            4 => Self::FinWait1,
            5 => Self::FinWait2,
            6 => Self::TimeWait,
            7 => Self::Closed,
            8 => Self::CloseWait,
            9 => Self::LastAck,
            10 => Self::Listen,
            11 => Self::Closing,
            12 => Self::NewSynReceived,
            13 => Self::BoundInactive,
            _ => return None,
        })
    }

    /// OpenTelemetry's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::SynSent => "syn_sent",
            Self::SynReceived | Self::NewSynReceived => "syn_received",
            Self::FinWait1 => "fin_wait_1",
            Self::FinWait2 => "fin_wait_2",
            Self::TimeWait => "time_wait",
            Self::Closed | Self::BoundInactive => "closed",
            Self::CloseWait => "close_wait",
            Self::LastAck => "last_ack",
            Self::Listen => "listen",
            Self::Closing => "closing",
        }
    }
}

/// The owners of a port at the moment a call was refused, as far as the kernel's programs saw them:
/// not each of them need be in the way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conflict {
    /// Listeners first, then bound, then clients, then the rest.
    pub holders: Vec<Holder>,
    /// Owners of the port seen.
    pub total: u32,
    /// Whether the walk was cut short.
    pub truncated: bool,
    /// Those that are left out of `holders` cannot be in the way.
    pub rest_apart: bool,
    /// All of them got the port from connect(): none is an accepted connection.
    pub connect_only: bool,
    /// Who last closed a socket on the port that had no peer: listening or bound.
    pub last: Option<Box<Last>>,
}

impl Conflict {
    /// Whether all owners that may be in the way are among the holders.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let kept = u32::try_from(self.holders.len()).unwrap_or(u32::MAX);
        !self.truncated && (self.rest_apart || self.total <= kept)
    }
}

/// What stood in the way (`conflict.kind`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A socket that listens.
    Listener,
    /// One that is bound and does not listen.
    Bound,
    /// One whose port is the source of an outgoing connection.
    Client,
    /// A connection that came in.
    Accepted,
    /// A connection on its way out: FIN_WAIT, CLOSE_WAIT, LAST_ACK and the like.
    Closing,
    /// A connection that ended lately (RFC 9293, 3.6.1).
    TimeWait,
    /// A socket that no process owns.
    Kernel,
    /// The holder had closed by the time it was looked up.
    Gone,
    /// No automatic port was left.
    Exhausted,
    /// The socket itself is bound already.
    AlreadyBound,
    /// The port needs CAP_NET_BIND_SERVICE.
    Privileged,
    /// No interface has the address.
    NotLocal,
    /// A cgroup program or a security module.
    Policy,
    /// Not known.
    Unknown,
}

impl Kind {
    /// The name in the output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Listener => "listener",
            Self::Bound => "bound",
            Self::Client => "client",
            Self::Accepted => "accepted",
            Self::Closing => "closing",
            Self::TimeWait => "time_wait",
            Self::Kernel => "kernel",
            Self::Gone => "gone",
            Self::Exhausted => "exhausted",
            Self::AlreadyBound => "already_bound",
            Self::Privileged => "privileged",
            Self::NotLocal => "not_local",
            Self::Policy => "policy",
            Self::Unknown => "unknown",
        }
    }
}

/// How the addresses of two sockets on a port overlap (`conflict.overlap`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Overlap {
    /// They are the same; a v4-mapped IPv6 address is the IPv4 one.
    Exact,
    /// One is the wildcard of the family of the other.
    Wildcard,
    /// One is `::` and takes IPv4 too, the other an IPv4 address.
    DualStack,
}

impl Overlap {
    /// The name in the output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Wildcard => "wildcard",
            Self::DualStack => "dual_stack",
        }
    }
}

/// What kept two sockets with overlapping addresses from sharing a port (`conflict.reason`): the least
/// that would have to be different. "Self" is the socket that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Neither has SO_REUSEADDR or SO_REUSEPORT.
    NoReuse,
    /// The holder has SO_REUSEADDR; self would need it too, and that would do.
    ReuseMissingSelf,
    /// Self has SO_REUSEADDR; the holder would need it too, and that would do.
    ReuseMissingHolder,
    /// One side has only SO_REUSEADDR, the other only SO_REUSEPORT.
    ReuseMismatch,
    /// The holder listens, so SO_REUSEADDR of either side does not count.
    ReuseListening,
    /// The holder has SO_REUSEPORT, self would need it too.
    ReuseportMissingSelf,
    /// Self has SO_REUSEPORT, the holder would need it too.
    ReuseportMissingHolder,
    /// Both have SO_REUSEPORT, but belong to different users.
    ReuseportUid,
}

impl Reason {
    /// The name in the output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoReuse => "no_reuse",
            Self::ReuseMissingSelf => "reuse_missing_self",
            Self::ReuseMissingHolder => "reuse_missing_holder",
            Self::ReuseMismatch => "reuse_mismatch",
            Self::ReuseListening => "reuse_listening",
            Self::ReuseportMissingSelf => "reuseport_missing_self",
            Self::ReuseportMissingHolder => "reuseport_missing_holder",
            Self::ReuseportUid => "reuseport_uid",
        }
    }
}

/// Why a call was refused (`conflict`), as far as the event itself tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What stood in the way; of several sockets the first.
    pub kind: Kind,
    /// Of the first socket.
    pub overlap: Option<Overlap>,
    /// Of the first socket.
    pub reason: Option<Reason>,
    /// Whether a bound device took part; `None` where no socket is in the way.
    pub device: Option<bool>,
    /// The sockets in the way, in the contract's order.
    pub culprits: Vec<Culprit>,
    /// Owners of the port that the kernel's programs saw, in the way or not.
    pub total: u32,
    /// Whether they could not look at all of them.
    pub truncated: bool,
}

/// A socket in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Culprit {
    /// The socket.
    pub holder: Holder,
    /// What it is.
    pub kind: Kind,
    /// How its address overlaps with the one asked for; `None` where its options are not known.
    pub overlap: Option<Overlap>,
    /// By which rule it does not share; `None` where its options are not known.
    pub reason: Option<Reason>,
}

/// A [`Verdict`] joined with names.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// What stood in the way.
    pub verdict: Verdict,
    /// What is known of each of the verdict's culprits, in their order.
    pub owners: Vec<Owner>,
    /// What was found out besides.
    pub findings: Findings,
    /// What happened, in one line of words.
    pub message: String,
    /// What to do about it, in one line of words.
    pub hint: Option<String>,
}

/// What was found out about a refusal in which no other socket is in the way.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Findings {
    /// Of [`Kind::Exhausted`].
    pub exhausted: Option<Exhausted>,
    /// Of [`Kind::NotLocal`]: the interfaces that have the address (`conflict.interfaces`). `None` where
    /// they could not be asked for.
    pub interfaces: Option<Vec<Bearer>>,
    /// Name of the device that the socket is bound to.
    pub device: Option<String>,
    /// Of [`Kind::Policy`].
    pub policy: Option<Policy>,
    /// Of [`Kind::Gone`]: who closed a socket on the port while the call was on its way.
    pub gone: Option<Departure>,
}

/// Who may have refused by policy (`conflict.policy`).
#[derive(Clone, Debug, PartialEq)]
pub enum Policy {
    /// A security module: its hook was seen to refuse.
    Module,
    /// A cgroup program; these are asked. The second value: it was one of them, and no security module.
    Programs(Vec<PolicyProgram>, bool),
    /// A cgroup program or a security module. Which programs there are could not be read.
    Unread,
}

/// A program on the cgroup of a process or above (`conflict.policy.programs[]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyProgram {
    /// The kernel's id of it.
    pub id: u32,
    /// Its name, of at most 15 bytes.
    pub name: Option<String>,
    /// Where it stands, by bpftool's name.
    pub attach_type: &'static str,
    /// Path of its cgroup.
    pub cgroup: String,
}

/// An interface that has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bearer {
    /// Its name.
    pub name: String,
    /// How the address stands there.
    pub state: AddressState,
}

/// Whether an address can be used (`conflict.interfaces[].state`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressState {
    /// It can.
    Usable,
    /// IPv6 has not finished to look whether another machine has it (RFC 4862, 5.4).
    Tentative,
    /// Another machine has it.
    DadFailed,
}

impl AddressState {
    /// The name in the output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Usable => "usable",
            Self::Tentative => "tentative",
            Self::DadFailed => "dad_failed",
        }
    }
}

/// Who has a socket.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Owner {
    /// Since when it has the port.
    pub since: Option<Time>,
    /// Every process with a descriptor, creator first, pid 1 last.
    pub processes: Vec<Occupant>,
    /// Not all processes could be looked at: there may be more.
    pub incomplete: bool,
    /// The parent of the first of them, where it is a supervisor, which would start that again.
    pub parent: Option<Box<Occupant>>,
    /// Who got the port for it.
    pub creator: Option<Box<Creator>>,
    /// Who closed it, of a connection that no process has open any more.
    pub closer: Option<Box<Departure>>,
    /// When TIME_WAIT ends.
    pub expires: Option<Time>,
    /// Port names and classes of the local end.
    pub local: PortFacts,
    /// Port names and classes of the peer.
    pub peer: PortFacts,
    /// Name of the bound device.
    pub interface: Option<String>,
    /// The unit that the socket belongs to: of pid 1 the `.socket` unit.
    pub systemd_unit: Option<String>,
}

/// A process with names.
#[derive(Clone, Debug, PartialEq)]
pub struct Occupant {
    /// The process as the kernel has it.
    pub task: Task,
    /// The rest.
    pub process: Arc<Process>,
}

/// Who got the port.
#[derive(Clone, Debug, PartialEq)]
pub struct Creator {
    /// The process.
    pub occupant: Occupant,
    /// It is no longer there.
    pub exited: bool,
}

/// Who closed a socket.
#[derive(Clone, Debug, PartialEq)]
pub struct Departure {
    /// The process.
    pub occupant: Occupant,
    /// It is no longer there.
    pub exited: bool,
    /// When it closed the last descriptor.
    pub closed: Time,
}

/// No automatic port was left (`conflict.exhausted`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exhausted {
    /// The range that ports are taken from, ends included.
    pub range: Option<RangeInclusive<u16>>,
    /// It is the socket's own (IP_LOCAL_PORT_RANGE), not that of its network namespace.
    pub range_of_socket: bool,
    /// Ports of the range that only those get who name them (`ip_local_reserved_ports`).
    pub reserved: Option<u32>,
    /// What has none left.
    pub scope: Option<Scope>,
    /// Ports of the range that are used in that scope; reserved ones do not count.
    pub used: Option<u32>,
    /// Those of them that only connections in TIME_WAIT use.
    pub time_wait: Option<u32>,
    /// Those of them that no connection gets, wherever it leads: they are bound. Of [`Scope::Tuple`].
    pub bound: Option<u32>,
    /// Who has most of them.
    pub top: Vec<Consumer>,
    /// Of each socket it is known who has it.
    pub top_is_whole: bool,
}

impl Exhausted {
    /// Ports of the range.
    #[must_use]
    pub fn size(&self) -> Option<u32> {
        let range = self.range.as_ref()?;
        Some(u32::from(range.end().checked_sub(*range.start())?) + 1)
    }

    /// Ports of the range that are given out.
    #[must_use]
    pub fn available(&self) -> Option<u32> {
        self.size()?.checked_sub(self.reserved?)
    }

    /// Whether no port of the range is for connections.
    #[must_use]
    pub fn is_all_bound(&self) -> bool {
        let counts = self.bound.zip(self.available());
        counts.is_some_and(|(bound, available)| bound >= available)
    }
}

/// A process with ports of an exhausted range.
#[derive(Clone, Debug, PartialEq)]
pub struct Consumer {
    /// The process.
    pub occupant: Occupant,
    /// How many of the ports it has.
    pub count: u32,
}

/// Of what the ports are used up (`conflict.exhausted.scope`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// A local address: bind, listen, UDP.
    Address,
    /// Local address, peer address and peer port: connect.
    Tuple,
}

impl Scope {
    /// The name in the output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Tuple => "tuple",
        }
    }
}
