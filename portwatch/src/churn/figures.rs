//! What is shown of an interval, apart from how.

use std::{net::IpAddr, ops::RangeInclusive, time::Duration};

use super::{causes::Cause, forecast::Forecast, histogram::Percentiles, nat::Nat};
use crate::event::{Backend, Errno, Time, Transport};

/// By how ports were taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByHow {
    /// By connect(), TCP.
    pub connect: u64,
    /// By bind() to port 0.
    pub bind: u64,
    /// By listen() without bind().
    pub listen: u64,
    /// By connect() or a send on a UDP socket that was not bound.
    pub udp: u64,
}

impl ByHow {
    /// All of them.
    #[must_use]
    pub const fn sum(&self) -> u64 {
        self.connect + self.bind + self.listen + self.udp
    }
}

/// What has happened, in an interval or since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Ports taken.
    pub taken: ByHow,
    /// Ports given back; `None` where that is not seen.
    pub given: Option<u64>,
    /// Connections that have entered TIME_WAIT, whatever their port; `None` where that is not seen.
    pub waited: Option<u64>,
    /// Connections that have left it.
    pub ended: Option<u64>,
    /// Times that no port was left.
    pub failed: u64,
    /// Odd ones of the ports taken.
    pub odd: u64,
}

/// A network namespace.
#[derive(Clone, Debug, PartialEq)]
pub struct Namespace {
    /// Its inode; `None` stands for all that there was no room for.
    pub netns: Option<u32>,
    /// `ip_local_port_range`.
    pub range: Option<RangeInclusive<u16>>,
    /// Ports of it that are given out.
    pub available: Option<u32>,
    /// Ports of it that are reserved.
    pub reserved: Option<u32>,
    /// `tcp_tw_reuse`.
    pub tw_reuse: Option<u8>,
    /// `ip_autobind_reuse`.
    pub autobind_reuse: Option<bool>,
    /// Ranges of single sockets, and how many ports of each are held.
    pub own_ranges: Vec<(RangeInclusive<u16>, u64)>,
    /// In the interval.
    pub now: Flow,
    /// Since the start.
    pub total: Flow,
    /// Automatic ports that are held, in TIME_WAIT or not; `None` where that is not seen.
    pub held: Option<u64>,
    /// Odd ones of them.
    pub held_odd: Option<u64>,
    /// Connections in TIME_WAIT, by the kernel's own count.
    pub time_wait: Option<u64>,
    /// Those of them with an automatic port.
    pub waiting: Option<u64>,
    /// How long ports were held that were given back in the interval.
    pub held_for: Option<Percentiles>,
    /// How long connect() searched for a port.
    pub searched: Option<Percentiles>,
}

/// A process as far as it is known of a port.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Who {
    /// Its id; `None` of ports that were taken before portwatch looked, by a process that is not known.
    pub pid: Option<u32>,
    /// Its name.
    pub comm: Option<String>,
    /// Its container.
    pub container: Option<String>,
}

/// What ports are short of, [`Pool`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// One local address.
    Address,
    /// One local address towards one peer.
    Tuple,
}

/// Counters of a pool, or of a part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// Ports held now.
    pub held: u64,
    /// Those in TIME_WAIT.
    pub waiting: u64,
    /// Taken in the interval.
    pub taken: u64,
    /// Given back in the interval.
    pub given: u64,
    /// Entered TIME_WAIT in the interval.
    pub waited: u64,
    /// Times that there was none in the interval.
    pub failed: u64,
}

impl Use {
    /// Adds another.
    pub const fn add(&mut self, other: &Self) {
        self.held += other.held;
        self.waiting += other.waiting;
        self.taken += other.taken;
        self.given += other.given;
        self.waited += other.waited;
        self.failed += other.failed;
    }
}

