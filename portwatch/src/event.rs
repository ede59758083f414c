//! The domain: what happened to a port. No I/O, nothing of the wire, nothing of the output formats.
//!
//! A kernel record decodes to an [`Event`] (raw facts), `enrich` joins it with names to a
//! [`Sighting`], and the sinks print that. Recorded and live streams carry the same [`Item`]s.

mod checked;
mod conflict;
mod descriptor;
mod listing;
mod missed;
mod name;
mod program;
pub mod range;
mod warning;
mod word;

use std::{net::IpAddr, ops::RangeInclusive, sync::Arc};

pub use checked::*;
pub use conflict::*;
pub use descriptor::Descriptor;
pub use listing::Listing;
pub use missed::Missed;
pub use name::name;
pub use program::identity;
pub use warning::*;
pub use word::Word;

/// What the stream consists of, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// Every hook is attached.
    Start(Start),
    /// Something happened to a port.
    Event(Box<Sighting>),
    /// Events that the kernel could not hand over, at this place in the stream.
    Lost(Lost),
    /// The trace is over.
    End(End),
}

/// The first item of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// Version of portwatch.
    pub version: String,
    /// `uname -r`.
    pub kernel_release: String,
    /// Name of the host.
    pub host_name: String,
    /// The way into the kernel.
    pub backend: Backend,
    /// What this backend cannot see, in words.
    pub degraded: Vec<String>,
    /// When.
    pub time: Time,
}

/// A gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// How many events are missing.
    pub count: u64,
    /// Why.
    pub reason: LostReason,
    /// When it was noticed.
    pub time: Time,
}

/// Why events were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LostReason {
    /// The ring buffer was full.
    RingFull,
    /// A table of calls in flight was full.
    TableFull,
    /// The kernel skipped a program because it was already running on that CPU.
    Recursion,
    /// The kernel did not run the program at the return of a call: too many at once.
    ReturnMissed,
    /// The socket's memory could not be read.
    Unreadable,
    /// A record did not decode.
    Malformed,
    /// There was no room for it where it was to be kept.
    StoreFull,
}

impl LostReason {
    /// The name in the output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RingFull => "ring_full",
            Self::TableFull => "table_full",
            Self::Recursion => "recursion",
            Self::ReturnMissed => "return_missed",
            Self::Unreadable => "unreadable",
            Self::Malformed => "malformed",
            Self::StoreFull => "store_full",
        }
    }
}

/// The last item of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Events printed.
    pub events: u64,
    /// Of these, failures.
    pub failures: u64,
    /// Events lost.
    pub lost: u64,
    /// When.
    pub time: Time,
}

/// One moment on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time {
    /// CLOCK_BOOTTIME, ns.
    pub boot: u64,
    /// UTC.
    pub utc: jiff::Timestamp,
}

/// The way into the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Backend {
    /// fentry, fexit and BTF tracepoints.
    Tracing,
    /// kprobes and kretprobes.
    Kprobe,
    /// Raw tracepoints alone.
    RawTp,
}

impl Backend {
    /// The name in options and output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tracing => "tracing",
            Self::Kprobe => "kprobe",
            Self::RawTp => "raw_tp",
        }
    }
}

/// What was done to the socket (`event.name`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Op {
    /// bind()
    Bind,
    /// listen()
    Listen,
    /// connect()
    Connect,
    /// A port taken on the way, by sending a datagram or the like.
    Autobind,
    /// accept()
    Accept,
    /// A port is free for everybody again.
    Release,
}

impl Op {
    /// Those of a trace that names none (`-e`).
    pub const USUAL: [Self; 4] = [Self::Bind, Self::Listen, Self::Connect, Self::Autobind];

    /// All of them, in the order of the help text.
    pub const ALL: [Self; 6] = [
        Self::Bind,
        Self::Listen,
        Self::Connect,
        Self::Autobind,
        Self::Accept,
        Self::Release,
    ];

    /// The name in options and output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Listen => "listen",
            Self::Connect => "connect",
            Self::Autobind => "autobind",
            Self::Accept => "accept",
            Self::Release => "release",
        }
    }
}

/// How it ended (`event.outcome`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It worked.
    Success,
    /// Refused with this errno.
    Failure(Errno),
    /// Nobody will know.
    Unknown(UnknownReason),
}

impl Outcome {
    /// Whether it failed. An unknown outcome is not a failure.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        matches!(self, Self::Failure(_))
    }
}

/// Why an outcome is unknown (`event.reason`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnknownReason {
    /// Closed before the connection was established or refused.
    Closed,
    /// Still open when the trace ended.
    TraceEnded,
}

