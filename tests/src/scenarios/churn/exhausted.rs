//! Real want of ports, made small.

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use serde_json::Value;

use super::{
    super::{Session, sessions},
    totals::{LO, connected, listener},
    watched::{Churn, failures, in_new_namespace, number, numbers, pools, sees_all},
};
use crate::{
    bench::Bench,
    expect::lookup,
    script::skip,
    sys::{
        netns::{Netns, sysctl},
        sock::{IP_LOCAL_PORT_RANGE, Kind, Sock},
    },
};

pub(super) const ALL: &[Session] = sessions![
    churn_exhausted_connect,
    churn_exhausted_bind_and_listen,
    churn_exhausted_udp,
    churn_exhausted_own_range,
];

/// Ten automatic ports in this namespace.
fn ten_ports() -> Result<()> {
    sysctl("ipv4/tcp_tw_reuse", "0")?;
    sysctl("ipv4/ip_local_port_range", "40000 40009")
}

/// The only failure, as it should be.
fn failed<'a>(line: &'a Value, netns: &Netns, errno: &str, count: u64) -> Result<&'a Value> {
    let all = failures(line, netns);
    let one = all
        .iter()
        .find(|one| lookup(one, "error.type").and_then(Value::as_str) == Some(errno))
        .with_context(|| format!("no failure with {errno}: {line}"))?;
    numbers(one, &[("total", count)])?;
    ensure!(
        lookup(one, "process.pid").and_then(Value::as_u64) == Some(std::process::id().into()),
        "whose it was: {one}"
    );
    Ok(one)
}

fn says(value: &Value, path: &str, parts: &[&str]) -> Result<()> {
    let text = lookup(value, path)
        .and_then(Value::as_str)
        .with_context(|| format!("no {path}: {value}"))?;
    for part in parts {
        ensure!(text.contains(part), "{path} should say {part:?}: {text}");
    }
    Ok(())
}

fn fails(result: Result<(), Errno>, errno: Errno) -> Result<()> {
    ensure!(result == Err(errno), "{result:?}, not {errno}");
    Ok(())
}

fn churn_exhausted_connect(bench: &Bench) -> Result<()> {
    in_new_namespace(|netns| {
        ten_ports()?;
        let server = listener(LO, 8080)?;
        let mut churn = Churn::start(bench, &[])?;
        let mut open = Vec::new();
        for _ in 0..10 {
            open.push(connected(&server)?);
        }
        let address = server.local().context("no address")?;
        for _ in 0..3 {
            let late = Sock::new(Kind::Tcp4)?;
            fails(late.connect(&address.into()), Errno::EADDRNOTAVAIL)?;
        }
        let line = churn.settled()?;
        let one = failed(&line, netns, "EADDRNOTAVAIL", 3)?;
        if sees_all(bench) {
            says(
                one,
                "message",
                &[
                    "no port of 127.0.0.1 left to 127.0.0.1:8080",
                    "10 of 10 used",
                ],
            )?;
            says(
                one,
                "hint",
                &[
                    "10 connections are open at once",
                    "widen net.ipv4.ip_local_port_range, 40000-40009",
                ],
            )?;
            let all = pools(&line, netns);
            let pool = all.first().context("no pool")?;
            numbers(
                pool,
                &[("used", 10), ("available", 10), ("held", 10), ("beside", 0)],
            )?;
        }
        // Towards another peer there are as many.
        let other = listener(LO, 8081)?;
        let _fine = connected(&other)?;
        Ok(())
    })
}

