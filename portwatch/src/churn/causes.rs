//! Why there was no port, and what to do about it: with the numbers behind it.

use std::net::SocketAddr;

use super::{
    figures::{Pool, Scope},
    forecast::Forecast,
    limits::Limits,
    nat::NatPool,
};
use crate::{
    conflict::words::phrase::{harmless, thousands},
    event::Transport,
};

/// Why, and what to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cause {
    /// What is short, with its numbers.
    pub message: String,
    /// What to do; nothing where it is not known what is short.
    pub hint: Option<String>,
}

/// Half of the ports: what waits is the cause then.
fn mostly(part: u64, whole: u64) -> bool {
    part * 2 > whole
}

/// Of a pool that had no port. `services`: names of services whose ports a wider range would hit. `sees`:
/// whether it is known what is held.
#[must_use]
pub fn of(pool: &Pool, limits: &Limits, services: &[String], sees: bool) -> Cause {
    Cause {
        message: message(pool, sees),
        hint: hint(pool, limits, services),
    }
}

fn message(pool: &Pool, sees: bool) -> String {
    let Pool {
        available,
        total,
        beside,
        ..
    } = pool;
    let of = available.map_or_else(String::new, |available| {
        format!(" of {}", thousands(available))
    });
    let mut parts = Vec::new();
    if total.waiting > 0 {
        parts.push(format!("{} in TIME_WAIT", thousands(total.waiting)));
    }
    if *beside > 0 {
        parts.push(format!("{} bound besides", thousands(*beside)));
    }
    let parts = if parts.is_empty() {
        String::new()
    } else {
        format!(", {}", parts.join(", "))
    };
    let used = if sees {
        format!(": {}{of} used{parts}", thousands(pool.used()))
    } else {
        String::new()
    };
    let transport = match pool.transport {
        Transport::Udp => "UDP ",
        _ => "",
    };
    match (pool.scope, pool.peer) {
        (Scope::Tuple, Some((address, port))) => format!(
            "no port of {} left to {}{used}",
            pool.local,
            SocketAddr::new(address, port)
        ),
        _ => format!("no automatic {transport}port left on {}{used}", pool.local),
    }
}

fn hint(pool: &Pool, limits: &Limits, services: &[String]) -> Option<String> {
    let available = pool.available?;
    let mut hints = Vec::new();
    let open = pool.total.held.saturating_sub(pool.total.waiting);
    match pool.scope {
        Scope::Tuple => {
            if mostly(pool.beside, pool.used()) {
                hints.push(format!(
                    "{} of the ports are bound before connect(): IP_BIND_ADDRESS_NO_PORT would let each \
                     destination have all {}",
                    thousands(pool.beside),
                    thousands(available)
                ));
            }
            if mostly(pool.total.waiting, pool.used()) {
                hints.push(format!(
                    "keep connections open or pool them: {} wait 60 s each for {} that are open",
                    thousands(pool.total.waiting),
                    thousands(open)
                ));
                let peer = pool.peer.map(|(address, _)| address);
                if limits.reuses_time_wait(peer) == Some(false) {
                    hints.push(
                        "net.ipv4.tcp_tw_reuse = 1 lets new ones take them after a second"
                            .to_owned(),
                    );
                }
            } else if mostly(open, pool.used()) {
                hints.push(format!(
                    "{} connections are open at once: share them, or see who leaks them",
                    thousands(open)
                ));
            }
            hints.push(format!(
                "each more source address gives {} ports more",
                thousands(available)
            ));
        }
        Scope::Address if pool.transport == Transport::Tcp => {
            hints.push(format!(
                "if these sockets connect: with IP_BIND_ADDRESS_NO_PORT each destination has {} ports, \
                 where bind() before connect() shares one pool among all",
                thousands(available)
            ));
            hints.push("bind other addresses too".to_owned());
        }
        Scope::Address if pool.used() > 0 => hints.push(format!(
            "send from fewer sockets: {} are open",
            thousands(pool.used())
        )),
        Scope::Address => hints.push("send from fewer sockets".to_owned()),
    }
    hints.push(widen(pool, limits, services));
    Some(hints.join("; "))
}

fn widen(pool: &Pool, limits: &Limits, services: &[String]) -> String {
    if let Some(own) = &pool.own_range {
        return format!(
            "widen IP_LOCAL_PORT_RANGE of the sockets, {}-{}",
            own.start(),
            own.end()
        );
    }
    let Some(range) = &limits.range else {
        return "widen net.ipv4.ip_local_port_range".to_owned();
    };
    let hits = if services.is_empty() {
        String::new()
    } else {
        format!(
            " (that would hit {}: net.ipv4.ip_local_reserved_ports keeps them out)",
            services.join(", ")
        )
    };
    format!(
        "widen net.ipv4.ip_local_port_range, {}-{}{hits}",
        range.start(),
        range.end()
    )
}

/// What will become of a pool, in a line: nothing where nothing is taken, or it is not known of how many.
#[must_use]
pub fn outlook(pool: &Pool) -> Option<String> {
    let forecast = pool.forecast?;
    let who = match (&pool.shares[..], pool.processes) {
        ([(who, _), ..], 1) => who.comm.clone(),
        ([(who, _), ..], more) => who
            .comm
            .as_ref()
            .map(|comm| format!("{comm} and {} more", more - 1)),
        _ => None,
    };
    let who = who.unwrap_or_else(|| "somebody".to_owned());
    let what = match pool.peer {
        Some((address, port)) => format!("{who} → {}", SocketAddr::new(address, port)),
        None => format!("{who} on {}", pool.local),
    };
    Some(foretold(&what, &forecast, pool.total.failed))
}

/// What will become of the ports that NAT takes, in a line.
#[must_use]
pub fn outlook_of_nat(pool: &NatPool) -> Option<String> {
    let NatPool {
        external,
        destination: (address, port),
        clients,
        clients_total,
        forecast,
        ..
    } = pool;
    let who = match (&clients[..], clients_total) {
        ([(client, _), ..], 1) => client.to_string(),
        ([(client, _), ..], more) => format!("{client} and {} more", more - 1),
        _ => "somebody".to_owned(),
    };
    let what = format!("{who} as {external} → {}", SocketAddr::new(*address, *port));
    Some(foretold(&what, forecast.as_ref()?, 0))
}

/// `failed`: how often there was no port already.
fn foretold(what: &str, forecast: &Forecast, failed: u64) -> String {
    let whole = |number: f64| thousands(number.round() as u64);
    let rate = |number: f64| {
        if number < 10.0 {
            format!("{number:.1}")
        } else {
            whole(number)
        }
    };
    let mut words = format!(
        "{what} needs {} of {} ports at {}/s",
        whole(forecast.needed),
        thousands(forecast.available),
        rate(forecast.rate)
    );
    if forecast.fails() {
        match (forecast.runs_out, failed) {
            (_, failed) if failed > 0 => words += ": it fails now",
            (Some(time), _) => words += &format!(": it fails in {}", lasting(time)),
            (None, _) => words += ": it fails",
        }
        if let Some(limit) = forecast.fails_at {
            words += &format!(", as from {}/s on", rate(limit));
        }
    } else if let Some(limit) = forecast.fails_at {
        words += &format!("; at {}/s it fails", rate(limit.ceil()));
    }
    harmless(&words)
}

/// `45 s`, `12 min`, `3 h`.
fn lasting(time: std::time::Duration) -> String {
    match time.as_secs() {
        0..=119 => format!("{} s", time.as_secs().max(1)),
        seconds @ 120..=7199 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests;
