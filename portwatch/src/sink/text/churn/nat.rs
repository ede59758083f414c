//! Lines of the ports that NAT has taken.

use std::{net::SocketAddr, time::Duration};

use super::{
    more,
    numbers::{known, rate},
};
use crate::{
    churn::{
        causes::outlook_of_nat,
        nat::{Gateway, Hidden, Nat, NatPool},
    },
    conflict::words::phrase::thousands,
};

pub(super) fn lines(nat: &Nat, interval: Duration) -> Vec<String> {
    let Nat {
        gateways,
        pools,
        pools_total,
        hidden,
    } = nat;
    let mut lines = vec![String::new()];
    lines.extend(gateways.iter().map(|one| gateway(one, interval)));
    lines.extend(hidden.map(reason));
    if !pools.is_empty() {
        lines.push(format!(
            "{:>7} {:>7} {:>9} {:>8} {:>7}  PORTS OF NAT",
            "USED", "OF", "TIME_WAIT", "TAKEN/s", "CHANGED"
        ));
        for one in pools {
            lines.extend(pool(one, interval));
        }
        more(&mut lines, *pools_total, pools.len());
    }
    lines
}

fn gateway(one: &Gateway, interval: Duration) -> String {
    let Gateway {
        netns,
        count,
        limit,
        failed,
        failed_total,
    } = one;
    let limit = limit.map_or_else(String::new, |limit| format!(" of {}", thousands(limit)));
    let now = failed.map_or_else(|| "-".to_owned(), |failed| rate(failed, interval));
    format!(
        "NAT in netns {netns}: {}{limit} connections tracked; not entered/s: {now}, in all {}",
        thousands(*count),
        known(*failed_total)
    )
}

fn reason(hidden: Hidden) -> String {
    match hidden {
        Hidden::NotPermitted => "  the kernel tells of NAT only who has CAP_NET_ADMIN".to_owned(),
        Hidden::NotAnswered => {
            "  the kernel did not tell all connections that it tracks".to_owned()
        }
        Hidden::Closed(count) => format!(
            "  {} network namespaces cannot be entered: NAT there is not shown",
            thousands(count as u64)
        ),
        Hidden::TooMany(count) => format!(
            "  {} more network namespaces track connections: NAT there is not shown",
            thousands(count as u64)
        ),
    }
}

fn pool(pool: &NatPool, interval: Duration) -> Vec<String> {
    let NatPool {
        netns: _,
        zone,
        transport,
        external,
        destination: (address, port),
        range,
        available,
        seen,
        changed,
        is_compared,
        total,
        clients,
        clients_total,
        forecast: _,
    } = pool;
    let named: Vec<String> = clients
        .iter()
        .take(2)
        .map(|(client, _)| client.to_string())
        .collect();
    let others = clients_total.saturating_sub(named.len());
    let others = if others > 0 {
        format!(" and {} more", thousands(others as u64))
    } else {
        String::new()
    };
    let zone = if *zone == 0 {
        String::new()
    } else {
        format!(" (zone {zone})")
    };
    let ports = match (available, seen) {
        // All of a class is the ordinary case.
        (Some(_), Some(_)) if *range.start() == 1024 => String::new(),
        (_, Some(seen)) => format!(" from ports {}-{}", seen.start(), seen.end()),
        (_, None) => String::new(),
    };
    let mut lines = vec![format!(
        "{:>7} {:>7} {:>9} {:>8} {:>7}  {} {external} → {}{zone}{ports}  {}{others}",
        thousands(total.held),
        available.map_or_else(|| "-".to_owned(), thousands),
        thousands(total.waiting),
        if *is_compared {
            rate(total.taken, interval)
        } else {
            "-".to_owned()
        },
        thousands(*changed),
        transport.as_str(),
        SocketAddr::new(*address, *port),
        named.join(", "),
    )];
    lines.extend(outlook_of_nat(pool).map(|words| format!("        {words}")));
    lines
}