/// Ports that one address, or one tuple, can have.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Network namespace.
    pub netns: u32,
    /// Transport.
    pub transport: Transport,
    /// What they are of.
    pub scope: Scope,
    /// Local address.
    pub local: IpAddr,
    /// Peer's address and port, of a tuple.
    pub peer: Option<(IpAddr, u16)>,
    /// Range of the sockets themselves (IP_LOCAL_PORT_RANGE).
    pub own_range: Option<RangeInclusive<u16>>,
    /// Ports that are given out.
    pub available: Option<u32>,
    /// Of these, ports that bind() and listen() have, on whatever address: connect() takes none that is
    /// bound. Of an address: those on the wildcard address, or if it is that, on others.
    pub beside: u64,
    /// All of it.
    pub total: Use,
    /// Its odd and its even ports; `None` where it is not seen what is held, or not known what there is.
    pub halves: Option<Halves>,
    /// By process, most first; at most [`SHARES`].
    pub shares: Vec<(Who, Use)>,
    /// How many processes there are.
    pub processes: usize,
    /// What becomes of it.
    pub forecast: Option<Forecast>,
}

/// A half of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Half {
    /// Ports held.
    pub held: u64,
    /// Ports that are given out.
    pub available: u32,
}

impl Half {
    /// Use against what there is.
    #[must_use]
    pub fn share(&self) -> Option<f64> {
        (self.available > 0).then(|| self.held as f64 / f64::from(self.available))
    }
}

/// The kernel looks for a port in one half first: connect() and bind() each in their own, so that they do not meet
/// (net/ipv4/inet_hashtables.c, `__inet_hash_connect`; net/ipv4/inet_connection_sock.c, `inet_csk_find_open_port`).
/// Where that one is full, each search walks through it in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Halves {
    /// Odd ports.
    pub odd: Half,
    /// Even ports.
    pub even: Half,
}

/// Processes that are named of a pool.
pub const SHARES: usize = 5;

impl Pool {
    /// Ports in use.
    #[must_use]
    pub const fn used(&self) -> u64 {
        self.total.held + self.beside
    }

    /// Use against what there is.
    #[must_use]
    pub fn share(&self) -> Option<f64> {
        let available = self.available?;
        (available > 0).then(|| self.used() as f64 / f64::from(available))
    }
}

/// What is alike by `--by`.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// What it is called.
    pub name: GroupName,
    /// All of it.
    pub total: Use,
}

/// What a group is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GroupName {
    /// Processes of one name and container, and their number.
    Process(Who, u64),
    /// A peer.
    Destination(Option<(IpAddr, u16)>),
    /// A local address.
    Source(IpAddr),
    /// A network namespace.
    Netns(u32),
    /// A container; `None`: outside of any.
    Container(Option<String>),
}

/// Ports that were not there, by pool and process.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// Which ports.
    pub pool: Pool,
    /// Whose.
    pub who: Who,
    /// What the caller was told.
    pub errno: Errno,
    /// How often in the interval.
    pub now: u64,
    /// How often since the start.
    pub total: u64,
    /// Why, and what to do.
    pub cause: Cause,
}

/// What was not counted as it should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Ports taken that there was no room to remember, since the start.
    pub forgotten: u64,
    /// Calls that the kernel did not tell the programs of, since the start.
    pub skipped: u64,
    /// Looks at all sockets after that, since the start.
    pub looks: u32,
    /// Ports that the last look found to be given back.
    pub corrected: u64,
    /// A look was taken in this interval.
    pub looked: bool,
}

/// All of an interval.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    /// Its end.
    pub time: Time,
    /// Its length.
    pub interval: Duration,
    /// Time since the start.
    pub watched: Duration,
    /// The way into the kernel.
    pub backend: Backend,
    /// Network namespaces, those with most ports first.
    pub namespaces: Vec<Namespace>,
    /// The fullest pools, at most as many as were asked for.
    pub pools: Vec<Pool>,
    /// How many there are.
    pub pools_total: usize,
    /// What was asked for, by `--by`; the largest first.
    pub groups: Vec<Group>,
    /// How many there are.
    pub groups_total: usize,
    /// Failures, most first.
    pub failures: Vec<Failure>,
    /// How many there are.
    pub failures_total: usize,
    /// Ports of tuples that had no row of their own, summed.
    pub tail: Use,
    /// What was lost, and made good.
    pub loss: Loss,
    /// Ports that NAT has taken; `None` where it takes none, and of a command.
    pub nat: Option<Nat>,
    /// What this way in does not see, as paths of the JSON.
    pub unseen: Vec<&'static str>,
}
