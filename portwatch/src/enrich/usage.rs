//! Which ports of an exhausted range are used, and by whom: asked of sock_diag(7) where the call was
//! refused, and joined with the descriptors of all processes.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use netlink_packet_sock_diag::inet::StateFlags;

use super::sock_diag::{self, Listed, Query};
use crate::{
    conflict::rules::{self, Claim},
    event::{Endpoint, Event, Exhausted, Op, Scope, TcpState, Transport},
};

/// Longest listing: 28,000 sockets take some 30 ms.
const PATIENCE: Duration = Duration::from_millis(300);

/// Sockets looked at, of 16 bytes. With more than that the figures are not known.
const LIMIT: usize = 1 << 17;

/// Whose ports are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// What meets a socket on an address.
    Address(Claim),
    /// Connections between an address and a peer, and whatever is bound: connect() passes over a port of which
    /// bind() has had the bucket, at any address (net/ipv4/inet_hashtables.c, `__inet_hash_connect`).
    Tuple(IpAddr, IpAddr),
}

/// What is to be found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    query: Query,
    wanted: Wanted,
    reserved: Vec<RangeInclusive<u16>>,
}

impl Question {
    /// Of a call that found no port; `None` where it is not known what it asked for.
    #[must_use]
    pub fn of(
        event: &Event,
        exhausted: &Exhausted,
        reserved: Option<Vec<RangeInclusive<u16>>>,
    ) -> Option<Self> {
        let address = event.local.address?;
        let (wanted, states, peer_port) = match exhausted.scope? {
            Scope::Address => {
                let options = &event.socket.options;
                let claim = Claim {
                    transport: event.transport,
                    address,
                    v6only: options.v6only.unwrap_or_default(),
                    device: event.socket.device,
                    // Whether they could share is not asked.
                    reuseaddr: false,
                    reuseport: false,
                    uid: 0,
                    state: TcpState::Closed,
                };
                (Wanted::Address(claim), sock_diag::every_state(), None)
            }
            Scope::Tuple => {
                let Endpoint {
                    address: Some(peer),
                    port: Some(port),
                } = event.peer?
                else {
                    return None;
                };
                let states =
                    StateFlags::all().difference(StateFlags::LISTEN.union(StateFlags::CLOSE));
                let wanted = Wanted::Tuple(address.to_canonical(), peer.to_canonical());
                // Before its source is chosen a connection has none.
                if address.is_unspecified() {
                    return None;
                }
                (wanted, states, Some(port))
            }
        };
        Some(Self {
            query: Query {
                transport: event.transport,
                states,
                ports: exhausted.range.clone()?,
                peer_port,
            },
            wanted,
            reserved: reserved?,
        })
    }

    /// What is bound, where connections are counted: their peer's port does not tell it.
    fn bound(&self) -> Option<Query> {
        let Wanted::Tuple(..) = self.wanted else {
            return None;
        };
        Some(Query {
            states: sock_diag::bound_states(self.query.transport, true),
            peer_port: None,
            ..self.query.clone()
        })
    }

    /// Ports of the range that are given out.
    fn available(&self) -> u32 {
        let is_free = |port: &u16| !self.is_reserved(*port);
        u32::try_from(self.query.ports.clone().filter(is_free).count()).unwrap_or(u32::MAX)
    }

    fn is_reserved(&self, port: u16) -> bool {
        self.reserved.iter().any(|list| list.contains(&port))
    }

    /// The port that a socket takes away.
    fn takes(&self, socket: &Listed) -> Option<u16> {
        let port = socket.local.port?;
        let is_one = match &self.wanted {
            Wanted::Tuple(..) if is_bound(socket) => true,
            Wanted::Address(own) => rules::meet(own, &claim(socket, self.query.transport)?),
            Wanted::Tuple(local, peer) => {
                let is = |end: Endpoint, address: &IpAddr| {
                    end.address.map(|end| end.to_canonical()) == Some(*address)
                };
                is(socket.local, local)
                    && is(socket.peer, peer)
                    && socket.peer.port == self.query.peer_port
            }
        };
        (is_one && self.query.ports.contains(&port) && !self.is_reserved(port)).then_some(port)
    }

    /// Asks the kernel, in the network namespace of the calling thread; `None` where it does not answer,
    /// or there are too many sockets.
    #[must_use]
    pub fn ask(&self) -> Option<Count> {
        let deadline = Instant::now().checked_add(PATIENCE);
        let mut count = Count::default();
        let mut whole = true;
        for query in [Some(self.query.clone()), self.bound()]
            .into_iter()
            .flatten()
        {
            let all = sock_diag::list(&query, deadline, |socket| {
                count.take(&socket, self.takes(&socket));
            });
            whole &= all.is_ok_and(|all| all);
        }
        whole &= count.seats.len() <= LIMIT;
        count.settle();
        (whole && count.is_certain(self)).then_some(count)
    }
}

