//! listen(), with and without a port of its own.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Result, ensure};
use nix::errno::Errno;

use super::{Scenario, scenarios};
use crate::{
    degraded::{self, Feature},
    script::Script,
    sys::{netns, sock::Kind},
};

pub(super) const ALL: &[Scenario] = scenarios![
    listen_tcp4,
    listen_tcp6,
    listen_auto_port_tcp4,
    listen_auto_port_tcp6,
    listen_after_auto_port_bind,
    listen_after_failed_bind: [46],
    listen_after_failed_bind_and_another,
    listen_after_failed_bind_of_parent,
    listen_twice,
    listen_backlog_beyond_somaxconn,
    listen_conflict_of_two_reuseaddr,
    listen_on_connected,
    listen_on_udp,
];

const LO4: Ipv4Addr = Ipv4Addr::LOCALHOST;
const LO6: Ipv6Addr = Ipv6Addr::LOCALHOST;
/// Of documentation (RFC 3849).
const NOBODYS: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

fn listen_tcp4(s: &mut Script) -> Result<()> {
    s.listener(Kind::Tcp4, (LO4, 8080)).map(drop)
}

fn listen_tcp6(s: &mut Script) -> Result<()> {
    s.listener(Kind::Tcp6, (LO6, 8080)).map(drop)
}

/// One line, no bind before it.
fn listen_auto_port_tcp4(s: &mut Script) -> Result<()> {
    let sock = s.socket(Kind::Tcp4)?;
    s.listen(&sock, 5)
        .ok()?
        .is("network.local.address", "0.0.0.0")
        .is("socket.auto_port", true);
    Ok(())
}

fn listen_auto_port_tcp6(s: &mut Script) -> Result<()> {
    let sock = s.socket(Kind::Tcp6)?;
    s.listen(&sock, 5)
        .ok()?
        .is("network.local.address", "::")
        .is("socket.auto_port", true);
    Ok(())
}

fn listen_after_auto_port_bind(s: &mut Script) -> Result<()> {
    s.listener(Kind::Tcp4, (LO4, 0)).map(drop)
}

/// The service that fails to bind and listens all the same: reachable on 0.0.0.0:random.
fn listen_after_failed_bind(s: &mut Script) -> Result<()> {
    let holder = s.listener(Kind::Tcp4, (LO4, 8080))?;
    let late = s.socket(Kind::Tcp4)?;
    s.bind(&late, (LO4, 8080))
        .fails(Errno::EADDRINUSE)?
        .holder(0, &holder, "listen")?
        .judged(("listener", "exact", "no_reuse"));
    s.listen(&late, 5)
        .ok()?
        .is("network.local.address", "0.0.0.0")
        .opened_after((LO4, 8080).into(), Errno::EADDRINUSE);
    // It is open already.
    s.listen(&late, 6).ok()?;
    // The address that the mail server of puzzle 46 has not got yet, any port of one, and one of IPv6.
    for (kind, asked) in [
        (Kind::Tcp4, (Ipv4Addr::new(192, 0, 2, 1), 587).into()),
        (Kind::Tcp4, (Ipv4Addr::new(192, 0, 2, 1), 0).into()),
        (Kind::Tcp6, SocketAddr::from((NOBODYS, 587))),
    ] {
        let sock = s.socket(kind)?;
        s.bind(&sock, asked).fails(Errno::EADDRNOTAVAIL)?;
        s.listen(&sock, 5)
            .ok()?
            .opened_after(asked, Errno::EADDRNOTAVAIL);
    }
    Ok(())
}

/// A program that tries other ports until one is free, and one that takes any then.
fn listen_after_failed_bind_and_another(s: &mut Script) -> Result<()> {
    let holder = s.listener(Kind::Tcp4, (LO4, 8080))?;
    for port in [8081, 0] {
        let sock = s.socket(Kind::Tcp4)?;
        s.bind(&sock, (LO4, 8080))
            .fails(Errno::EADDRINUSE)?
            .holder(0, &holder, "listen")?;
        s.bind(&sock, (Ipv4Addr::UNSPECIFIED, port)).ok()?;
        s.listen(&sock, 5).ok()?;
        // Too late to do harm.
        s.bind(&sock, (LO4, 8080))
            .fails(Errno::EINVAL)?
            .judged_alone("already_bound");
        s.listen(&sock, 6).ok()?;
    }
    Ok(())
}

/// Who calls listen() need not be who called bind().
fn listen_after_failed_bind_of_parent(s: &mut Script) -> Result<()> {
    let sock = s.socket(Kind::Tcp4)?;
    let asked = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 587));
    s.bind(&sock, asked).fails(Errno::EADDRNOTAVAIL)?;
    s.forked(|s| {
        s.listen(&sock, 5)
            .ok()?
            .opened_after(asked, Errno::EADDRNOTAVAIL);
        Ok(())
    })?;
    Ok(())
}

/// The second call only changes the backlog, and is a call all the same.
fn listen_twice(s: &mut Script) -> Result<()> {
    let sock = s.listener(Kind::Tcp4, (LO4, 8080))?;
    s.listen(&sock, 64).ok()?.is("socket.backlog", 64);
    Ok(())
}

/// The kernel cuts a backlog down, and what is left is what the socket has.
/// systemd-socket-activate asks for all that an integer holds.
fn listen_backlog_beyond_somaxconn(s: &mut Script) -> Result<()> {
    netns::sysctl("core/somaxconn", "77")?;
    for (port, asked, has) in [
        (8080, i32::MAX, 77),
        (8081, -1, 77),
        (8082, 78, 77),
        (8083, 76, 76),
    ] {
        let sock = s.bound(Kind::Tcp4, (LO4, port))?;
        s.listen(&sock, asked).ok()?.is("socket.backlog", has);
    }
    Ok(())
}

/// Both may bind, only one may listen. The loser stays bound.
fn listen_conflict_of_two_reuseaddr(s: &mut Script) -> Result<()> {
    for (kind, ip) in [
        (Kind::Tcp4, LO4.into()),
        (Kind::Tcp6, std::net::IpAddr::from(LO6)),
    ] {
        let first = s.socket(kind)?.reuseaddr()?;
        s.bind(&first, (ip, 8080)).ok()?;
        let second = s.socket(kind)?.reuseaddr()?;
        s.bind(&second, (ip, 8080)).ok()?;
        s.listen(&first, 5).ok()?;
        s.listen(&second, 5)
            .fails(Errno::EADDRINUSE)?
            .holder(0, &first, "listen")?
            .judged(("listener", "exact", "reuse_listening"))
            .holders_total(1);
        ensure!(
            second.local().is_some_and(|local| local.port() == 8080),
            "no longer bound"
        );
    }
    Ok(())
}

fn listen_on_connected(s: &mut Script) -> Result<()> {
    let server = s.listener(Kind::Tcp4, (LO4, 8080))?;
    let (client, _accepted) = s.connected(&server)?;
    s.listen(&client, 5)
        .fails(Errno::EINVAL)?
        .judged_alone("unknown");
    Ok(())
}

fn listen_on_udp(s: &mut Script) -> Result<()> {
    let sock = s.bound(Kind::Udp4, (LO4, 8080))?;
    let why = degraded::may_miss(s.ctx.backend, Feature::Early);
    let line = s.listen(&sock, 5).fails(Errno::EOPNOTSUPP)?;
    if let Some(why) = why {
        line.optional(why);
    }
    Ok(())
}
