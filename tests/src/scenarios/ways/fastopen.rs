//! TCP fast open: a send that connects, with or without its data in the SYN.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;

use crate::{
    degraded::{self, Feature},
    expect::Want,
    scenarios::{Scenario, scenarios},
    script::Script,
    sys::{
        addr::Address,
        netns,
        sock::{Kind, Sock},
    },
    tracer::PATIENCE,
};

pub(super) const ALL: &[Scenario] = scenarios![
    way_fastopen,
    way_fastopen_refused,
    way_fastopen_fails_at_once,
    way_fastopen_with_cookie,
    way_fastopen_deferred,
];

const LO4: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// sendto(MSG_FASTOPEN): a connection without connect().
fn way_fastopen(s: &mut Script) -> Result<()> {
    let server = s.listener(Kind::Tcp4, (LO4, 8080))?;
    let address = Address::from(server.local().context("no address")?);
    let client = s.socket(Kind::Tcp4)?;
    s.connect_by(&client, &address, || {
        client.send_to(&address, libc::MSG_FASTOPEN)
    })
    .ok()?
    // Whether a send counts as asking for a connection is a matter of taste.
    .set(
        "event.via",
        Want::OneOf(vec!["syscall".into(), "implicit".into()]).maybe(),
    );
    Ok(())
}

fn way_fastopen_refused(s: &mut Script) -> Result<()> {
    let address = Address::from((LO4, 8080));
    let client = s.socket(Kind::Tcp4)?;
    s.connect_by(&client, &address, || {
        client.send_to(&address, libc::MSG_FASTOPEN)
    })
    .fails(Errno::ECONNREFUSED)?
    .set(
        "event.via",
        Want::OneOf(vec!["syscall".into(), "implicit".into()]).maybe(),
    );
    Ok(())
}

/// A server whose clients may send with their SYN, and have learned how.
fn fast_server(s: &mut Script) -> Result<(Sock, Address)> {
    const TCP_FASTOPEN: i32 = 23;
    netns::sysctl("ipv4/tcp_fastopen", "3")?;
    let server = s.bound(Kind::Tcp4, (LO4, 8080))?;
    server.set_option(libc::IPPROTO_TCP, TCP_FASTOPEN, 16)?;
    s.listen(&server, 16).ok()?;
    let address = Address::from(server.local().context("no address")?);
    // The first one asks for the cookie.
    let first = s.socket(Kind::Tcp4)?;
    by_sending(s, &first, &address)?;
    drop(server.accept().context("accept")?);
    Ok((server, address))
}

/// sendto(MSG_FASTOPEN) that connects.
fn by_sending(s: &mut Script, client: &Sock, address: &Address) -> Result<()> {
    s.connect_by(client, address, || {
        client.send_to(address, libc::MSG_FASTOPEN)
    })
    .ok()?
    .set(
        "event.via",
        Want::OneOf(vec!["syscall".into(), "implicit".into()]).maybe(),
    );
    Ok(())
}

/// Data goes with the SYN: the connection is established after the call has returned.
fn way_fastopen_with_cookie(s: &mut Script) -> Result<()> {
    let (server, address) = fast_server(s)?;
    for _ in 0..2 {
        let client = s.socket(Kind::Tcp4)?;
        by_sending(s, &client, &address)?;
        let accepted = server.accept().context("accept")?;
        ensure!(accepted.wait_readable(PATIENCE), "no data");
    }
    Ok(())
}

/// TCP_FASTOPEN_CONNECT: connect() succeeds before anything is sent, and the next call connects.
fn way_fastopen_deferred(s: &mut Script) -> Result<()> {
    const TCP_FASTOPEN_CONNECT: i32 = 30;
    let (server, address) = fast_server(s)?;
    let deferring = |s: &mut Script| -> Result<Sock> {
        let client = s.socket(Kind::Tcp4)?;
        client.set_option(libc::IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)?;
        Ok(client)
    };
    let client = deferring(s)?;
    s.connect_by(&client, &address, || {
        client.connect(&address)?;
        client.send(b"portwatch").map(drop)
    })
    .ok()?;
    let accepted = server.accept().context("accept")?;
    ensure!(accepted.wait_readable(PATIENCE), "no data");
    // Nothing was ever sent: there was no connection.
    let client = deferring(s)?;
    let pending = s.connect_deferred(&client, address.clone())?;
    s.connect_given_up(client, &pending);
    Ok(())
}

/// Turns the last line into that of a failure which only the return of the call knows.
fn failed_at_once(s: &mut Script, sent: bool) {
    let Some(why) = degraded::may_miss(s.ctx.backend, Feature::ConnectWithoutCall) else {
        return;
    };
    let mut line = s.lines().pop().unwrap_or_default();
    if sent {
        line.is("event.outcome", "unknown")
            .is("event.reason", "closed")
            .set("error.type", Want::Absent)
            .set("error.code", Want::Absent)
            .forget("conflict.kind")
            .forget("conflict.message")
            .set("conflict", Want::Absent);
    } else {
        line.optional(why);
    }
    s.expect(line);
}

/// No route: before a SYN is due; no port left: after that.
pub(super) fn fails_at_once(
    s: &mut Script,
    mut connect: impl FnMut(&Sock, &Address) -> Result<(), Errno>,
) -> Result<()> {
    netns::sysctl("ipv4/ip_local_port_range", "40000 40000")?;
    s.relearn()?;
    let server = s.listener(Kind::Tcp4, (LO4, 8080))?;
    let _only = s.connected(&server)?;
    let no_port = Address::from(server.local().context("no address")?);
    let no_route = Address::from((Ipv4Addr::new(192, 0, 2, 1), 80));
    for (address, errno, sent) in [
        (no_route, Errno::ENETUNREACH, false),
        (no_port, Errno::EADDRNOTAVAIL, true),
    ] {
        let client = s.socket(Kind::Tcp4)?;
        s.connect_by(&client, &address, || connect(&client, &address))
            .fails(errno)?
            .set(
                "event.via",
                Want::OneOf(vec!["syscall".into(), "implicit".into(), "io_uring".into()]).maybe(),
            );
        failed_at_once(s, sent);
    }
    Ok(())
}

fn way_fastopen_fails_at_once(s: &mut Script) -> Result<()> {
    fails_at_once(s, |client, address| {
        client.send_to(address, libc::MSG_FASTOPEN)
    })
}
