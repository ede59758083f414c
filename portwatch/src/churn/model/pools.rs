//! Rows put together: by pool, by what was asked for, and those that failed.

use std::{cmp::Reverse, collections::HashMap, net::IpAddr, time::Duration};

use super::{By, Model, Row, Surroundings, Table, is_blind, who};
use crate::{
    churn::{
        causes,
        figures::{Failure, Group, GroupName, Half, Halves, Pool, SHARES, Scope, Use, Who},
        forecast::{self, forecast},
        rows::{address, by_pool, errno, held_odd, own_range, peer, scope, transport},
    },
    event::Transport,
};

/// What was found.
pub(super) struct Found {
    pub(super) pools: Vec<Pool>,
    pub(super) pools_total: usize,
    pub(super) groups: Vec<Group>,
    pub(super) groups_total: usize,
    pub(super) failures: Vec<Failure>,
    pub(super) failures_total: usize,
}

/// Ports that bind() and listen() have in a network namespace, by transport and address.
#[derive(Debug, Default)]
struct Bound(HashMap<(u32, Transport), HashMap<IpAddr, u64>>);

impl Bound {
    fn of(rows: &[Row]) -> Self {
        let mut bound = Self::default();
        for row in rows {
            if scope(&row.key) == Scope::Address && row.used.held > 0 {
                let place = (row.key.netns, transport(&row.key));
                let local = address(row.key.family, row.key.local);
                *bound.0.entry(place).or_default().entry(local).or_default() += row.used.held;
            }
        }
        bound
    }

    /// Those that a pool cannot have, beside its own.
    fn beside(&self, key: &portwatch_ebpf::abi::churn::Key) -> u64 {
        let local = address(key.family, key.local);
        let Some(addresses) = self.0.get(&(key.netns, transport(key))) else {
            return 0;
        };
        let counts = addresses.iter().filter(|(other, _)| match scope(key) {
            // connect() passes over every port that is bound (net/ipv4/inet_hashtables.c,
            // `__inet_hash_connect`: `tb->fastreuse >= 0`).
            Scope::Tuple => true,
            Scope::Address => {
                **other != local && (other.is_unspecified() || local.is_unspecified())
            }
        });
        counts.map(|(_, count)| count).sum()
    }
}

/// How many ports there are, all and by half.
type Sizes = (Option<u32>, Option<[u32; 2]>);

impl Model {
    pub(super) fn pools<T: Table>(
        &self,
        table: &T,
        rows: &[Row],
        interval: Duration,
        around: &impl Surroundings,
    ) -> Found {
        let bound = Bound::of(rows);
        // A range is gone through port by port: once, and not for each of 100,000 pools.
        let mut known: HashMap<(u32, u32), Sizes> = HashMap::new();
        let mut pools: Vec<(Pool, &[Row])> = rows
            .chunk_by(|one, other| by_pool(&one.key, &other.key).is_eq())
            .filter_map(|rows| {
                let total = sum(rows);
                let counts =
                    total != Use::default() || rows.iter().any(|row| row.counts.failed > 0);
                counts.then(|| {
                    let pool = self.pool(rows, total, &bound, interval, around, &mut known)?;
                    Some((pool, rows))
                })?
            })
            .collect();
        pools.sort_by(|(one, _), (other, _)| {
            let rank = |pool: &Pool| (pool.share().unwrap_or(0.0), pool.used());
            rank(other)
                .partial_cmp(&rank(one))
                .unwrap_or(std::cmp::Ordering::Equal)
        });
        let (failures, failures_total) = self.failures(table, &pools, around);
        // What has only failed some time ago.
        pools.retain(|(pool, _)| pool.total != Use::default());
        let pools_total = pools.len();
        let mut shown: Vec<Pool> = Vec::new();
        for (mut pool, rows) in pools.into_iter().take(self.top) {
            name(&mut pool, table, rows, around);
            shown.push(pool);
        }
        let (groups, groups_total) = self.groups(table, rows, around);
        Found {
            pools: shown,
            pools_total,
            groups,
            groups_total,
            failures,
            failures_total,
        }
    }

