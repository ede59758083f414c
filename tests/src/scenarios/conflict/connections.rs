//! Connections, and what is left of them, in the way of a bind.

use super::*;

/// Leaves the server's port in TIME_WAIT: (local, peer) of that connection.
fn leave_time_wait(s: &mut Script, listener: Sock) -> Result<(SocketAddr, SocketAddr)> {
    let (client, accepted) = s.connected(&listener)?;
    let local = accepted.local().context("no address")?;
    let peer = accepted.peer().context("no peer")?;
    drop(listener);
    // Who closes first keeps the TIME_WAIT.
    drop(accepted);
    drop(client);
    // The last segments may wait for a CPU.
    bench::until("a TIME_WAIT", || is_in_time_wait(local.port()))?;
    Ok((local, peer))
}

/// Whether a connection of IPv4 with that local port is (proc_pid_net(5), `/proc/net/tcp`).
fn is_in_time_wait(port: u16) -> Result<bool> {
    const TIME_WAIT: &str = "06";
    let table = std::fs::read_to_string("/proc/thread-self/net/tcp").context("no /proc/net/tcp")?;
    let end = format!(":{port:04X}");
    Ok(table.lines().any(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        words.next().is_some_and(|local| local.ends_with(&end)) && words.nth(1) == Some(TIME_WAIT)
    }))
}

pub(super) fn conflict_time_wait(s: &mut Script) -> Result<()> {
    let listener = s.listener(Kind::Tcp4, (LO4, 8080))?;
    let (local, peer) = leave_time_wait(s, listener)?;
    for reuse in [false, true] {
        let late = s.socket(Kind::Tcp4)?;
        let late = if reuse { late.reuseaddr()? } else { late };
        let closer = match degraded::may_miss(s.ctx.backend, Feature::Closer) {
            Some(_) => Want::Absent,
            None => Want::is(s.me.pid),
        };
        s.bind(&late, local)
            .fails(Errno::EADDRINUSE)?
            .held(0, Kind::Tcp4, local, Some(peer), "time_wait")
            .set("conflict.holders.0.closer.pid", closer)
            .set("conflict.holders.0.expires", Want::Present)
            .judged((
                "time_wait",
                "exact",
                if reuse {
                    "reuse_missing_holder"
                } else {
                    "no_reuse"
                },
            ))
            .set("conflict.holders.0.socket.inode", Want::Absent)
            .holders_total(1);
    }
    Ok(())
}

/// Left by a client: no run of the server made it, and the next one may meet it again.
pub(super) fn conflict_time_wait_outgoing(s: &mut Script) -> Result<()> {
    let server = s.listener(Kind::Tcp4, (LO4, 8080))?;
    let (client, accepted) = s.connected(&server)?;
    let local = client.local().context("no address")?;
    let peer = client.peer().context("no peer")?;
    drop(client);
    drop(accepted);
    bench::until("a TIME_WAIT", || is_in_time_wait(local.port()))?;
    let late = s.socket(Kind::Tcp4)?.reuseaddr()?;
    s.bind(&late, (ANY4, local.port()))
        .fails(Errno::EADDRINUSE)?
        .held(0, Kind::Tcp4, local, Some(peer), "time_wait")
        .judged(("time_wait", "wildcard", "reuse_missing_holder"))
        .holders_total(1)
        .says(&[
            "an outgoing connection to 127.0.0.1:8080",
            "the kernel picked",
        ])
        .advises(&["bind another address", "ip_local_reserved_ports"]);
    Ok(())
}

/// Closed on the server's side only. The kernel keeps no more of it than of one in TIME_WAIT, and to its
/// programs it looks like one; the client may keep it so for long.
pub(super) fn conflict_fin_wait(s: &mut Script) -> Result<()> {
    for (kind, ip, port) in [
        (Kind::Tcp4, IpAddr::V4(LO4), 8080),
        (Kind::Tcp6, IpAddr::V6(LO6), 8081),
    ] {
        let listener = s.listener(kind, (ip, port))?;
        let (client, accepted) = s.connected(&listener)?;
        let local = accepted.local().context("no address")?;
        let peer = accepted.peer().context("no peer")?;
        drop(listener);
        drop(accepted);
        ensure!(client.wait_readable(crate::tracer::PATIENCE), "not closed");
        // The ACK of a FIN may wait as long (include/net/tcp.h, TCP_DELACK_MAX): until then it is in
        // FIN_WAIT1.
        std::thread::sleep(Duration::from_millis(250));
        let closer = match degraded::may_miss(s.ctx.backend, Feature::Closer) {
            Some(_) => Want::Absent,
            None => Want::is(s.me.pid),
        };
        let late = s.socket(kind)?;
        s.bind(&late, local)
            .fails(Errno::EADDRINUSE)?
            .held(0, kind, local, Some(peer), "fin_wait_2")
            .judged(("closing", "exact", "no_reuse"))
            .set("conflict.holders.0.closer.pid", closer)
            .set("conflict.holders.0.socket.inode", Want::Absent)
            .holders_total(1)
            .says(&["in FIN_WAIT2", "closed on this side, not yet on the peer's"])
            .advises(&["net.ipv4.tcp_fin_timeout"]);
        drop(client);
    }
    Ok(())
}

