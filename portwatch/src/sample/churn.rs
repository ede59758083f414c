//! Intervals of `churn`.

mod nat;

use std::time::Duration;

use crate::{
    churn::{
        causes,
        figures::{
            ByHow, Failure, Figures, Flow, Group, GroupName, Half, Halves, Loss, Namespace, Pool,
            Scope, Use, Who,
        },
        forecast::{self, forecast},
        histogram::Percentiles,
        limits::Limits,
        nat::{Hidden, Nat},
    },
    event::{Backend, Errno, Transport},
};

fn worker() -> Who {
    Who {
        pid: Some(812),
        comm: Some("curl\x1b[31m-worker".to_owned()),
        container: Some("0123456789abcdef".to_owned()),
    }
}

fn pool() -> Pool {
    let total = Use {
        held: 27_034,
        waiting: 26_950,
        taken: 450,
        given: 448,
        waited: 450,
        failed: 2,
    };
    Pool {
        netns: 4_026_531_840,
        transport: Transport::Tcp,
        scope: Scope::Tuple,
        local: [10, 0, 0, 1].into(),
        peer: Some(([10, 0, 0, 9].into(), 5432)),
        own_range: None,
        available: Some(28_232),
        beside: 3,
        total,
        halves: Some(Halves {
            odd: Half {
                held: 12_920,
                available: 14_116,
            },
            even: Half {
                held: 14_114,
                available: 14_116,
            },
        }),
        shares: vec![(worker(), total)],
        processes: 1,
        forecast: forecast(&forecast::Pool {
            available: 28_232,
            used: 27_037,
            waiting: 26_950,
            taken: 450,
            given: 448,
            waited: 450,
            interval: Duration::from_secs(1),
            waits: forecast::waits(false),
        }),
    }
}

/// One with everything, and one of raw tracepoints.
pub(crate) fn figures() -> Vec<Figures> {
    let now = Flow {
        taken: ByHow {
            connect: 450,
            bind: 1,
            listen: 0,
            udp: 3,
        },
        given: Some(448),
        waited: Some(450),
        ended: Some(448),
        failed: 2,
        odd: 0,
    };
    let times = Percentiles {
        p50: Duration::from_micros(3),
        p90: Duration::from_millis(12),
        p99: Duration::from_secs(61),
    };
    let namespace = Namespace {
        netns: Some(4_026_531_840),
        range: Some(32_768..=60_999),
        available: Some(28_230),
        reserved: Some(2),
        tw_reuse: Some(2),
        autobind_reuse: Some(true),
        own_ranges: vec![(41_000..=41_003, 4)],
        now,
        total: now,
        held: Some(27_040),
        held_odd: Some(11),
        time_wait: Some(26_999),
        waiting: Some(26_950),
        held_for: Some(times),
        searched: Some(times),
    };
    let address = Pool {
        scope: Scope::Address,
        peer: None,
        transport: Transport::Udp,
        own_range: Some(41_000..=41_003),
        available: None,
        halves: None,
        forecast: None,
        processes: 9,
        ..pool()
    };
    let limits = Limits {
        range: Some(32_768..=60_999),
        tw_reuse: Some(2),
        ..Limits::default()
    };
    let whole = Figures {
        time: super::time(),
        interval: Duration::from_secs(1),
        watched: Duration::from_secs(75),
        backend: Backend::Tracing,
        namespaces: vec![namespace.clone()],
        pools: vec![pool(), address],
        pools_total: 1_204,
        groups: vec![
            Group {
                name: GroupName::Process(worker(), 1),
                total: pool().total,
            },
            Group {
                name: GroupName::Process(
                    Who {
                        pid: None,
                        ..worker()
                    },
                    40,
                ),
                total: Use::default(),
            },
            Group {
                name: GroupName::Destination(Some(([10, 0, 0, 9].into(), 5432))),
                total: Use::default(),
            },
            Group {
                name: GroupName::Container(None),
                total: Use::default(),
            },
        ],
        groups_total: 4,
        failures: vec![Failure {
            pool: pool(),
            who: worker(),
            errno: Errno(libc::EADDRNOTAVAIL.unsigned_abs()),
            now: 2,
            total: 7,
            cause: causes::of(&pool(), &limits, &[], true),
        }],
        failures_total: 1,
        tail: Use {
            taken: 3,
            ..Use::default()
        },
        nat: Some(nat::figures()),
        loss: Loss {
            forgotten: 5,
            skipped: 1,
            looks: 1,
            corrected: 2,
            looked: true,
        },
        unseen: Vec::new(),
    };
    let blind = Figures {
        backend: Backend::RawTp,
        namespaces: vec![Namespace {
            held: None,
            held_odd: None,
            waiting: None,
            held_for: None,
            searched: None,
            now: Flow {
                given: None,
                waited: None,
                ended: None,
                ..now
            },
            total: Flow {
                given: None,
                waited: None,
                ended: None,
                ..now
            },
            ..namespace
        }],
        nat: Some(Nat {
            pools: Vec::new(),
            pools_total: 0,
            hidden: Some(Hidden::NotPermitted),
            ..nat::figures()
        }),
        loss: Loss::default(),
        tail: Use::default(),
        failures: Vec::new(),
        failures_total: 0,
        unseen: vec!["namespaces.held"],
        ..whole.clone()
    };
    vec![whole, blind]
}
