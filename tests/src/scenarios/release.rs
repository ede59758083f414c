//! Ports that are free again: once, when the last socket on them is gone, and not before.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;

use super::asked;
use crate::{
    expect::Want,
    script::{Port, Script, skip},
    sys::{
        addr::Address,
        clock, netns,
        sock::{Kind, Sock},
        task::{self, Background},
    },
};

asked! { "release":
    release_listener = listener_closed,
    release_after_children = after_children,
    release_reset_by_peer = reset_by_peer,
    release_connect_refused = failed_connect,
    release_time_wait = time_wait,
    release_after_a_minute = after_a_minute,
    release_no_time_wait = no_time_wait,
    release_udp_group = udp_group,
    release_udp_disconnected = udp_disconnected,
    release_mptcp = mptcp_closed,
    release_killed = killed,
    release_group_killed_at_once = group_killed,
    release_inherited = inherited,
    release_churn = churn,
    release_random = random,
}

const LO4: Ipv4Addr = Ipv4Addr::LOCALHOST;
const LO6: Ipv6Addr = Ipv6Addr::LOCALHOST;

/// A socket bound to this address, and its port.
fn bound(s: &Script, kind: Kind, address: impl Into<Address>) -> Result<(Sock, Port)> {
    let since = clock::boot_ns();
    let sock = s.socket(kind)?.reuseaddr().context("SO_REUSEADDR")?;
    sock.bind(&address.into()).context("bind")?;
    let port = port(&sock, since)?;
    Ok((sock, port))
}

fn port(sock: &Sock, since: u64) -> Result<Port> {
    Ok(Port {
        kind: sock.kind,
        local: sock.local().context("no address")?,
        since,
    })
}

fn listener(s: &Script, kind: Kind, address: impl Into<Address>) -> Result<(Sock, Port)> {
    let (sock, port) = bound(s, kind, address)?;
    sock.listen(16).context("listen")?;
    Ok((sock, port))
}

/// A connection: the client with its port, and the accepted socket.
fn connection(s: &Script, server: &Sock) -> Result<(Sock, Port, Sock)> {
    let since = clock::boot_ns();
    let client = s.socket(server.kind)?;
    let address = Address::from(server.local().context("no address")?);
    client.connect(&address).context("connect")?;
    let port = port(&client, since)?;
    Ok((client, port, server.accept().context("accept")?))
}

fn listener_closed(s: &mut Script) -> Result<()> {
    for (kind, address) in [
        (Kind::Tcp4, Address::from((LO4, 8080))),
        (Kind::Tcp6, (LO6, 8080).into()),
        (Kind::Tcp6, (Ipv6Addr::UNSPECIFIED, 8081).into()),
    ] {
        let (server, port) = listener(s, kind, address)?;
        drop(server);
        s.released(port, "closed");
    }
    // Bound, and never anything else.
    for kind in [Kind::Tcp4, Kind::Udp4] {
        let (sock, port) = bound(s, kind, (LO4, 8090))?;
        drop(sock);
        s.released(port, "closed");
    }
    Ok(())
}

/// The port stays in use while a connection that was accepted on it is there.
fn after_children(s: &mut Script) -> Result<()> {
    let (server, port) = listener(s, Kind::Tcp4, (LO4, 8080))?;
    let (_client, client_port, accepted) = connection(s, &server)?;
    drop(server);
    let since = clock::boot_ns();
    accepted.reset_on_close()?;
    drop(accepted);
    s.released(port, "closed")
        // Not when the listener closed.
        .set("time_boot", Want::Within(since, u64::MAX));
    // Reset, it is open still.
    s.released(client_port, "given_back");
    s.any_order();
    Ok(())
}

/// Who has accepted a connection has the port last, also when its end comes from outside.
fn reset_by_peer(s: &mut Script) -> Result<()> {
    let (server, port) = listener(s, Kind::Tcp4, (LO4, 8080))?;
    let since = clock::boot_ns();
    let client = s.socket(Kind::Tcp4)?;
    client.connect(&(LO4, 8080).into()).context("connect")?;
    let client_port = self::port(&client, since)?;
    // A worker, which closes its copy of the client's socket: a connection has one that resets it.
    let (mut given, mut taken) = (Some(server), Some(client));
    let worker = holder(|| {
        drop(taken.take());
        given
            .take()
            .context("no listener")?
            .accept()
            .context("accept")
    })?;
    drop(given);
    let client = taken.context("no client")?;
    client.reset_on_close()?;
    drop(client);
    s.released(client_port, "closed");
    s.released_by(worker.pid(), port, "given_back");
    s.any_order();
    drop(worker);
    Ok(())
}

