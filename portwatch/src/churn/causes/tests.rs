#![expect(clippy::unwrap_used, reason = "tests panic")]

use std::time::Duration;

use super::*;
use crate::churn::{
    figures::{Use, Who},
    forecast::Forecast,
};

fn pool(scope: Scope) -> Pool {
    Pool {
        netns: 7,
        transport: Transport::Tcp,
        scope,
        local: "10.0.0.1".parse().unwrap(),
        peer: (scope == Scope::Tuple).then(|| ("10.0.0.9".parse().unwrap(), 5432)),
        own_range: None,
        available: Some(28_232),
        beside: 0,
        total: Use {
            held: 28_232,
            ..Use::default()
        },
        halves: None,
        shares: Vec::new(),
        processes: 0,
        forecast: None,
    }
}

fn limits() -> Limits {
    Limits {
        range: Some(32_768..=60_999),
        reserved: Some(Vec::new()),
        tw_reuse: Some(2),
        ..Limits::default()
    }
}

fn said(name: &str, pool: &Pool) -> String {
    let services = ["postgresql (5432)".to_owned()];
    let cause = of(pool, &limits(), &services, true);
    format!(
        "{name}\n  {}\n  {}\n",
        cause.message,
        cause.hint.unwrap_or_default()
    )
}

#[test]
fn each_cause_has_its_hint_with_its_numbers() {
    let tuple = pool(Scope::Tuple);
    let waiting = Pool {
        total: Use {
            waiting: 28_000,
            ..tuple.total
        },
        ..tuple.clone()
    };
    let beside = Pool {
        beside: 28_000,
        total: Use {
            held: 232,
            ..Use::default()
        },
        ..tuple.clone()
    };
    let own = Pool {
        own_range: Some(41_000..=41_003),
        available: Some(4),
        total: Use {
            held: 4,
            ..Use::default()
        },
        ..tuple.clone()
    };
    let udp = Pool {
        transport: Transport::Udp,
        ..pool(Scope::Address)
    };
    insta::assert_snapshot!(
        [
            said("open at once", &tuple),
            said("in TIME_WAIT", &waiting),
            said("bound before", &beside),
            said("a range of its own", &own),
            said("bind(0)", &pool(Scope::Address)),
            said("UDP", &udp),
        ]
        .concat()
    );
    let cause = of(&tuple, &Limits::default(), &[], false);
    assert_eq!(cause.message, "no port of 10.0.0.1 left to 10.0.0.9:5432");
}

#[test]
fn what_will_become_of_it() {
    let worker = |comm: &str| {
        (
            Who {
                pid: Some(4),
                comm: Some(comm.to_owned()),
                container: None,
            },
            Use::default(),
        )
    };
    let forecast = Forecast {
        rate: 450.0,
        needed: 27_000.0,
        available: 28_232,
        fails_at: Some(470.53),
        runs_out: None,
    };
    let short = Forecast {
        rate: 600.0,
        needed: 36_000.0,
        fails_at: Some(470.53),
        runs_out: Some(Duration::from_secs(240)),
        ..forecast
    };
    let of = |forecast, failed, processes| {
        outlook(&Pool {
            forecast: Some(forecast),
            shares: vec![worker("curl-worker\x1b[2J")],
            processes,
            total: Use {
                failed,
                ..Use::default()
            },
            ..pool(Scope::Tuple)
        })
        .unwrap()
    };
    insta::assert_snapshot!(
        [
            of(forecast, 0, 1),
            of(forecast, 0, 3),
            of(short, 0, 1),
            of(short, 9, 1),
            of(
                Forecast {
                    runs_out: None,
                    ..short
                },
                0,
                1
            ),
            of(
                Forecast {
                    rate: 0.5,
                    needed: 30.0,
                    fails_at: Some(470.5),
                    ..forecast
                },
                0,
                1
            ),
        ]
        .join("\n")
    );
    assert_eq!(outlook(&pool(Scope::Tuple)), None);
}
