#![expect(clippy::unwrap_used, reason = "tests panic")]

use super::*;
use crate::enrich::conntrack::Ends;

const SECOND: Duration = Duration::from_secs(1);
const ESTABLISHED: u8 = 3;
const TIME_WAIT: u8 = 7;

/// A connection of 10.0.0.`client`, from `port` and to the outside from `external`.
fn connection(id: u32, client: u8, port: u16, external: u16, tcp_state: u8) -> Connection {
    let destination = ([198, 51, 100, 9].into(), 443);
    Connection {
        id,
        zone: 0,
        transport: Transport::Tcp,
        original: Ends {
            source: ([10, 0, 0, client].into(), port),
            destination,
        },
        reply: Ends {
            source: destination,
            destination: ([203, 0, 113, 1].into(), external),
        },
        tcp_state: Some(tcp_state),
    }
}

fn tracked(connections: &[Connection]) -> Tracked {
    Tracked {
        netns: 1,
        count: connections.len() as u64,
        time_wait: Some(Duration::from_secs(120)),
        failed: Some(0),
        translated: Some(connections.to_vec()),
        ..Tracked::default()
    }
}

fn look(accounts: &mut Accounts, connections: &[Connection]) -> Nat {
    accounts.update(&[tracked(connections)], None, SECOND, 10)
}

#[test]
fn what_is_there_at_the_first_look_was_taken_before() {
    let mut accounts = Accounts::default();
    let nat = look(
        &mut accounts,
        &[
            connection(1, 7, 40_000, 40_000, ESTABLISHED),
            connection(2, 7, 40_001, 40_001, TIME_WAIT),
        ],
    );
    let [pool] = &nat.pools[..] else {
        panic!("{nat:?}")
    };
    let expected = Use {
        held: 2,
        waiting: 1,
        ..Use::default()
    };
    assert_eq!(pool.total, expected);
    assert_eq!((pool.available, pool.changed), (Some(64_512), 0));
    assert_eq!(pool.seen, Some(40_000..=40_001));
    assert_eq!(pool.forecast, None);
}

#[test]
fn ports_are_taken_closed_and_given_back_by_client() {
    let mut accounts = Accounts::default();
    look(
        &mut accounts,
        &[
            connection(1, 7, 40_000, 40_000, ESTABLISHED),
            connection(2, 7, 40_001, 40_001, ESTABLISHED),
            connection(3, 8, 40_002, 40_002, TIME_WAIT),
        ],
    );
    let nat = look(
        &mut accounts,
        &[
            // Closed; the same port again, by another; gone; new, with another port than the client's.
            connection(1, 7, 40_000, 40_000, TIME_WAIT),
            connection(4, 9, 40_001, 40_001, ESTABLISHED),
            connection(5, 9, 40_000, 52_017, ESTABLISHED),
        ],
    );
    let pool = &nat.pools[0];
    let expected = Use {
        held: 3,
        waiting: 1,
        taken: 2,
        given: 2,
        waited: 1,
        failed: 0,
    };
    assert_eq!(pool.total, expected);
    assert_eq!(pool.changed, 1);
    assert_eq!(pool.clients_total, 3);
    let of = |client: u8| {
        let address = IpAddr::from([10, 0, 0, client]);
        pool.clients
            .iter()
            .find(|(one, _)| *one == address)
            .map(|(_, used)| (used.held, used.taken, used.given, used.waited))
    };
    assert_eq!(of(7), Some((1, 0, 1, 1)));
    assert_eq!(of(8), Some((0, 0, 1, 0)));
    assert_eq!(of(9), Some((2, 2, 0, 0)));
    // The last of it is told once.
    let nat = look(&mut accounts, &[]);
    assert_eq!((nat.pools[0].total.given, nat.pools[0].total.held), (3, 0));
    assert_eq!(nat.pools[0].seen, None);
    // Connections that nobody translates make no gateway.
    assert_eq!(look(&mut accounts, &[]), Nat::default());
}

#[test]
fn each_destination_address_zone_and_class_has_its_own_ports() {
    let one = connection(1, 7, 40_000, 40_000, ESTABLISHED);
    let mut elsewhere = one;
    elsewhere.reply.source.1 = 80;
    let mut as_other = one;
    as_other.reply.destination.0 = [203, 0, 113, 2].into();
    let zone = Connection { zone: 3, ..one };
    let datagrams = Connection {
        transport: Transport::Udp,
        tcp_state: None,
        ..one
    };
    let low = connection(2, 7, 700, 701, ESTABLISHED);
    let nat = look(
        &mut Accounts::default(),
        &[one, elsewhere, as_other, zone, datagrams, low],
    );
    assert_eq!(nat.pools_total, 6);
    let low = nat.pools.iter().find(|pool| *pool.range.start() == 512);
    assert_eq!(low.unwrap().available, Some(424));
}