fn failed_connect(s: &mut Script) -> Result<()> {
    let since = clock::boot_ns();
    let client = s.socket(Kind::Tcp4)?;
    // The only port that it can get.
    netns::sysctl("ipv4/ip_local_port_range", "40000 40000")?;
    let refused = client.connect(&(LO4, 8081).into());
    ensure!(refused == Err(Errno::ECONNREFUSED), "{refused:?}");
    let port = Port {
        kind: Kind::Tcp4,
        local: (LO4, 40000).into(),
        since,
    };
    s.released(port, "given_back");
    drop(client);
    Ok(())
}

/// Closes a connection so that the client's end is left in TIME_WAIT.
fn leave_time_wait(s: &mut Script) -> Result<Port> {
    let (server, port) = listener(s, Kind::Tcp4, (LO4, 8080))?;
    let (client, client_port, accepted) = connection(s, &server)?;
    drop(client);
    drop(accepted);
    drop(server);
    s.released(port, "closed");
    Ok(client_port)
}

/// The kernel throws the rest of a connection away with its network namespace.
fn time_wait(s: &mut Script) -> Result<()> {
    s.elsewhere(|s| {
        let port = leave_time_wait(s)?;
        s.released(port, "time_wait");
        Ok(())
    })?;
    // In a thread of the kernel, some time after the namespace was left.
    std::thread::sleep(Duration::from_secs(4));
    stretch(s)
}

/// What comes later than the script has put it down.
fn stretch(s: &mut Script) -> Result<()> {
    s.last()?.set("release.held", Want::Present);
    Ok(())
}

/// TIME_WAIT runs out by itself, which takes a minute.
fn after_a_minute(s: &mut Script) -> Result<()> {
    if !s.ctx.long {
        return skip("TIME_WAIT lasts a minute: with --long");
    }
    let port = leave_time_wait(s)?;
    let entered = clock::boot_ns();
    std::thread::sleep(Duration::from_secs(66));
    s.released(port, "time_wait").set(
        "time_boot",
        Want::Within(entered + 55_000_000_000, entered + 66_000_000_000),
    );
    Ok(())
}

/// A connection that is cut off leaves nothing behind.
fn no_time_wait(s: &mut Script) -> Result<()> {
    let (server, port) = listener(s, Kind::Tcp4, (LO4, 8080))?;
    let (client, client_port, accepted) = connection(s, &server)?;
    client.reset_on_close()?;
    drop(client);
    s.released(client_port, "closed");
    drop(accepted);
    drop(server);
    s.released(port, "closed");
    Ok(())
}

fn udp_group(s: &mut Script) -> Result<()> {
    let since = clock::boot_ns();
    let member = |s: &Script| {
        let sock = s.socket(Kind::Udp4)?.reuseport().context("SO_REUSEPORT")?;
        sock.bind(&(LO4, 5353).into()).context("bind")?;
        anyhow::Ok(sock)
    };
    let (first, second) = (member(s)?, member(s)?);
    let port = port(&first, since)?;
    drop(first);
    let third = member(s)?;
    drop(second);
    let before = clock::boot_ns();
    drop(third);
    s.released(port, "closed")
        .set("time_boot", Want::Within(before, u64::MAX));
    Ok(())
}

/// connect(AF_UNSPEC) lets go of a port that the kernel had chosen.
fn udp_disconnected(s: &mut Script) -> Result<()> {
    let since = clock::boot_ns();
    let sock = s.socket(Kind::Udp4)?;
    sock.connect(&(LO4, 5353).into()).context("connect")?;
    let port = port(&sock, since)?;
    sock.connect(&Address::unspec()).context("AF_UNSPEC")?;
    s.released(port, "given_back")
        // The address went first.
        .is("network.local.address", "0.0.0.0");
    drop(sock);
    Ok(())
}

fn mptcp_closed(s: &mut Script) -> Result<()> {
    let (server, port) = listener(s, Kind::Mptcp4, (LO4, 8080))?;
    drop(server);
    s.released(port, "closed");
    Ok(())
}

/// A child that has this socket and waits to be killed.
fn holder(work: impl FnOnce() -> Result<Sock>) -> Result<Background> {
    let (mut ready, mut tell) = task::pipe()?;
    let child = Background::spawn(|| match work() {
        Ok(_sock) => {
            let _ = tell.write_all(&[1]);
            loop {
                std::thread::sleep(Duration::from_secs(3600));
            }
        }
        Err(error) => eprintln!("a child: {error:#}"),
    })?;
    drop(tell);
    ready
        .read_exact(&mut [0])
        .context("a child has no socket")?;
    Ok(child)
}