pub(super) fn conflict_time_wait_reuseaddr(s: &mut Script) -> Result<()> {
    let listener = s.socket(Kind::Tcp4)?.reuseaddr()?;
    s.bind(&listener, (LO4, 8080)).ok()?;
    s.listen(&listener, 5).ok()?;
    let (local, peer) = leave_time_wait(s, listener)?;
    let late = s.socket(Kind::Tcp4)?;
    s.bind(&late, local)
        .fails(Errno::EADDRINUSE)?
        .held(0, Kind::Tcp4, local, Some(peer), "time_wait")
        .judged(("time_wait", "exact", "reuse_missing_self"))
        .holders_total(1)
        .says(&["the old socket set SO_REUSEADDR, yours did not"])
        .advises(&["SO_REUSEADDR on your socket, set before bind(), would let you have the port"]);
    let late = late.reuseaddr()?;
    s.bind(&late, local).ok()?;
    Ok(())
}

/// An outgoing connection took the port, and both ends would have had to allow sharing.
pub(super) fn conflict_client_port(s: &mut Script) -> Result<()> {
    let server = s.listener(Kind::Tcp4, (LO4, 8080))?;
    let (client, _accepted) = s.connected(&server)?;
    for ip in [LO4, ANY4] {
        for reuse in [false, true] {
            let late = s.socket(Kind::Tcp4)?;
            let late = if reuse { late.reuseaddr()? } else { late };
            let overlap = if ip == LO4 { "exact" } else { "wildcard" };
            let reason = if reuse {
                "reuse_missing_holder"
            } else {
                "no_reuse"
            };
            refused(
                s,
                &late,
                ip,
                &client,
                "established",
                ("client", overlap, reason),
            )?;
            if ip == ANY4 {
                s.last()?.says(&["your wildcard covers it"]);
            }
        }
    }
    let port = client.local().context("no address")?.port();
    s.bound(Kind::Tcp4, (Ipv4Addr::new(127, 0, 0, 2), port))
        .map(drop)
}

pub(super) fn conflict_client_explicit_port(s: &mut Script) -> Result<()> {
    let server = s.listener(Kind::Tcp4, (LO4, 8080))?;
    let client = s.bound(Kind::Tcp4, (LO4, 9000))?;
    s.connect(&client, server.local().context("no address")?)
        .ok()?;
    let late = s.socket(Kind::Tcp4)?;
    refused(
        s,
        &late,
        LO4,
        &client,
        "established",
        ("client", "exact", "no_reuse"),
    )
}

pub(super) fn conflict_accepted_outlives_listener(s: &mut Script) -> Result<()> {
    let server = s.socket(Kind::Tcp4)?.reuseaddr()?;
    s.bind(&server, (LO4, 8080)).ok()?;
    s.listen(&server, 5).ok()?;
    let (client, accepted) = s.connected(&server)?;
    drop(server);
    // Nobody saw who accepted it: looked for when the event has arrived, if the second has time left.
    next_second();
    let late = s.socket(Kind::Tcp4)?;
    refused(
        s,
        &late,
        LO4,
        &accepted,
        "established",
        ("accepted", "exact", "reuse_missing_self"),
    )?;
    let late = late.reuseaddr()?;
    s.bind(&late, (LO4, 8080)).ok()?;
    s.listen(&late, 5).ok()?;
    keep((client, accepted));
    Ok(())
}

/// A server with connections: its listener is named first, though the kernel lists it last.
fn children(s: &mut Script, count: usize) -> Result<()> {
    let server = s.bound(Kind::Tcp4, (LO4, 8080))?;
    s.listen(&server, 1000).ok()?;
    let address = server.local().context("no address")?;
    let mut open = Vec::with_capacity(2 * count);
    for index in 0..count {
        let client = Sock::new(Kind::Tcp4)?;
        client.reset_on_close()?;
        s.connect(&client, address).ok()?;
        open.push(client);
        // The last ones stay in the queue: a descriptor less each, where the limit is 20,000.
        if index < 9_800 {
            open.push(server.accept().context("accept")?);
        }
    }
    let late = s.socket(Kind::Tcp4)?;
    let line = s
        .bind(&late, address)
        .fails(Errno::EADDRINUSE)?
        .holder(0, &server, "listen")?;
    line.judged(("listener", "exact", "no_reuse"));
    if count < 8 {
        line.holders_total(count as u64 + 1);
    } else {
        // Where the walk is cut short sock_diag names the listener, and does not know who got the port.
        line.forget("conflict.truncated")
            .set("conflict.holders.0.creator.pid", Want::Present.maybe())
            .set("conflict.holders.0.since", Want::Present.maybe());
        // Asked when the event has arrived: it has to be there still.
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

pub(super) fn conflict_listener_among_children(s: &mut Script) -> Result<()> {
    children(s, 3)
}

/// The kernel tells connections that came in by their listener's backlog, which may be 0.
pub(super) fn conflict_child_of_backlog_0(s: &mut Script) -> Result<()> {
    let listener = s.bound(Kind::Tcp4, (LO4, 8080))?;
    s.listen(&listener, 0).ok()?;
    let (client, accepted) = s.connected(&listener)?;
    let late = s.socket(Kind::Tcp4)?;
    s.bind(&late, (LO4, 8080))
        .fails(Errno::EADDRINUSE)?
        .holder(0, &listener, "listen")?
        .judged(("listener", "exact", "no_reuse"))
        .holder(1, &accepted, "established")?
        .is("conflict.holders.1.kind", "accepted")
        .holders_total(2);
    // Nobody saw who accepted it: looked for when the event has arrived. portwatch looks for 200 ms of each
    // second, and those of this one are not to be missing to the next scenario.
    std::thread::sleep(Duration::from_millis(1100));
    drop(client);
    Ok(())
}

pub(super) fn conflict_listener_among_many_children(s: &mut Script) -> Result<()> {
    let many = if s.ctx.long { 10_000 } else { 300 };
    task::allow_descriptors(2 * many.max(500))?;
    children(s, many as usize)
}