/// How the last socket on a port gave it back (`event.reason` of a release).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Freed {
    /// Its program has closed it, or is gone.
    Closed,
    /// It was in TIME_WAIT, which has ended: it has run out, or was cut short.
    TimeWait,
    /// Its program has it still: a connect() that failed, a connection that the peer reset,
    /// connect(AF_UNSPEC).
    GivenBack,
}

impl Freed {
    /// The name in the output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::TimeWait => "time_wait",
            Self::GivenBack => "given_back",
        }
    }
}

/// A positive error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Errno(pub u32);

/// Who asked (`event.via`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Via {
    /// A system call.
    Syscall,
    /// io_uring.
    IoUring,
    /// The kernel itself.
    Kernel,
    /// Nobody: it came with a send, or with the end of a socket.
    Implicit,
}

impl Via {
    /// The name in the output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Syscall => "syscall",
            Self::IoUring => "io_uring",
            Self::Kernel => "kernel",
            Self::Implicit => "implicit",
        }
    }
}

/// Transport protocol (`network.transport`). MPTCP is [`Transport::Tcp`] with
/// [`SocketOptions::mptcp`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// UDP-Lite
    UdpLite,
    /// SCTP
    Sctp,
    /// DCCP
    Dccp,
}

impl Transport {
    /// The name in the output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::UdpLite => "udplite",
            Self::Sctp => "sctp",
            Self::Dccp => "dccp",
        }
    }
}

/// Family of the socket (`network.type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// AF_INET
    Ipv4,
    /// AF_INET6
    Ipv6,
}

impl Family {
    /// The name in the output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        }
    }
}

/// An end of a socket; each half absent where it is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// IP address. A v4-mapped one is IPv6 here, as the socket has it.
    pub address: Option<IpAddr>,
    /// Port.
    pub port: Option<u16>,
}

/// The options of a socket as they stood at that moment; `None` where they could not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SocketOptions {
    /// SO_REUSEADDR
    pub reuseaddr: Option<bool>,
    /// SO_REUSEPORT
    pub reuseport: Option<bool>,
    /// IPV6_V6ONLY; set by the kernel itself on a socket bound to any IPv6 address but `::`.
    /// `None` on IPv4 sockets.
    pub v6only: Option<bool>,
    /// IP_FREEBIND
    pub freebind: Option<bool>,
    /// IP_TRANSPARENT
    pub transparent: Option<bool>,
    /// IP_BIND_ADDRESS_NO_PORT
    pub bind_no_port: Option<bool>,
    /// Multipath TCP
    pub mptcp: Option<bool>,
}

/// Identity and properties of a socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Socket {
    /// Cookie as sock_diag has it.
    pub cookie: Option<u64>,
    /// Inode of the socket file.
    pub inode: Option<u64>,
    /// Inode of the network namespace.
    pub netns: Option<u32>,
    /// Interface index it is bound to.
    pub device: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Options.
    pub options: SocketOptions,
}

/// The task that made the call, as the kernel had it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Task {
    /// Process id; 0 is nobody's (see [`Event::has_process`]).
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// Parent's process id.
    pub parent_pid: Option<u32>,
    /// Process id in its own pid namespace.
    pub vpid: Option<u32>,
    /// Real user id.
    pub uid: u32,
    /// Task name; kernel bytes, made valid UTF-8.
    pub comm: Option<String>,
    /// CLOCK_BOOTTIME at start, ns.
    pub start_boot: Option<u64>,
    /// Identifies process and executable together; joins with [`ProcessImage::key`].
    pub key: Option<u64>,
    /// Id of the cgroup.
    pub cgroup: Option<u64>,
}

/// The executable of a process, sent by the kernel ahead of the process's first event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessImage {
    /// See [`Task::key`].
    pub key: u64,
    /// Process id.
    pub pid: u32,
    /// Path of the executable.
    pub executable_path: Option<String>,
    /// The path was longer than the record: only its end is here, without a leading `/`.
    pub path_cut: bool,
    /// Arguments, the program's name first.
    pub args: Option<Vec<String>>,
    /// The arguments were longer than the record: only their beginning is here.
    pub args_cut: bool,
}