fn killed(s: &mut Script) -> Result<()> {
    for kind in [Kind::Tcp4, Kind::Udp4] {
        let since = clock::boot_ns();
        let child = holder(|| {
            let sock = Sock::new(kind)?;
            sock.bind(&(LO4, 8080).into())?;
            Ok(sock)
        })?;
        let pid = child.pid();
        let port = Port {
            kind,
            local: (LO4, 8080).into(),
            since,
        };
        drop(child);
        s.released_by(pid, port, "closed");
    }
    Ok(())
}

/// Sockets of a group that go at the same moment, on all CPUs: one of them is the last.
fn group_killed(s: &mut Script) -> Result<()> {
    const ROUNDS: u16 = 8;
    for round in 0..ROUNDS {
        let since = clock::boot_ns();
        let local = (LO4, 8000 + round);
        let group = (0..8)
            .map(|_| {
                holder(|| {
                    let sock = Sock::new(Kind::Tcp4)?.reuseport()?;
                    sock.bind(&local.into())?;
                    sock.listen(1)?;
                    Ok(sock)
                })
            })
            .collect::<Result<Vec<_>>>()?;
        for one in &group {
            task::signal(one.pid(), libc::SIGKILL)?;
        }
        let pids: Vec<_> = group.iter().map(Background::pid).collect();
        drop(group);
        let port = Port {
            kind: Kind::Tcp4,
            local: local.into(),
            since,
        };
        s.released_by(0, port, "closed").set(
            "process.pid",
            Want::OneOf(pids.into_iter().map(Into::into).collect()),
        );
    }
    Ok(())
}

/// The port is free when the last descriptor is closed, and whoever closed that had it last.
fn inherited(s: &mut Script) -> Result<()> {
    let (server, port) = listener(s, Kind::Tcp4, (LO4, 8080))?;
    let mut kept = Some(server);
    let child = holder(|| kept.take().context("no socket"))?;
    drop(kept);
    let pid = child.pid();
    let before = clock::boot_ns();
    drop(child);
    s.released_by(pid, port, "closed")
        .set("time_boot", Want::Within(before, u64::MAX));
    Ok(())
}

/// As many releases as ports that the kernel has given out.
fn churn(s: &mut Script) -> Result<()> {
    for round in 0..100 {
        let kind = [Kind::Tcp4, Kind::Udp4, Kind::Tcp6, Kind::Udp6][round % 4];
        let ip: std::net::IpAddr = if kind.is_v6() { LO6.into() } else { LO4.into() };
        let (sock, port) = bound(s, kind, (ip, 0))?;
        drop(sock);
        s.released(port, "closed");
    }
    Ok(())
}

/// Sockets come and go at random on a few ports that they share; when the last on one has gone is counted
/// here.
fn random(s: &mut Script) -> Result<()> {
    const PORTS: u64 = 5;
    let mut open: Vec<Sock> = Vec::new();
    let mut counts: BTreeMap<(bool, u16), (usize, u64)> = BTreeMap::new();
    // The same each time, so that what goes wrong does so again.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    for _ in 0..600 {
        let is_full = open.len() >= 16;
        if !open.is_empty() && (is_full || next(2) == 0) {
            let at = usize::try_from(next(open.len() as u64))?;
            let sock = open.swap_remove(at);
            gone(s, sock, &mut counts)?;
            continue;
        }
        let kind = if next(2) == 0 { Kind::Tcp4 } else { Kind::Udp4 };
        let number = 9000 + u16::try_from(next(PORTS))?;
        let ip =
            [LO4, Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::UNSPECIFIED][usize::try_from(next(3))?];
        let before = clock::boot_ns();
        let sock = s.socket(kind)?.reuseport().context("SO_REUSEPORT")?;
        sock.bind(&(ip, number).into()).context("bind")?;
        let (count, since) = counts
            .entry((kind == Kind::Tcp4, number))
            .or_insert((0, before));
        if *count == 0 {
            *since = before;
        }
        *count += 1;
        open.push(sock);
    }
    for sock in open {
        gone(s, sock, &mut counts)?;
    }
    Ok(())
}

fn gone(
    s: &mut Script,
    sock: Sock,
    counts: &mut BTreeMap<(bool, u16), (usize, u64)>,
) -> Result<()> {
    let mut port = port(&sock, 0)?;
    drop(sock);
    let (count, since) = counts
        .get_mut(&(port.kind == Kind::Tcp4, port.local.port()))
        .context("never opened")?;
    *count -= 1;
    if *count == 0 {
        port.since = *since;
        s.released(port, "closed");
    }
    Ok(())
}