#[test]
fn a_rule_that_names_ports_of_another_class_is_not_measured_by_the_class() {
    let nat = look(
        &mut Accounts::default(),
        &[connection(1, 7, 40_000, 600, ESTABLISHED)],
    );
    assert_eq!(nat.pools[0].available, None);
    assert_eq!(nat.pools[0].share(), None);
}

#[test]
fn the_fullest_come_first_and_no_more_than_asked_for() {
    let mut all = Vec::new();
    for port in 0..20u16 {
        for index in 0..=port {
            let mut one = connection(
                u32::from(port) << 8 | u32::from(index),
                7,
                2000 + index,
                2000 + index,
                ESTABLISHED,
            );
            one.reply.source.1 = 8000 + port;
            all.push(one);
        }
    }
    let nat = look(&mut Accounts::default(), &all);
    assert_eq!((nat.pools.len(), nat.pools_total), (10, 20));
    let held: Vec<u64> = nat.pools.iter().map(|pool| pool.total.held).collect();
    assert_eq!(held, (11..=20).rev().collect::<Vec<_>>());
}

/// 600 a second, each open for a second and kept for 120 s: more than there are, from 537 a second on.
#[test]
fn what_closes_is_kept_and_the_ports_run_out() {
    let mut accounts = Accounts::default();
    let mut open: Vec<Connection> = Vec::new();
    let mut kept: Vec<Connection> = Vec::new();
    let mut nat = Nat::default();
    for second in 0..3u16 {
        kept.extend(open.drain(..).map(|one| Connection {
            tcp_state: Some(TIME_WAIT),
            ..one
        }));
        let port = |index: u16| 2000 + second * 600 + index;
        open = (0..600)
            .map(|index| {
                let port = port(index);
                connection(port.into(), 7, port, port, ESTABLISHED)
            })
            .collect();
        nat = look(&mut accounts, &[&open[..], &kept[..]].concat());
    }
    let forecast = nat.pools[0].forecast.unwrap();
    assert_eq!(forecast.rate.round(), 600.0);
    assert_eq!(forecast.needed.round(), 600.0 + 600.0 * 120.0);
    assert!(forecast.fails());
    assert_eq!(forecast.fails_at.unwrap().round(), 533.0);
    let words = crate::churn::causes::outlook_of_nat(&nat.pools[0]).unwrap();
    assert_eq!(
        words,
        "10.0.0.7 as 203.0.113.1 → 198.51.100.9:443 needs 72,600 of 64,512 ports at 600/s: it fails in 104 s, \
         as from 533/s on"
    );
}

#[test]
fn what_the_kernel_did_not_tell_is_neither_taken_nor_given_back() {
    let mut accounts = Accounts::default();
    let one = connection(1, 7, 40_000, 40_000, ESTABLISHED);
    look(&mut accounts, &[one]);
    let silent = Tracked {
        translated: None,
        ..tracked(&[one])
    };
    let nat = accounts.update(&[silent], Some(Hidden::NotAnswered), SECOND, 10);
    assert!(nat.pools.is_empty() && nat.gateways.len() == 1);
    // What has come since then has come in two intervals.
    let other = connection(2, 7, 40_001, 40_001, ESTABLISHED);
    let nat = look(&mut accounts, &[one, other]);
    assert_eq!(
        nat.pools[0].total,
        Use {
            held: 2,
            ..Use::default()
        }
    );
}

#[test]
fn failures_are_those_since_the_last_look() {
    let mut accounts = Accounts::default();
    let mut failed = |failed| {
        let one = Tracked {
            failed: Some(failed),
            ..tracked(&[connection(1, 7, 40_000, 40_000, ESTABLISHED)])
        };
        let nat = accounts.update(&[one], None, SECOND, 10);
        let Gateway {
            failed,
            failed_total,
            ..
        } = nat.gateways[0];
        (failed, failed_total)
    };
    assert_eq!(failed(5), (None, Some(5)));
    assert_eq!(failed(7), (Some(2), Some(7)));
}
