//! Ports that connections have: outgoing ones, those on their way out, those that have ended lately.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;

use super::{
    super::{
        Scenario,
        exhausted::{keep, next_second},
        scenarios,
    },
    roles,
};
use crate::{
    expect::Want,
    script::{Role, Script, tags},
    sys::{
        netns,
        sock::{Kind, Sock},
    },
};

pub(super) const ALL: &[Scenario] = scenarios![
    puzzle_02_client_source_port: [2, 3, 5],
    puzzle_07_the_same_client_again: [7],
    puzzle_08_time_wait_of_the_previous_run: [8],
    puzzle_23_connections_in_close_wait: [23],
    puzzle_36_time_wait_of_a_client: [36],
    puzzle_38_range_used_up_by_a_neighbour: [38],
];

pub(super) const ROLES: &[Role] = roles![client, previous_run, producer];

const LO4: Ipv4Addr = Ipv4Addr::LOCALHOST;
const ANY4: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

/// Connects to the address that it is told, from a port that the kernel picks.
fn client(s: &mut Script) -> Result<Vec<Sock>> {
    let peer: SocketAddr = tags().first().context("no address")?.parse()?;
    let sock = s.socket(Kind::Tcp4)?;
    sock.reset_on_close()?;
    s.connect(&sock, peer).ok()?;
    Ok(vec![sock])
}

/// Leaves the kernel one port of a range to give away.
pub(super) fn only_port(s: &mut Script, (low, high): (u16, u16), port: u16) -> Result<()> {
    netns::sysctl("ipv4/ip_local_port_range", &format!("{low} {high}"))?;
    let parts = [(low, port - 1), (port + 1, high)];
    let reserved: Vec<_> = parts
        .iter()
        .filter(|(from, to)| from <= to)
        .map(|(from, to)| format!("{from}-{to}"))
        .collect();
    netns::sysctl("ipv4/ip_local_reserved_ports", &reserved.join(","))?;
    s.relearn()
}

/// A range that was widened has a service's port in it, and a client has got that.
fn puzzle_02_client_source_port(s: &mut Script) -> Result<()> {
    for (port, peer, name) in [
        (4080, 514, "blackbox"),
        (10_254, 2379, "kube-apiserver"),
        (9090, 443, "node-agent"),
    ] {
        only_port(s, (4080, 10_257), port)?;
        let _server = s.listener(Kind::Tcp4, (LO4, peer))?;
        let kept = s.program(name, "client", &[&format!("127.0.0.1:{peer}")])?;
        let client = kept.sock()?;
        ensure!(client.port() == port, "it got {}", client.local);
        let late = s.socket(Kind::Tcp4)?;
        s.bind(&late, (ANY4, port))
            .fails(Errno::EADDRINUSE)?
            .held_by(0, client, "established")
            .named(0, &kept.me)
            .judged(("client", "wildcard", "no_reuse"))
            .holders_total(1)
            .is("network.local.ephemeral", true)
            .is("conflict.holders.0.network.local.ephemeral", true)
            .says(&[
                &format!("held as the source port of {name}'s connection to 127.0.0.1:{peer}"),
                &format!("pid {}", kept.me.pid),
                &format!("the kernel picked {port} from its automatic range"),
                "your wildcard covers it",
            ])
            .advises(&[
                "bind another address",
                &format!("sysctl -w net.ipv4.ip_local_reserved_ports={port},"),
            ]);
    }
    Ok(())
}

/// A watchdog tries again and again, and one long-lived connection is the reason each time.
fn puzzle_07_the_same_client_again(s: &mut Script) -> Result<()> {
    only_port(s, (50_000, 50_001), 50_000)?;
    let _server = s.listener(Kind::Tcp4, (LO4, 6881))?;
    let kept = s.program("rtorrent", "client", &["127.0.0.1:6881"])?;
    for _ in 0..8 {
        let late = s.socket(Kind::Tcp4)?.reuseaddr()?;
        s.bind(&late, (LO4, 50_000))
            .fails(Errno::EADDRINUSE)?
            .held_by(0, kept.sock()?, "established")
            .named(0, &kept.me)
            .judged(("client", "exact", "reuse_missing_holder"))
            .set("conflict.holders.0.since", Want::Present)
            .says(&[
                "rtorrent's connection to 127.0.0.1:6881",
                "it did not set SO_REUSEADDR, so yours does not help until it is gone",
            ])
            .advises(&["Try again when that is closed"]);
    }
    Ok(())
}

/// A server without SO_REUSEADDR that closes a connection before its client does.
fn previous_run(s: &mut Script) -> Result<Vec<Sock>> {
    let listener = s.listener(Kind::Tcp4, (LO4, 8080))?;
    let client = s.bound(Kind::Tcp4, (LO4, 41_000))?;
    s.connect(&client, (LO4, 8080)).ok()?;
    let accepted = listener.accept().context("accept")?;
    drop(listener);
    drop(accepted);
    drop(client);
    Ok(Vec::new())
}

