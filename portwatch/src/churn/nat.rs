//! Source ports that NAT has taken, from what the kernel tracks: which are used of an external address towards
//! a destination, by whom, and how that changes.
//!
//! A translated connection needs that nobody else is answered at the same port: the pool is (transport, external
//! address, destination address and port). Where the rule names no ports, the kernel keeps the client's port if it
//! is free, and else looks for another one of the same class (net/netfilter/nf_nat_core.c, `get_unique_tuple` and
//! `nf_nat_l4proto_unique_tuple`).

#[cfg(test)]
mod tests;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    ops::RangeInclusive,
    time::Duration,
};

use super::{
    figures::Use,
    forecast::{self, Forecast, forecast},
};
use crate::{enrich::conntrack::Connection, event::Transport};

/// Ports of the classes between which the kernel does not mix (`nf_nat_l4proto_unique_tuple`). Of the second it
/// looks through those from 600 on; below are those that were kept.
const CLASSES: [RangeInclusive<u16>; 3] = [1..=511, 512..=1023, 1024..=u16::MAX];

fn class(port: u16) -> RangeInclusive<u16> {
    let found = CLASSES.into_iter().find(|class| class.contains(&port));
    // Port 0 is in none; nobody has it.
    found.unwrap_or(0..=0)
}

/// Ports that the kernel chooses from for a class.
fn given_out(class: &RangeInclusive<u16>) -> u32 {
    let first = match *class.start() {
        512 => 600,
        first => first,
    };
    u32::from(*class.end() - first) + 1
}

/// What is tracked in a network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tracked {
    /// Inode of the network namespace.
    pub netns: u32,
    /// Connections, translated or not (`nf_conntrack_count`).
    pub count: u64,
    /// As many as there may be (`nf_conntrack_max`).
    pub limit: Option<u64>,
    /// How long a closed TCP connection is kept (`nf_conntrack_tcp_timeout_time_wait`).
    pub time_wait: Option<Duration>,
    /// Packets dropped since the namespace was made because their connection could not be entered
    /// (`insert_failed`).
    pub failed: Option<u64>,
    /// Those whose source was translated; `None` where the kernel has not told all.
    pub translated: Option<Vec<Connection>>,
}

/// A network namespace where sources are translated, or may be: the kernel does not tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Its inode.
    pub netns: u32,
    /// Connections that are tracked.
    pub count: u64,
    /// As many as there may be.
    pub limit: Option<u64>,
    /// Connections that could not be entered in the interval; `None` where it is not known.
    pub failed: Option<u64>,
    /// Since the namespace was made.
    pub failed_total: Option<u64>,
}

/// Ports of an external address towards a destination.
#[derive(Clone, Debug, PartialEq)]
pub struct NatPool {
    /// Network namespace of the gateway.
    pub netns: u32,
    /// Conntrack zone, 0 for most.
    pub zone: u16,
    /// Transport.
    pub transport: Transport,
    /// What the destination sees as the source.
    pub external: IpAddr,
    /// Where the connections go, behind any translation of that end.
    pub destination: (IpAddr, u16),
    /// What the kernel chooses from, unless the rule names ports.
    pub range: RangeInclusive<u16>,
    /// Ports of it; `None` where ports were given to clients of another class, which only happens by a rule that
    /// names them.
    pub available: Option<u32>,
    /// The lowest and the highest port in use; `None` where the last has just been given back.
    pub seen: Option<RangeInclusive<u16>>,
    /// Connections whose port is not that of the client.
    pub changed: u64,
    /// All was told an interval ago too: else what has been taken, given back and closed since is not known.
    pub is_compared: bool,
    /// All of it; `failed` is not known by pool.
    pub total: Use,
    /// By address of the client, most first; at most [`CLIENTS`].
    pub clients: Vec<(IpAddr, Use)>,
    /// How many there are.
    pub clients_total: usize,
    /// What becomes of it; of TCP alone, where it is known what has closed.
    pub forecast: Option<Forecast>,
}

/// Clients that are named of a pool.
pub const CLIENTS: usize = 5;

impl NatPool {
    /// Use against what there is.
    #[must_use]
    pub fn share(&self) -> Option<f64> {
        Some(self.total.held as f64 / f64::from(self.available?))
    }
}

/// Why something is not shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hidden {
    /// The kernel tells it only who has CAP_NET_ADMIN there.
    NotPermitted,
    /// It has no netlink interface to it, or did not answer.
    NotAnswered,
    /// So many network namespaces cannot be entered.
    Closed(usize),
    /// So many network namespaces that track connections are not looked at.
    TooMany(usize),
}

/// All of an interval.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Nat {
    /// Where it takes them.
    pub gateways: Vec<Gateway>,
    /// The fullest pools, at most as many as were asked for.
    pub pools: Vec<NatPool>,
    /// How many there are.
    pub pools_total: usize,
    /// Why it is not all.
    pub hidden: Option<Hidden>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    zone: u16,
    transport: Transport,
    external: IpAddr,
    destination: (IpAddr, u16),
    /// The first port of the class.
    class: u16,
}

/// A port at the last look.
#[derive(Clone, Copy, Debug)]
struct Seen {
    id: u32,
    client: IpAddr,
    waits: bool,
}

type Ports = HashMap<u16, Seen>;

/// What was seen at the last look. As much as the kernel tracks, which it bounds (`nf_conntrack_max`).
#[derive(Debug, Default)]
pub struct Accounts {
    last: BTreeMap<u32, (HashMap<Key, Ports>, Option<u64>)>,
}

