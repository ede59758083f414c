//! The filters, which whatever shows events takes.

use std::{ops::RangeInclusive, path::PathBuf};

use clap::{
    Args,
    builder::{
        NonEmptyStringValueParser, PossibleValuesParser, TypedValueParser as _, ValueParser,
    },
};

use super::parse;
use crate::event::Op;

const FILTERS: &str = "Filters";

/// Which events; [`FilterArgs::resolve`] says what was meant.
#[derive(Args, Clone, Debug)]
pub struct FilterArgs {
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
    /// kind; autobind is a port taken by sending a datagram and the like, accept a connection that a
    /// process has got, release a port that is free for everybody again: the last socket on it is
    /// gone, TIME_WAIT included. The last two are seen and recorded only where they are asked for.
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