/// One bind, listen, connect, autobind, accept or release as the kernel reported it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// CLOCK_BOOTTIME when the outcome was known, ns.
    pub time_boot: u64,
    /// Time the call took, ns.
    pub duration: Option<u64>,
    /// What was done.
    pub op: Op,
    /// How it ended.
    pub outcome: Outcome,
    /// Who asked.
    pub via: Option<Via>,
    /// Transport.
    pub transport: Transport,
    /// Family of the socket.
    pub family: Family,
    /// On success what the kernel gave, on failure what was asked for.
    pub local: Endpoint,
    /// connect and accept only.
    pub peer: Option<Endpoint>,
    /// The kernel chose the port.
    pub auto_port: bool,
    /// listen only.
    pub backlog: Option<u32>,
    /// Identity and options of the socket.
    pub socket: Socket,
    /// release only: how the last socket gave the port back.
    pub freed: Option<Freed>,
    /// release only: how long the port was held, ns.
    pub held: Option<u64>,
    /// The caller; of a release who had the port last.
    pub task: Task,
    /// A security module's hook was seen to refuse; a system call's result alone does not tell.
    pub refused_by_policy: bool,
    /// Where permission was refused: whether the caller has CAP_NET_BIND_SERVICE in the socket's
    /// network namespace.
    pub may_bind_low: Option<bool>,
    /// connect() found no port for the socket, neither any other reason to fail.
    pub no_port_left: bool,
    /// The port that the socket had already when bind() was refused.
    pub bound_port: Option<u16>,
    /// IP_LOCAL_PORT_RANGE of a socket whose call was refused, as it was set: 0 leaves an end open.
    pub own_range: Option<RangeInclusive<u16>>,
    /// On EADDRINUSE.
    pub conflict: Option<Conflict>,
}

impl Event {
    /// Whether the process is known: not of each release, nor of what the kernel has put off and does in a
    /// thread that only happens to run (further connections of MPTCP).
    #[must_use]
    pub fn has_process(&self) -> bool {
        let may_be_nobodys = self.op == Op::Release || self.via == Some(Via::Kernel);
        !may_be_nobodys || self.task.pid != 0
    }
}

/// An [`Event`] joined with everything user space knows about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sighting {
    /// What the kernel reported. In the box it was decoded into: it is large.
    pub event: Box<Event>,
    /// When.
    pub time: Time,
    /// The caller, enriched.
    pub process: Arc<Process>,
    /// Port names and classes of the local end.
    pub local: PortFacts,
    /// Port names and classes of the peer.
    pub peer: PortFacts,
    /// Name of the bound device or scope.
    pub interface: Option<String>,
    /// Why it was refused, where something stood in the way.
    pub explanation: Option<Arc<Explanation>>,
    /// What is dangerous about it though it worked.
    pub warning: Option<Box<Warning>>,
    /// What should be there and could not be read: contract paths, sorted.
    pub missing: Vec<&'static str>,
}

/// What is known of a port number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PortFacts {
    /// From the services database.
    pub service: Option<Arc<str>>,
    /// IANA's class.
    pub class: Option<PortClass>,
    /// Inside `ip_local_port_range` of the socket's network namespace.
    pub ephemeral: Option<bool>,
}

/// IANA's port classes (RFC 6335, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PortClass {
    /// 0 to 1023
    WellKnown,
    /// 1024 to 49151
    Registered,
    /// 49152 to 65535
    Dynamic,
}

impl PortClass {
    /// The class of a port.
    #[must_use]
    pub const fn of(port: u16) -> Self {
        match port {
            0..=1023 => Self::WellKnown,
            1024..=49151 => Self::Registered,
            _ => Self::Dynamic,
        }
    }

    /// The name in the output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WellKnown => "well_known",
            Self::Registered => "registered",
            Self::Dynamic => "dynamic",
        }
    }
}

/// What is known of a process beyond [`Task`]; shared by its events. Fields are `None` where not
/// known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Path of the executable, ` (deleted)` taken off.
    pub executable_path: Option<String>,
    /// Arguments.
    pub args: Option<Vec<String>>,
    /// Start, UTC.
    pub creation: Option<jiff::Timestamp>,
    /// Name of the user, absent with `--numeric`.
    pub user_name: Option<Arc<str>>,
    /// Path in the cgroup v2 hierarchy.
    pub cgroup: Option<String>,
    /// Container it runs in.
    pub container: Option<Container>,
    /// systemd unit.
    pub systemd_unit: Option<String>,
}

impl Process {
    /// Base name of the executable.
    #[must_use]
    pub fn executable_name(&self) -> Option<&str> {
        self.executable_path
            .as_deref()
            .and_then(|path| path.rsplit('/').next())
            .filter(|name| !name.is_empty())
    }
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Container {
    /// Full id.
    pub id: String,
    /// `docker`, `containerd`, `cri-o`, `podman`, `lxc`, …
    pub runtime: Option<&'static str>,
}