impl Accounts {
    /// Takes a look at network namespaces; those that are not among them are forgotten. `top`: pools that are shown.
    pub fn update(
        &mut self,
        tracked: &[Tracked],
        hidden: Option<Hidden>,
        interval: Duration,
        top: usize,
    ) -> Nat {
        self.last
            .retain(|netns, _| tracked.iter().any(|one| one.netns == *netns));
        let mut nat = Nat {
            hidden,
            ..Nat::default()
        };
        let mut pools = Vec::new();
        for one in tracked {
            let before = self.last.remove(&one.netns);
            let (before, failed_before) =
                before.map_or((None, None), |(ports, failed)| (Some(ports), failed));
            let gateway = Gateway {
                netns: one.netns,
                count: one.count,
                limit: one.limit,
                failed: one
                    .failed
                    .zip(failed_before)
                    .map(|(now, before)| now.saturating_sub(before)),
                failed_total: one.failed,
            };
            let Some(translated) = &one.translated else {
                nat.gateways.push(gateway);
                // The next answer is a first one: what came and went until then is of more than an interval.
                continue;
            };
            let now = by_pool(translated);
            let none = HashMap::new();
            let left = before.iter().flat_map(HashMap::keys);
            let left = left
                .filter(|key| !now.contains_key(key))
                .map(|key| (key, &none));
            let of_it = pools.len();
            pools.extend(
                now.iter()
                    .chain(left)
                    .map(|(key, ports)| pool(key, ports, before.as_ref(), one, interval)),
            );
            if pools.len() > of_it {
                nat.gateways.push(gateway);
            }
            let seen = now.into_iter().map(|(key, ports)| {
                let seen = ports.into_iter().map(|(port, one)| (port, seen(one)));
                (key, seen.collect())
            });
            self.last.insert(one.netns, (seen.collect(), one.failed));
        }
        pools.sort_by(|one, other| {
            let rank = |pool: &NatPool| (pool.share().unwrap_or(0.0), pool.total.held);
            rank(other)
                .partial_cmp(&rank(one))
                .unwrap_or(std::cmp::Ordering::Equal)
                .then_with(|| {
                    (one.external, one.destination).cmp(&(other.external, other.destination))
                })
        });
        nat.pools_total = pools.len();
        pools.truncate(top);
        nat.pools = pools;
        nat
    }
}

fn seen(connection: &Connection) -> Seen {
    Seen {
        id: connection.id,
        client: connection.original.source.0,
        waits: connection.is_waiting(),
    }
}

/// By pool and port. The dump of a table that changes can have one twice.
fn by_pool(translated: &[Connection]) -> HashMap<Key, HashMap<u16, &Connection>> {
    let mut pools: HashMap<Key, HashMap<u16, &Connection>> = HashMap::new();
    for one in translated {
        let (external, port) = one.reply.destination;
        let key = Key {
            zone: one.zone,
            transport: one.transport,
            external,
            destination: one.reply.source,
            class: *class(port).start(),
        };
        pools.entry(key).or_default().insert(port, one);
    }
    pools
}

fn pool(
    key: &Key,
    now: &HashMap<u16, &Connection>,
    before: Option<&HashMap<Key, Ports>>,
    tracked: &Tracked,
    interval: Duration,
) -> NatPool {
    let mut clients: BTreeMap<IpAddr, Use> = BTreeMap::new();
    let nothing = Ports::new();
    let earlier = before.map(|before| before.get(key).unwrap_or(&nothing));
    for (port, connection) in now {
        let client = clients.entry(connection.original.source.0).or_default();
        client.held += 1;
        client.waiting += u64::from(connection.is_waiting());
        // Of what was there at the first look it is not known when it came.
        let Some(earlier) = earlier else { continue };
        let same = earlier.get(port).filter(|seen| seen.id == connection.id);
        client.taken += u64::from(same.is_none());
        let waited = same.is_some_and(|seen| seen.waits);
        client.waited += u64::from(connection.is_waiting() && !waited);
    }
    for (port, seen) in earlier.into_iter().flatten() {
        if now.get(port).is_none_or(|one| one.id != seen.id) {
            clients.entry(seen.client).or_default().given += 1;
        }
    }
    let mut total = Use::default();
    for used in clients.values() {
        total.add(used);
    }
    let range = class(key.class);
    let is_foreign = |one: &&Connection| !range.contains(&one.original.source.1);
    let available = now
        .values()
        .all(|one| !is_foreign(one))
        .then(|| given_out(&range));
    let forecast = available
        .zip(tracked.time_wait)
        .filter(|_| key.transport == Transport::Tcp && before.is_some())
        .and_then(|(available, waits)| {
            forecast(&forecast::Pool {
                available,
                used: total.held,
                waiting: total.waiting,
                taken: total.taken,
                given: total.given,
                waited: total.waited,
                interval,
                waits,
            })
        });
    let clients_total = clients.len();
    let mut clients: Vec<_> = clients.into_iter().collect();
    clients.sort_by_key(|(_, used)| Reverse((used.held, used.taken)));
    clients.truncate(CLIENTS);
    NatPool {
        netns: tracked.netns,
        zone: key.zone,
        transport: key.transport,
        external: key.external,
        destination: key.destination,
        range,
        available,
        seen: now
            .keys()
            .min()
            .zip(now.keys().max())
            .map(|(&low, &high)| low..=high),
        changed: now
            .iter()
            .filter(|(port, one)| **port != one.original.source.1)
            .count() as u64,
        is_compared: before.is_some(),
        total,
        clients,
        clients_total,
        forecast,
    }
}
