#![expect(clippy::unwrap_used, reason = "tests panic")]

use portwatch_ebpf::abi::churn::{BUCKETS, how};

use super::*;
use crate::{
    churn::{
        causes::outlook,
        figures::{GroupName, Scope},
    },
    sample,
};

/// Rows in memory: two for sums, then those of tuples.
#[derive(Default)]
struct Rows(Vec<Option<(Entry, Counts)>>, [Counts; 2]);

impl Table for Rows {
    fn len(&self) -> u32 {
        2 + self.0.len() as u32
    }

    fn first(&self) -> u32 {
        2
    }

    fn entry(&self, index: u32) -> Option<Entry> {
        Some(self.0[index as usize - 2]?.0)
    }

    fn counts(&self, index: u32) -> Counts {
        match index {
            0 | 1 => self.1[index as usize],
            _ => self.0[index as usize - 2].unwrap().1,
        }
    }
}

struct World;

impl Surroundings for World {
    fn limits(&self, _: u32) -> Limits {
        Limits {
            range: Some(32_768..=60_999),
            reserved: Some(Vec::new()),
            tw_reuse: Some(2),
            autobind_reuse: Some(false),
            time_wait: Some(27_000),
        }
    }

    fn container(&self, entry: &Entry) -> Option<String> {
        (entry.cgroup != 0).then(|| format!("c{}", entry.cgroup))
    }

    fn services(&self, _: u32) -> Vec<String> {
        Vec::new()
    }
}

fn v4(address: [u8; 4]) -> [u64; 2] {
    [u64::from(u32::from_ne_bytes(address)), 0]
}

fn entry(how: u8, peer: u16, name: &str, pid: u32) -> Entry {
    let mut comm = [0; 16];
    comm[..name.len()].copy_from_slice(name.as_bytes());
    let connects = how == how::CONNECT;
    Entry {
        key: Key {
            process: pid.into(),
            local: v4([10, 0, 0, 1]),
            peer: if connects { v4([10, 0, 0, 9]) } else { [0; 2] },
            netns: 7,
            range: 0,
            peer_port: if connects { peer } else { 0 },
            family: 2,
            transport: 6,
            how,
            reserved: 0,
        },
        comm,
        pid,
        started: 1,
        cgroup: 0,
    }
}

fn place(taken: u64, given: u64) -> Place {
    let mut held = [0; BUCKETS];
    held[20] = given;
    let mut by = [0; how::SLOTS];
    by[usize::from(how::CONNECT)] = taken;
    let mut back = [0; how::SLOTS];
    back[usize::from(how::CONNECT)] = given;
    Place {
        taken: by,
        given: back,
        failed: [0; how::SLOTS],
        waited: taken,
        ended: given,
        forgotten: 0,
        odd: 0,
        held,
        searched: [0; BUCKETS],
    }
}

fn at(seconds: u64) -> Time {
    Time {
        boot: seconds * 1_000_000_000,
        ..sample::time()
    }
}

fn model(by: By) -> Model {
    Model::new(Backend::Tracing, by, 10, 16, at(0))
}

fn reading(rows: &Rows, seconds: u64, place: Place) -> Reading<'_, Rows> {
    Reading {
        time: at(seconds),
        table: rows,
        places: vec![(0, self::place(0, 0)), (7, place)],
        skipped: 0,
    }
}

fn counts(taken: u64, waited: u64, given: u64) -> Counts {
    Counts {
        taken,
        waited,
        given,
        ended: given,
        ..Counts::default()
    }
}

#[test]
fn an_interval_is_what_lies_between_two_readings() {
    let mut rows = Rows(
        vec![Some((
            entry(how::CONNECT, 5432, "curl-worker", 4),
            counts(4_500, 4_500, 0),
        ))],
        Default::default(),
    );
    let mut model = model(By::Process);
    model.update(&reading(&rows, 10, place(4_500, 0)), &World);
    rows.0[0].as_mut().unwrap().1 = counts(9_000, 9_000, 10);
    let (figures, _) = model.update(&reading(&rows, 20, place(9_000, 10)), &World);
    let [one] = &figures.namespaces[..] else {
        panic!("{figures:?}");
    };
    assert_eq!(
        (one.now.taken.connect, one.total.taken.connect),
        (4_500, 9_000)
    );
    assert_eq!((one.now.given, one.total.given), (Some(10), Some(10)));
    assert_eq!(
        (one.held, one.waiting, one.time_wait),
        (Some(8_990), Some(8_990), Some(27_000))
    );
    assert!(one.held_for.is_some() && one.searched.is_none());
    let [pool] = &figures.pools[..] else {
        panic!("{figures:?}");
    };
    assert_eq!(
        (pool.scope, pool.available, pool.used()),
        (Scope::Tuple, Some(28_232), 8_990)
    );
    assert_eq!(
        outlook(pool).unwrap(),
        "curl-worker → 10.0.0.9:5432 needs 27,000 of 28,232 ports at 450/s; at 471/s it fails"
    );
    assert_eq!(figures.groups.len(), 1);
}

