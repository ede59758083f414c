//! Ports that NAT has taken.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{family, forecast, joined, range};
use crate::churn::{
    causes::outlook_of_nat,
    figures::Use,
    nat::{Gateway, Nat, NatPool},
};

pub(super) fn body(nat: &Nat) -> Value {
    let Nat {
        gateways,
        pools,
        pools_total,
        hidden,
    } = nat;
    // Where the kernel tells nobody, there are no pools that could be counted.
    let is_told = hidden.is_none() || !pools.is_empty();
    json!({
        "namespaces": gateways.iter().map(gateway).collect::<Vec<_>>(),
        "pools": is_told.then(|| pools.iter().map(pool).collect::<Vec<_>>()),
        "pools_total": is_told.then_some(pools_total),
    })
}

fn gateway(one: &Gateway) -> Value {
    let Gateway {
        netns,
        count,
        limit,
        failed,
        failed_total,
    } = one;
    json!({
        "netns": netns,
        "tracked": {"count": count, "limit": limit},
        "failed": {"now": failed, "total": failed_total},
    })
}

fn pool(pool: &NatPool) -> Value {
    let NatPool {
        netns,
        zone,
        transport,
        external,
        destination: (address, port),
        range: class,
        available,
        seen,
        changed,
        is_compared,
        total,
        clients,
        clients_total,
        forecast: outlook,
    } = pool;
    joined([
        json!({
            "network": {
                "transport": transport.as_str(),
                "type": family(*external),
                "local": {"address": external.to_string()},
                "peer": {"address": address.to_string(), "port": port},
            },
            "socket": {"netns": netns},
            "zone": (*zone != 0).then_some(zone),
            "range": range(class),
            "available": available,
            "seen": seen.as_ref().map(range),
            "changed": changed,
        }),
        used(total, *is_compared),
        json!({
            "clients": clients.iter().map(|one| client(one, *is_compared)).collect::<Vec<_>>(),
            "clients_total": clients_total,
            "forecast": outlook.as_ref().map(forecast),
            "message": outlook_of_nat(pool),
        }),
    ])
}

fn client((address, part): &(IpAddr, Use), is_compared: bool) -> Value {
    joined([
        json!({"client": {"address": address.to_string()}}),
        used(part, is_compared),
    ])
}

/// Failures are counted of the namespace alone.
fn used(one: &Use, is_compared: bool) -> Value {
    let Use {
        held,
        waiting,
        taken,
        given,
        waited,
        failed: _,
    } = one;
    json!({
        "held": held,
        "waiting": waiting,
        "taken": is_compared.then_some(taken),
        "given": is_compared.then_some(given),
        "waited": is_compared.then_some(waited),
    })
}
