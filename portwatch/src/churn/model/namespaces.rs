//! What each network namespace was like.

use std::collections::BTreeMap;

use portwatch_ebpf::abi::churn::{BUCKETS, Place, how};

use super::{Model, Reading, Row, Surroundings, Table, is_blind};
use crate::churn::{
    figures::{ByHow, Flow, Namespace},
    histogram::percentiles,
    rows::{held_odd, own_range},
};

/// What the rows of a network namespace say.
#[derive(Clone, Debug, Default)]
struct Held {
    held: u64,
    odd: u64,
    waiting: u64,
    own_ranges: BTreeMap<(u16, u16), u64>,
}

impl Model {
    pub(super) fn namespaces<T: Table>(
        &self,
        reading: &Reading<'_, T>,
        rows: &[Row],
        around: &impl Surroundings,
    ) -> Vec<Namespace> {
        let mut held: BTreeMap<u32, Held> = BTreeMap::new();
        for row in rows {
            let place = held.entry(row.key.netns).or_default();
            place.held += row.used.held;
            place.waiting += row.used.waiting;
            place.odd += held_odd(&row.counts);
            if let Some(range) = own_range(&row.key).filter(|_| row.used.held > 0) {
                *place
                    .own_ranges
                    .entry((*range.start(), *range.end()))
                    .or_default() += row.used.held;
            }
        }
        let mut places: BTreeMap<u32, Option<&Place>> =
            held.keys().map(|netns| (*netns, None)).collect();
        places.extend(
            reading
                .places
                .iter()
                .map(|(netns, place)| (*netns, Some(place))),
        );
        let mut list: Vec<Namespace> = places
            .into_iter()
            .map(|(netns, place)| {
                let held = held.remove(&netns).unwrap_or_default();
                self.namespace(netns, place, &held, around)
            })
            .filter(|one| {
                one.netns.is_some()
                    || one.total
                        != Flow {
                            given: one.total.given,
                            waited: one.total.waited,
                            ended: one.total.ended,
                            ..Flow::default()
                        }
            })
            .collect();
        list.sort_by_key(|one| std::cmp::Reverse((one.held, one.now.taken.sum())));
        list
    }

    fn namespace(
        &self,
        netns: u32,
        place: Option<&Place>,
        held: &Held,
        around: &impl Surroundings,
    ) -> Namespace {
        let sees = !is_blind(self.backend);
        let limits = if netns == 0 {
            crate::churn::limits::Limits::default()
        } else {
            around.limits(netns)
        };
        let before = self.places.get(&netns);
        let total = flow(place, None, sees);
        let now = flow(place, before, sees);
        let times = |of: fn(&Place) -> &[u64; BUCKETS]| {
            let place = place?;
            percentiles(&match before {
                Some(before) => difference(of(place), of(before)),
                None => *of(place),
            })
        };
        Namespace {
            netns: Some(netns).filter(|&netns| netns != 0),
            available: limits.available(None),
            reserved: limits.reserved_in_range(),
            range: limits.range,
            tw_reuse: limits.tw_reuse,
            autobind_reuse: limits.autobind_reuse,
            own_ranges: held
                .own_ranges
                .iter()
                .map(|(&(low, high), &count)| (low..=high, count))
                .collect(),
            now,
            total,
            held: sees.then_some(held.held),
            held_odd: sees.then_some(held.odd),
            time_wait: limits.time_wait,
            waiting: sees.then_some(held.waiting),
            held_for: times(|place| &place.held).filter(|_| sees),
            searched: times(|place| &place.searched).filter(|_| sees),
        }
    }
}

fn difference<const N: usize>(now: &[u64; N], before: &[u64; N]) -> [u64; N] {
    // Where the slot was another's, what it counts begins again.
    std::array::from_fn(|at| now[at].saturating_sub(before[at]))
}

fn flow(place: Option<&Place>, before: Option<&Place>, sees: bool) -> Flow {
    let Some(place) = place else {
        let none = sees.then_some(0);
        return Flow {
            given: none,
            waited: none,
            ended: none,
            ..Flow::default()
        };
    };
    let since = |of: fn(&Place) -> &[u64; how::SLOTS]| match before {
        Some(before) => difference(of(place), of(before)),
        None => *of(place),
    };
    let one = |of: fn(&Place) -> u64| of(place).saturating_sub(before.map_or(0, of));
    let taken = since(|place| &place.taken);
    let by = |how: u8| taken.get(usize::from(how)).copied().unwrap_or_default();
    Flow {
        taken: ByHow {
            connect: by(how::CONNECT),
            bind: by(how::BIND) + by(how::UDP_BIND),
            listen: by(how::LISTEN),
            udp: by(how::AUTOBIND),
        },
        given: sees.then(|| since(|place| &place.given).iter().sum()),
        waited: sees.then(|| one(|place| place.waited)),
        ended: sees.then(|| one(|place| place.ended)),
        failed: since(|place| &place.failed).iter().sum(),
        odd: one(|place| place.odd),
    }
}