    fn pool(
        &self,
        rows: &[Row],
        total: Use,
        bound: &Bound,
        interval: Duration,
        around: &impl Surroundings,
        known: &mut HashMap<(u32, u32), Sizes>,
    ) -> Option<Pool> {
        let key = &rows.first()?.key;
        let limits = around.limits(key.netns);
        let own = own_range(key);
        let (available, sizes) = *known
            .entry((key.netns, key.range))
            .or_insert_with(|| (limits.available(own.as_ref()), limits.halves(own.as_ref())));
        let peer = peer(key);
        let beside = bound.beside(key);
        let odd: u64 = rows.iter().map(|row| held_odd(&row.counts)).sum();
        let halves = sizes
            .filter(|_| !is_blind(self.backend))
            .map(|[odd_ones, even_ones]| Halves {
                odd: Half {
                    held: odd,
                    available: odd_ones,
                },
                even: Half {
                    held: total.held.saturating_sub(odd),
                    available: even_ones,
                },
            });
        let forecast = available
            .filter(|_| !is_blind(self.backend))
            .and_then(|available| {
                forecast(&forecast::Pool {
                    available,
                    used: total.held + beside,
                    waiting: total.waiting,
                    taken: total.taken,
                    given: total.given,
                    waited: total.waited,
                    interval,
                    waits: forecast::waits(
                        limits.reuses_time_wait(peer.map(|(address, _)| address)) == Some(true),
                    ),
                })
            });
        Some(Pool {
            netns: key.netns,
            transport: transport(key),
            scope: scope(key),
            local: address(key.family, key.local),
            peer,
            own_range: own,
            available,
            beside,
            total,
            halves,
            shares: Vec::new(),
            processes: rows.len(),
            forecast,
        })
    }

    fn failures<T: Table>(
        &self,
        table: &T,
        pools: &[(Pool, &[Row])],
        around: &impl Surroundings,
    ) -> (Vec<Failure>, usize) {
        let mut failing: Vec<(&Pool, &Row)> = pools
            .iter()
            .flat_map(|(pool, rows)| rows.iter().map(move |row| (pool, row)))
            .filter(|(_, row)| row.counts.failed > 0)
            .collect();
        let total = failing.len();
        failing.sort_by_key(|(_, row)| Reverse((row.used.failed, row.counts.failed)));
        let named = failing
            .into_iter()
            .take(self.top)
            .filter_map(|(pool, row)| {
                let entry = table.entry(row.index)?;
                let limits = around.limits(pool.netns);
                let services = around.services(pool.netns);
                Some(Failure {
                    pool: pool.clone(),
                    who: who(&entry, around),
                    errno: errno(&row.key),
                    now: row.used.failed,
                    total: row.counts.failed,
                    cause: causes::of(pool, &limits, &services, !is_blind(self.backend)),
                })
            });
        (named.collect(), total)
    }

    fn groups<T: Table>(
        &self,
        table: &T,
        rows: &[Row],
        around: &impl Surroundings,
    ) -> (Vec<Group>, usize) {
        let mut groups: HashMap<GroupName, (Use, std::collections::HashSet<u32>)> = HashMap::new();
        for row in rows.iter().filter(|row| row.used != Use::default()) {
            let Some(entry) = table.entry(row.index) else {
                continue;
            };
            let name = match self.by {
                By::Process => GroupName::Process(
                    Who {
                        pid: None,
                        ..who(&entry, around)
                    },
                    0,
                ),
                By::Destination => GroupName::Destination(peer(&row.key)),
                By::Source => GroupName::Source(address(row.key.family, row.key.local)),
                By::Netns => GroupName::Netns(row.key.netns),
                By::Container => GroupName::Container(around.container(&entry)),
            };
            let (sum, pids) = groups.entry(name).or_default();
            sum.add(&row.used);
            pids.insert(entry.pid);
        }
        let total = groups.len();
        let mut list: Vec<Group> = groups
            .into_iter()
            .map(|(name, (total, pids))| Group {
                name: match name {
                    GroupName::Process(who, _) => {
                        let only = (pids.len() == 1).then(|| pids.iter().next().copied());
                        let pid = only.flatten().filter(|&pid| pid != 0);
                        GroupName::Process(Who { pid, ..who }, pids.len() as u64)
                    }
                    name => name,
                },
                total,
            })
            .collect();
        list.sort_by(|one, other| {
            let rank = |group: &Group| Reverse((group.total.held, group.total.taken));
            rank(one)
                .cmp(&rank(other))
                .then_with(|| one.name.cmp(&other.name))
        });
        list.truncate(self.top);
        (list, total)
    }
}

fn sum(rows: &[Row]) -> Use {
    let mut sum = Use::default();
    for row in rows {
        sum.add(&row.used);
    }
    sum
}

/// Names the processes of a pool that is shown.
fn name<T: Table>(pool: &mut Pool, table: &T, rows: &[Row], around: &impl Surroundings) {
    let mut rows: Vec<&Row> = rows
        .iter()
        .filter(|row| row.used != Use::default())
        .collect();
    rows.sort_by_key(|row| Reverse((row.used.held, row.used.taken)));
    pool.processes = rows.len();
    pool.shares = rows
        .into_iter()
        .take(SHARES)
        .filter_map(|row| Some((who(&table.entry(row.index)?, around), row.used)))
        .collect();
}