#[test]
fn bound_ports_are_lost_to_every_destination() {
    let rows = Rows(
        vec![
            Some((entry(how::CONNECT, 443, "client", 4), counts(5, 0, 0))),
            Some((entry(how::CONNECT, 80, "client", 4), counts(9, 0, 0))),
            Some((entry(how::BIND, 0, "binder", 5), counts(100, 0, 0))),
            Some((entry(how::LISTEN, 0, "server", 6), counts(3, 0, 1))),
        ],
        Default::default(),
    );
    let (figures, _) = model(By::Destination).update(&reading(&rows, 1, place(117, 1)), &World);
    let used: Vec<_> = figures
        .pools
        .iter()
        .map(|pool| (pool.scope, pool.total.held, pool.beside))
        .collect();
    // bind() and listen() share a pool on one address.
    assert_eq!(
        used,
        [
            (Scope::Tuple, 9, 102),
            (Scope::Tuple, 5, 102),
            (Scope::Address, 102, 0),
        ]
    );
    let largest = &figures.groups[0];
    assert_eq!(
        (&largest.name, largest.total.held),
        (&GroupName::Destination(None), 102)
    );
}

#[test]
fn processes_of_one_name_are_one_group() {
    let rows = Rows(
        (0..5)
            .map(|pid| Some((entry(how::CONNECT, 443, "curl", 100 + pid), counts(2, 0, 0))))
            .collect(),
        Default::default(),
    );
    let (figures, _) = model(By::Process).update(&reading(&rows, 1, place(10, 0)), &World);
    let [group] = &figures.groups[..] else {
        panic!("{figures:?}");
    };
    assert!(matches!(&group.name, GroupName::Process(who, 5) if who.pid.is_none()));
    assert_eq!(group.total.held, 10);
    assert_eq!(
        (figures.pools[0].processes, figures.pools[0].shares.len()),
        (5, 5)
    );
}

#[test]
fn what_has_failed_is_told_as_long_as_its_row_is_there() {
    let mut failing = counts(0, 0, 0);
    failing.failed = 3;
    let rows = Rows(
        vec![Some((entry(how::CONNECT, 443, "client", 4), failing))],
        Default::default(),
    );
    let mut model = model(By::Process);
    for (now, pools) in [(3, 1), (0, 0)] {
        let (figures, _) = model.update(&reading(&rows, 1, place(0, 0)), &World);
        let [failure] = &figures.failures[..] else {
            panic!("{figures:?}");
        };
        assert_eq!(
            (failure.now, failure.total, failure.who.pid),
            (now, 3, Some(4))
        );
        assert_eq!(figures.pools_total, pools);
    }
}

#[test]
fn idle_rows_are_taken_back_only_when_they_are_needed() {
    let idle = |count: usize| {
        Rows(
            (0..count)
                .map(|at| {
                    Some((
                        entry(how::CONNECT, 1 + at as u16, "client", 4),
                        counts(1, 0, 1),
                    ))
                })
                .chain((count..8).map(|_| None))
                .collect(),
            Default::default(),
        )
    };
    for (count, expected) in [(3, 0), (6, 6)] {
        let rows = idle(count);
        let mut model = model(By::Process);
        let mut abandoned = Vec::new();
        let mut freed = Vec::new();
        for seconds in 1..8 {
            let (_, todo) = model.update(&reading(&rows, seconds, place(0, 0)), &World);
            // Told to take another first, and an interval later free.
            assert!(todo.free.is_empty() || abandoned.len() == expected);
            if freed.is_empty() {
                abandoned.extend(todo.abandon);
                freed.extend(todo.free);
            }
        }
        assert_eq!((abandoned.len(), freed.len()), (expected, expected));
    }
}

#[test]
fn raw_tracepoints_say_nothing_of_what_is_held() {
    let rows = Rows(
        vec![Some((
            entry(how::CONNECT, 443, "client", 4),
            counts(5, 0, 0),
        ))],
        Default::default(),
    );
    let mut model = Model::new(Backend::RawTp, By::Process, 10, 16, at(0));
    let (figures, _) = model.update(&reading(&rows, 1, place(5, 0)), &World);
    let one = &figures.namespaces[0];
    assert_eq!((one.held, one.waiting, one.now.given), (None, None, None));
    assert_eq!((one.now.taken.connect, one.time_wait), (5, Some(27_000)));
    assert!(figures.pools[0].forecast.is_none());
    assert!(figures.unseen.contains(&"namespaces.held"));
}

#[test]
fn what_found_no_row_is_summed() {
    let rows = Rows(Vec::new(), [counts(7, 0, 2), counts(1, 0, 0)]);
    let (figures, _) = model(By::Process).update(&reading(&rows, 1, place(8, 2)), &World);
    assert_eq!((figures.tail.taken, figures.tail.held), (8, 6));
}
