//! The arguments of `trace`.

use std::{ffi::OsString, ops::RangeInclusive, path::PathBuf, time::Duration};

use clap::{
    Args, ValueEnum,
    builder::{
        NonEmptyStringValueParser, PossibleValuesParser, TypedValueParser as _, ValueParser,
    },
};

use super::{help, parse};
use crate::event::{Backend, Op};

/// What was typed after `trace`; [`TraceArgs::resolve`] says what it means.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Filters combine: all kinds given must match, one value of a kind is enough.",
    after_long_help = help::text(help::TRACE)
)]
pub struct TraceArgs {
    /// Local port, or a range of ports: 8080, 8000-8100
    ///
    /// Matches failures too, by the port that was asked for. Repeat it, or separate by commas, for
    /// any of several.
    #[arg(
        long = "port",
        value_name = "PORT[-PORT]",
        value_parser = parse::ports,
        value_delimiter = ',',
        help_heading = FILTERS
    )]
    pub ports: Vec<RangeInclusive<u16>>,

    /// Port of the peer that a connect goes to
    #[arg(
        long = "peer-port",
        value_name = "PORT[-PORT]",
        value_parser = parse::ports,
        value_delimiter = ',',
        help_heading = FILTERS
    )]
    pub peer_ports: Vec<RangeInclusive<u16>>,

    /// Process id
    #[arg(
        long = "pid",
        value_name = "PID",
        value_parser = parse::pid,
        value_delimiter = ',',
        help_heading = FILTERS
    )]
    pub pids: Vec<u32>,

    /// Name of the task as the kernel has it, at most 15 bytes of it
    ///
    /// That is the name in `ps -o comm`, which threads and processes can change. Longer names are
    /// compared by their first 15 bytes.
    #[arg(
        long = "comm",
        value_name = "NAME",
        value_parser = NonEmptyStringValueParser::new(),
        help_heading = FILTERS
    )]
    pub comms: Vec<String>,

    /// User, by name or number
    #[arg(
        long = "uid",
        value_name = "USER",
        value_parser = parse::user,
        value_delimiter = ',',
        help_heading = FILTERS
    )]
    pub uids: Vec<UserArg>,

    /// Network namespace of the socket: inode number, path, or name given by ip netns
    ///
    /// For example 4026531840, /proc/812/ns/net, or blue for /run/netns/blue.
    #[arg(
        long = "netns",
        value_name = "NETNS",
        value_parser = parse::netns,
        help_heading = FILTERS
    )]
    pub netns: Vec<NetnsArg>,

    /// Control group (version 2) and all below it, by path
    ///
    /// For example /system.slice/nginx.service; with /sys/fs/cgroup in front works too.
    #[arg(
        long = "cgroup",
        value_name = "PATH",
        value_parser = NonEmptyStringValueParser::new(),
        help_heading = FILTERS
    )]
    pub cgroups: Vec<String>,

    /// Container, by its id or the start of it
    #[arg(
        long = "container",
        value_name = "ID",
        value_parser = NonEmptyStringValueParser::new(),
        help_heading = FILTERS
    )]
    pub containers: Vec<String>,

    /// TCP, MPTCP included; with -u both
    #[arg(short, long, help_heading = FILTERS)]
    pub tcp: bool,

    /// UDP; with -t both
    #[arg(short, long, help_heading = FILTERS)]
    pub udp: bool,

    /// IPv4 sockets; with -6 both
    #[arg(short = '4', long, help_heading = FILTERS)]
    pub ipv4: bool,

    /// IPv6 sockets, also where they carry IPv4; with -4 both
    #[arg(short = '6', long, help_heading = FILTERS)]
    pub ipv6: bool,

    /// Kinds of event
    ///
    /// A call that picks a port on its way, such as listen without bind, is one event of its own
    /// kind; autobind is a port taken by sending a datagram and the like.
    #[arg(
        short,
        long = "event",
        value_name = "NAME[,NAME]",
        value_parser = events(),
        value_delimiter = ',',
        default_value = "bind,listen,connect,autobind",
        hide_possible_values = true,
        help_heading = FILTERS
    )]
    pub events: Vec<Op>,

    /// Failures only
    #[arg(long, help_heading = FILTERS)]
    pub failed: bool,

    /// Conflicts only: failures for which something here stood in the way
    ///
    /// These are EADDRINUSE, EACCES, EPERM, EINVAL, EADDRNOTAVAIL and EAGAIN. A refused or timed
    /// out connection is a failure, but no conflict.
    #[arg(long, help_heading = FILTERS)]
    pub conflicts: bool,

    /// End after this time: 10s, 2m, 1h30m
    #[arg(
        long,
        value_name = "TIME",
        value_parser = parse::duration,
        help_heading = STOP
    )]
    pub duration: Option<Duration>,

    /// End after this many events
    #[arg(
        short,
        long,
        value_name = "N",
        value_parser = parse::count,
        help_heading = STOP
    )]
    pub count: Option<u64>,

    /// Leave out the arguments of processes, which may hold secrets
    #[arg(long, help_heading = "Output")]
    pub no_args: bool,

    /// The way into the kernel
    #[arg(
        long,
        value_name = "WAY",
        value_enum,
        default_value_t,
        help_heading = KERNEL
    )]
    pub attach: Attach,

    /// Size of the buffer between kernel and portwatch: 256K, 8M
    ///
    /// Rounded up to a power of two. What does not fit is lost, and shows as lost.
    #[arg(
        long,
        value_name = "SIZE",
        value_parser = parse::buffer_size,
        default_value = parse::DEFAULT_BUFFER,
        help_heading = KERNEL
    )]
    pub buffer: u64,

    /// Run this command, follow it and its descendants only, and exit with its status
    ///
    /// It starts when every hook is attached and keeps stdin, stdout and stderr; what portwatch
    /// prints goes to the file of -w, or else to stderr. It runs as the user who called sudo.
    #[arg(
        last = true,
        value_name = "COMMAND",
        num_args = 1..,
        value_hint = clap::ValueHint::CommandWithArguments
    )]
    pub command: Vec<OsString>,
}

const FILTERS: &str = "Filters";
const STOP: &str = "Stop";
const KERNEL: &str = "Kernel";

/// `--attach`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Attach {
    /// The best that this kernel allows
    #[default]
    Auto,
    /// fentry, fexit and BTF tracepoints: cheapest
    Tracing,
    /// kprobes and kretprobes
    Kprobe,
    /// Raw tracepoints alone, where a kernel allows nothing else; sees less
    #[value(name = "raw_tp")]
    RawTp,
}

impl Attach {
    /// The way that was asked for; `None` leaves the choice to portwatch.
    #[must_use]
    pub const fn backend(self) -> Option<Backend> {
        match self {
            Self::Auto => None,
            Self::Tracing => Some(Backend::Tracing),
            Self::Kprobe => Some(Backend::Kprobe),
            Self::RawTp => Some(Backend::RawTp),
        }
    }
}

/// `--uid`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserArg {
    /// A number.
    Uid(u32),
    /// A name.
    Name(String),
}

/// `--netns`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetnsArg {
    /// Its inode number.
    Inode(u32),
    /// A file that stands for it: of nsfs, or a bind mount of one.
    Path(PathBuf),
    /// A name given by `ip netns`.
    Name(String),
}

fn events() -> ValueParser {
    PossibleValuesParser::new(Op::ALL.map(Op::as_str))
        .try_map(|name| {
            Op::ALL
                .into_iter()
                .find(|op| op.as_str() == name)
                .ok_or("no such event")
        })
        .into()
}