/// Whether a socket is bound and not connected.
fn is_bound(socket: &Listed) -> bool {
    matches!(
        socket.state,
        TcpState::Listen | TcpState::Closed | TcpState::BoundInactive
    )
}

fn claim(socket: &Listed, transport: Transport) -> Option<Claim> {
    Some(Claim {
        transport,
        address: socket.local.address?,
        v6only: socket.v6only.unwrap_or_default(),
        device: socket.device,
        reuseaddr: false,
        reuseport: false,
        uid: socket.uid,
        state: socket.state,
    })
}

/// The ports that are used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Port and inode of each socket, 0 of one without a file, in order.
    seats: Vec<(u16, u64)>,
    /// Ports with a connection in TIME_WAIT.
    waiting: Vec<u16>,
    /// Ports with a socket that is bound and not connected.
    bound: Vec<u16>,
    /// The kernel has shown a socket that is bound and nothing else.
    sees_bound: bool,
}

impl Count {
    fn take(&mut self, socket: &Listed, port: Option<u16>) {
        self.sees_bound |= matches!(socket.state, TcpState::Closed | TcpState::BoundInactive);
        let Some(port) = port else {
            return;
        };
        if self.seats.len().max(self.waiting.len()) > LIMIT {
            return;
        }
        if is_bound(socket) {
            self.bound.push(port);
        }
        if socket.state == TcpState::TimeWait {
            self.waiting.push(port);
        } else {
            self.seats.push((port, socket.inode.unwrap_or_default()));
        }
    }

    fn settle(&mut self) {
        self.seats.sort_unstable();
        self.waiting.sort_unstable();
        self.waiting.dedup();
        self.bound.sort_unstable();
        self.bound.dedup();
        let Self { seats, waiting, .. } = self;
        waiting.retain(|port| {
            let at = seats.partition_point(|(other, _)| other < port);
            seats.get(at).is_none_or(|(other, _)| other != port)
        });
    }

    /// Whether nothing is left out. sock_diag shows TCP sockets that are bound and nothing else since Linux
    /// 6.8; before, they may be what is missing to the whole range. That a connection's port was bound it never
    /// shows.
    fn is_certain(&self, question: &Question) -> bool {
        let shows_all = match question.wanted {
            Wanted::Tuple(..) => false,
            Wanted::Address(_) => question.query.transport != Transport::Tcp || self.sees_bound,
        };
        shows_all || self.used() >= question.available()
    }

    /// Ports that are used.
    #[must_use]
    pub fn used(&self) -> u32 {
        let held = self.seats.chunk_by(|one, other| one.0 == other.0).count();
        u32::try_from(held + self.waiting.len()).unwrap_or(u32::MAX)
    }

    /// Those of them that are bound and not connected.
    #[must_use]
    pub fn bound(&self) -> u32 {
        u32::try_from(self.bound.len()).unwrap_or(u32::MAX)
    }

    /// Those of them that only connections in TIME_WAIT use, which are no process' any more.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        u32::try_from(self.waiting.len()).unwrap_or(u32::MAX)
    }

    /// How many ports each process has, most first, and whether of all sockets it is known who has them.
    /// `of`: the processes with a descriptor of an inode.
    pub fn by_process<'a, P>(&self, of: impl Fn(u64) -> P + 'a) -> (Vec<Share>, bool)
    where
        P: Iterator<Item = u32> + 'a,
    {
        let mut whole = true;
        let mut shares: BTreeMap<u32, Share> = BTreeMap::new();
        for &(port, inode) in self.seats.iter().filter(|(_, inode)| *inode != 0) {
            let mut found = false;
            for pid in of(inode) {
                found = true;
                let share = shares.entry(pid).or_insert(Share {
                    pid,
                    ports: 0,
                    inode,
                    last: None,
                });
                if share.last != Some(port) {
                    share.last = Some(port);
                    share.ports += 1;
                }
            }
            whole &= found;
        }
        let mut shares: Vec<Share> = shares.into_values().collect();
        shares.sort_by_key(|share| (std::cmp::Reverse(share.ports), share.pid));
        (shares, whole)
    }
}

/// What a process has of the ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The process.
    pub pid: u32,
    /// How many ports.
    pub ports: u32,
    /// One of its sockets.
    pub inode: u64,
    /// The port that was counted last.
    last: Option<u16>,
}