/// A server is started again: what its previous run has left keeps it from its port, and setting
/// SO_REUSEADDR now is too late.
fn puzzle_08_time_wait_of_the_previous_run(s: &mut Script) -> Result<()> {
    let previous = s.program("server", "previous_run", &[])?;
    s.dismiss(&previous)?;
    for (reuse, reason, words) in [
        (
            false,
            "no_reuse",
            "the old socket did not set SO_REUSEADDR, so setting it now helps only from the next run on",
        ),
        (
            true,
            "reuse_missing_holder",
            "the old socket did not set SO_REUSEADDR, so yours helps only from the next run on",
        ),
    ] {
        let late = s.socket(Kind::Tcp4)?;
        let late = if reuse { late.reuseaddr()? } else { late };
        s.bind(&late, (LO4, 8080))
            .fails(Errno::EADDRINUSE)?
            .held(
                0,
                Kind::Tcp4,
                (LO4, 8080).into(),
                Some((LO4, 41_000).into()),
                "time_wait",
            )
            .judged(("time_wait", "exact", reason))
            .holders_total(1)
            .set("conflict.holders.0.processes.0", Want::Absent)
            .set("conflict.holders.0.socket.inode", Want::Absent)
            .set(
                "conflict.holders.0.creator.pid",
                Want::is(previous.me.pid).maybe(),
            )
            .says(&["127.0.0.1:41000", "TIME_WAIT", words])
            .advises(&["Wait"]);
    }
    Ok(())
}

/// No listener any more, only connections that their peers have closed and the server has not.
fn puzzle_23_connections_in_close_wait(s: &mut Script) -> Result<()> {
    let server = s.bound(Kind::Tcp4, (LO4, 5000))?;
    s.listen(&server, 16).ok()?;
    let mut left = Vec::new();
    for _ in 0..2 {
        let (client, accepted) = s.connected(&server)?;
        drop(client);
        ensure!(
            accepted.wait_readable(crate::tracer::PATIENCE),
            "not closed"
        );
        left.push(accepted);
    }
    drop(server);
    next_second();
    let late = s.socket(Kind::Tcp4)?;
    let pid = s.me.pid;
    s.bind(&late, (ANY4, 5000))
        .fails(Errno::EADDRINUSE)?
        .judged(("closing", "wildcard", "no_reuse"))
        .is("conflict.holders.0.network.connection.state", "close_wait")
        .is("conflict.holders.1.network.connection.state", "close_wait")
        .is("conflict.holders.0.processes.0.pid", pid)
        .is("conflict.holders.1.processes.0.pid", pid)
        .set("conflict.holders.2", Want::Absent)
        .holders_total(2)
        .says(&[
            "in CLOSE_WAIT",
            "the peer has closed it and this very process has not",
            "1 more socket is in the way too",
        ])
        .advises(&["Close it"]);
    // They are looked for when the event has arrived.
    keep(left);
    Ok(())
}

/// A client that binds the port of its last connection, which it has closed itself.
fn puzzle_36_time_wait_of_a_client(s: &mut Script) -> Result<()> {
    let server = s.listener(Kind::Tcp4, (LO4, 443))?;
    let client = s.bound(Kind::Tcp4, (LO4, 56_122))?;
    s.connect(&client, (LO4, 443)).ok()?;
    let accepted = server.accept().context("accept")?;
    drop(client);
    drop(accepted);
    let again = s.socket(Kind::Tcp4)?;
    let own = s.me.pid;
    s.bind(&again, (LO4, 56_122))
        .fails(Errno::EADDRINUSE)?
        .held(
            0,
            Kind::Tcp4,
            (LO4, 56_122).into(),
            Some((LO4, 443).into()),
            "time_wait",
        )
        .judged(("time_wait", "exact", "no_reuse"))
        .holders_total(1)
        .set("conflict.holders.0.creator.pid", Want::is(own).maybe())
        .says(&["127.0.0.1:443", "TIME_WAIT"]);
    Ok(())
}

/// Has every port there is towards its broker.
fn producer(s: &mut Script) -> Result<Vec<Sock>> {
    let mut all = Vec::new();
    for _ in 0..2 {
        let sock = s.socket(Kind::Tcp4)?;
        s.connect(&sock, (LO4, 9092)).ok()?;
        all.push(sock);
    }
    Ok(all)
}

/// A process without a single connection finds no port: a neighbour in the same namespace has them all.
fn puzzle_38_range_used_up_by_a_neighbour(s: &mut Script) -> Result<()> {
    netns::sysctl("ipv4/ip_local_port_range", "40000 40001")?;
    s.relearn()?;
    // There as long as portwatch may look at its connections.
    s.program("broker", "listener", &["9092"])?;
    let kept = s.program("producer", "producer", &[])?;
    let late = s.socket(Kind::Tcp4)?;
    s.connect(&late, (LO4, 9092))
        .fails(Errno::EADDRNOTAVAIL)?
        .judged_alone("exhausted")
        .is("conflict.exhausted.scope", "tuple")
        .is("conflict.exhausted.range.0", 40_000)
        .is("conflict.exhausted.range.1", 40_001)
        .used(2, 0, kept.me.pid, 2)
        .is(
            "conflict.exhausted.top.0.process.executable.name",
            "producer",
        )
        .says(&["127.0.0.1:9092", "other destinations may still have some"]);
    // Towards another peer there are ports.
    let _other = s.listener(Kind::Tcp4, (LO4, 9093))?;
    let fine = s.socket(Kind::Tcp4)?;
    s.connect(&fine, (LO4, 9093)).ok()?;
    Ok(())
}