fn churn_exhausted_bind_and_listen(bench: &Bench) -> Result<()> {
    in_new_namespace(|netns| {
        ten_ports()?;
        let mut churn = Churn::start(bench, &[])?;
        let mut held = Vec::new();
        for _ in 0..10 {
            let sock = Sock::new(Kind::Tcp4)?;
            sock.bind(&(LO, 0).into())?;
            held.push(sock);
        }
        let late = Sock::new(Kind::Tcp4)?;
        fails(late.bind(&(LO, 0).into()), Errno::EADDRINUSE)?;
        fails(late.bind(&(LO, 0).into()), Errno::EADDRINUSE)?;
        fails(Sock::new(Kind::Tcp4)?.listen(5), Errno::EADDRINUSE)?;
        // A port that is named is no want of ports.
        fails(late.bind(&(LO, 40_000).into()), Errno::EADDRINUSE)?;
        let line = churn.settled()?;
        let of_address = |address: &str| -> Result<&Value> {
            failures(&line, netns)
                .into_iter()
                .find(|one| {
                    lookup(one, "network.local.address").and_then(Value::as_str) == Some(address)
                })
                .with_context(|| format!("no failure on {address}: {line}"))
        };
        let bound = of_address("127.0.0.1")?;
        numbers(bound, &[("total", 2)])?;
        let listening = of_address("0.0.0.0")?;
        numbers(listening, &[("total", 1)])?;
        if sees_all(bench) {
            says(
                bound,
                "message",
                &["no automatic port left on 127.0.0.1: 10 of 10 used"],
            )?;
            says(bound, "hint", &["IP_BIND_ADDRESS_NO_PORT"])?;
            says(listening, "message", &["10 bound besides"])?;
        }
        Ok(())
    })
}

fn churn_exhausted_udp(bench: &Bench) -> Result<()> {
    in_new_namespace(|netns| {
        ten_ports()?;
        let mut churn = Churn::start(bench, &[])?;
        let mut held = Vec::new();
        for _ in 0..10 {
            let sock = Sock::new(Kind::Udp4)?;
            sock.connect(&(LO, 9).into())?;
            held.push(sock);
        }
        let late = Sock::new(Kind::Udp4)?;
        fails(late.connect(&(LO, 9).into()), Errno::EAGAIN)?;
        fails(late.send_to(&(LO, 9).into(), 0), Errno::EAGAIN)?;
        fails(late.bind(&(LO, 0).into()), Errno::EADDRINUSE)?;
        let line = churn.settled()?;
        if sees_all(bench) {
            let told = failed(&line, netns, "EAGAIN", 2)?;
            says(told, "message", &["no automatic UDP port left on"])?;
        }
        failed(&line, netns, "EADDRINUSE", 1)?;
        drop(held);
        if sees_all(bench) {
            let line = churn.settled()?;
            let told = super::watched::namespace(&line, netns).context("no namespace")?;
            numbers(told, &[("held.count", 0), ("total.given", 10)])?;
        }
        Ok(())
    })
}

/// Sockets with a range of their own have a pool of their own.
fn churn_exhausted_own_range(bench: &Bench) -> Result<()> {
    in_new_namespace(|netns| {
        let server = listener(LO, 8080)?;
        let address = server.local().context("no address")?;
        let narrow = || -> Result<Sock> {
            let sock = Sock::new(Kind::Tcp4)?;
            match sock.set_option(libc::IPPROTO_IP, IP_LOCAL_PORT_RANGE, 41_000 | 41_003 << 16) {
                Ok(()) => Ok(sock),
                Err(Errno::ENOPROTOOPT) => skip("no IP_LOCAL_PORT_RANGE on this kernel"),
                Err(errno) => anyhow::bail!("IP_LOCAL_PORT_RANGE: {errno}"),
            }
        };
        narrow()?;
        let mut churn = Churn::start(bench, &[])?;
        let mut open = Vec::new();
        for _ in 0..4 {
            let sock = narrow()?;
            sock.connect(&address.into())?;
            open.push((sock, server.accept()?));
        }
        fails(narrow()?.connect(&address.into()), Errno::EADDRNOTAVAIL)?;
        let _wide = connected(&server)?;
        let line = churn.settled()?;
        let one = failed(&line, netns, "EADDRNOTAVAIL", 1)?;
        ensure!(
            lookup(one, "own_range.1").and_then(Value::as_u64) == Some(41_003),
            "{one}"
        );
        if sees_all(bench) {
            says(
                one,
                "hint",
                &["widen IP_LOCAL_PORT_RANGE of the sockets, 41000-41003"],
            )?;
            let told = super::watched::namespace(&line, netns).context("no namespace")?;
            numbers(told, &[("own_ranges.0.held", 4)])?;
        }
        ensure!(number(one, "available")? == 4, "{one}");
        Ok(())
    })
}