/// What a call that finds no port is short of.
#[must_use]
pub fn scope(event: &Event) -> Scope {
    match (event.op, event.transport) {
        (Op::Connect, Transport::Tcp) => Scope::Tuple,
        _ => Scope::Address,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]

    use std::iter;

    use super::*;
    use crate::{
        event::Family,
        sample::{connect, endpoint, sighting},
    };

    fn question(event: &Event, range: RangeInclusive<u16>) -> Question {
        let exhausted = Exhausted {
            range: Some(range),
            scope: Some(scope(event)),
            ..Exhausted::default()
        };
        Question::of(event, &exhausted, Some(vec![40_003..=40_003])).unwrap()
    }

    /// bind() of any port.
    fn bind(local: &str, transport: Transport) -> Question {
        let mut event = *sighting(Op::Bind, local).event;
        event.transport = transport;
        question(&event, 40_000..=40_004)
    }

    fn connecting(peer: &str) -> Question {
        question(&connect("10.0.0.1:1", peer).event, 40_000..=40_004)
    }

    fn socket(local: &str, peer: &str, state: TcpState, inode: u64) -> Listed {
        let local = endpoint(local);
        Listed {
            family: match local.address {
                Some(IpAddr::V6(_)) => Family::Ipv6,
                _ => Family::Ipv4,
            },
            state,
            local,
            peer: endpoint(peer),
            device: None,
            inode: Some(inode).filter(|&inode| inode != 0),
            cookie: None,
            uid: 0,
            v6only: None,
            ip_options: None,
            remnant: state == TcpState::TimeWait,
            expires: Duration::ZERO,
        }
    }

    fn count(question: &Question, sockets: &[Listed]) -> Count {
        let mut count = Count::default();
        for socket in sockets {
            count.take(socket, question.takes(socket));
        }
        count.settle();
        count
    }

    const NONE: &str = "0.0.0.0:0";

    #[test]
    fn an_address_is_short_of_the_ports_of_sockets_that_meet_it() {
        use TcpState::{Closed, Established, Listen, TimeWait};
        let sockets = [
            socket("10.0.0.1:40000", NONE, Listen, 1),
            socket("10.0.0.1:40000", "10.0.0.9:443", Established, 2),
            socket("10.0.0.2:40001", NONE, Listen, 3),
            socket("[::]:40002", "[::]:0", Listen, 4),
            // Reserved, and beside the range.
            socket("10.0.0.1:40003", NONE, Closed, 5),
            socket("10.0.0.1:40005", NONE, Closed, 6),
            socket("10.0.0.1:40004", "10.0.0.9:443", TimeWait, 0),
            socket("10.0.0.1:40002", "10.0.0.9:443", TimeWait, 0),
        ];
        let found = count(&bind("10.0.0.1:1", Transport::Tcp), &sockets);
        assert_eq!((found.used(), found.waiting()), (3, 1));
        let found = count(&bind("0.0.0.0:1", Transport::Tcp), &sockets);
        assert_eq!((found.used(), found.waiting()), (4, 1));
        let found = count(&bind("10.0.0.3:1", Transport::Tcp), &sockets);
        assert_eq!((found.used(), found.waiting()), (1, 0));
    }

    #[test]
    fn a_tuple_is_short_of_the_ports_that_lead_to_the_same_peer() {
        use TcpState::{Established, FinWait2, SynSent, TimeWait};
        let sockets = [
            socket("10.0.0.1:40000", "10.0.0.9:443", Established, 1),
            socket("10.0.0.1:40001", "10.0.0.9:443", TimeWait, 0),
            socket("10.0.0.1:40002", "10.0.0.9:443", FinWait2, 0),
            socket("10.0.0.1:40002", "10.0.0.9:80", SynSent, 2),
            socket("10.0.0.1:40004", "10.0.0.8:443", Established, 3),
            socket("10.0.0.2:40004", "10.0.0.9:443", Established, 4),
            socket(
                "[::ffff:10.0.0.1]:40004",
                "[::ffff:10.0.0.9]:443",
                Established,
                5,
            ),
        ];
        let found = count(&connecting("10.0.0.9:443"), &sockets);
        assert_eq!((found.used(), found.waiting()), (4, 1));
        let found = count(&connecting("10.0.0.7:443"), &sockets);
        assert_eq!(found.used(), 0);
    }

    #[test]
    fn no_connection_gets_a_port_that_is_bound() {
        use TcpState::{Closed, Established, Listen};
        let sockets = [
            socket("127.0.0.1:40000", NONE, Closed, 1),
            socket("[::]:40001", "[::]:0", Listen, 2),
            socket("10.0.0.1:40002", "10.0.0.9:443", Established, 3),
            socket("10.0.0.1:40002", NONE, Closed, 4),
            socket("10.0.0.1:40004", "10.0.0.9:443", Established, 5),
            // Reserved.
            socket("10.0.0.1:40003", NONE, Closed, 6),
        ];
        let asked = connecting("10.0.0.9:443");
        let found = count(&asked, &sockets);
        assert_eq!((found.used(), found.bound()), (4, 3));
        assert!(found.is_certain(&asked));
        let asked = connecting("10.0.0.8:443");
        let found = count(&asked, &sockets);
        assert_eq!((found.used(), found.bound()), (3, 3));
        assert!(
            !found.is_certain(&asked),
            "it may have been bound before it was connected"
        );
        assert_eq!(asked.bound().unwrap().peer_port, None);
    }

    #[test]
    fn ports_that_the_kernel_does_not_show_make_no_figure() {
        let asked = bind("10.0.0.1:1", Transport::Tcp);
        let at = |port: u16, state| socket(&format!("10.0.0.1:{port}"), NONE, state, 1);
        assert_eq!(asked.available(), 4);
        let one = count(&asked, &[at(40_000, TcpState::Listen)]);
        assert!(!one.is_certain(&asked), "the others may be only bound");
        // It shows such sockets.
        let bound = count(&asked, &[at(40_000, TcpState::Closed)]);
        assert!(bound.is_certain(&asked));
        let elsewhere = socket("10.0.0.1:80", NONE, TcpState::Closed, 1);
        assert!(count(&asked, &[elsewhere]).is_certain(&asked));
        let all: Vec<_> = [40_000, 40_001, 40_002, 40_004]
            .map(|port| at(port, TcpState::Listen))
            .to_vec();
        assert!(count(&asked, &all).is_certain(&asked));
        // Of UDP it shows all.
        let none = Count::default();
        assert!(none.is_certain(&bind("10.0.0.1:1", Transport::Udp)));
        assert!(!none.is_certain(&connecting("10.0.0.9:443")));
    }

    #[test]
    fn processes_are_told_by_the_ports_they_have() {
        let seats: Vec<_> = (40_000..40_005)
            .map(|port| (port, u64::from(port)))
            .chain([(40_000, 1), (40_001, 0)])
            .collect();
        let mut found = Count {
            seats,
            ..Count::default()
        };
        found.settle();
        // The third has one socket of the second's port and one of its own.
        let of = |inode| -> Vec<u32> {
            match inode {
                40_000 => vec![20, 30],
                1 => vec![30],
                40_001..=40_003 => vec![10],
                40_004 => vec![20],
                _ => panic!("asked for {inode}"),
            }
        };
        let (shares, whole) = found.by_process(|inode| of(inode).into_iter());
        let shares: Vec<_> = shares
            .iter()
            .map(|share| (share.pid, share.ports))
            .collect();
        assert_eq!(shares, [(10, 3), (20, 2), (30, 1)]);
        assert!(whole);
        let (shares, whole) = found.by_process(|_| iter::empty());
        assert!(shares.is_empty() && !whole);
    }

    #[test]
    fn nothing_is_asked_of_what_is_not_known() {
        let exhausted = |scope| Exhausted {
            range: Some(1..=2),
            scope: Some(scope),
            ..Exhausted::default()
        };
        let asks = |event: &Event, reserved| {
            Question::of(event, &exhausted(scope(event)), reserved).is_some()
        };
        let connecting = *connect("10.0.0.1:1", "10.0.0.9:443").event;
        assert!(asks(&connecting, Some(Vec::new())));
        assert!(!asks(&connecting, None));
        let with = |adjust: fn(&mut Event)| {
            let mut event = connecting.clone();
            adjust(&mut event);
            asks(&event, Some(Vec::new()))
        };
        assert!(!with(|event| event.local.address = None));
        assert!(!with(|event| event.local = endpoint("0.0.0.0:1")));
        assert!(!with(|event| event.peer = None));
    }

    #[test]
    fn the_kernel_is_asked() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut event = *sighting(Op::Bind, "127.0.0.1:1").event;
        event.transport = Transport::Tcp;
        let asked = question(&event, port..=port);
        let mut count = 0;
        if sock_diag::list(&asked.query, None, |_| count += 1).is_err() {
            println!("skip: no sock_diag");
            return;
        }
        let found = asked.ask().unwrap();
        assert_eq!(found.used(), 1);
        let (shares, _) = found.by_process(|_| iter::once(7));
        assert_eq!(shares.len(), 1);
    }
}
