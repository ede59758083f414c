//! A gateway.

use std::time::Duration;

use crate::{
    churn::{
        figures::Use,
        forecast::{self, forecast},
        nat::{Gateway, Nat, NatPool},
    },
    event::Transport,
};

pub(super) fn figures() -> Nat {
    let total = Use {
        held: 61_000,
        waiting: 60_000,
        taken: 600,
        given: 500,
        waited: 600,
        failed: 0,
    };
    let one = Use {
        held: 1,
        ..Use::default()
    };
    let pool = NatPool {
        netns: 4_026_531_840,
        zone: 0,
        transport: Transport::Tcp,
        external: [203, 0, 113, 1].into(),
        destination: ([198, 51, 100, 9].into(), 443),
        range: 1024..=65_535,
        available: Some(64_512),
        seen: Some(1024..=65_535),
        changed: 812,
        is_compared: true,
        total,
        clients: vec![([10, 1, 0, 7].into(), total), ([10, 1, 0, 8].into(), one)],
        clients_total: 3,
        forecast: forecast(&forecast::Pool {
            available: 64_512,
            used: 61_000,
            waiting: 60_000,
            taken: 600,
            given: 500,
            waited: 600,
            interval: Duration::from_secs(1),
            waits: Duration::from_secs(120),
        }),
    };
    let named = NatPool {
        zone: 7,
        transport: Transport::Udp,
        range: 512..=1023,
        available: None,
        seen: Some(600..=603),
        changed: 1,
        is_compared: false,
        total: one,
        clients: vec![([10, 1, 0, 8].into(), one)],
        clients_total: 1,
        forecast: None,
        ..pool.clone()
    };
    Nat {
        gateways: vec![Gateway {
            netns: 4_026_531_840,
            count: 61_204,
            limit: Some(262_144),
            failed: Some(3),
            failed_total: Some(12),
        }],
        pools: vec![pool, named],
        pools_total: 14,
        hidden: None,
    }
}
