//! EADDRINUSE: every rule by which two sockets may not share a port, and its near misses.
//!
//! The outcomes are those of the conflict oracle measured on Linux; the workload itself fails if
//! the running kernel decides otherwise.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;

use super::{
    Scenario,
    exhausted::{keep, next_second},
    scenarios,
};
use crate::{
    bench,
    degraded::{self, Feature},
    expect::Want,
    script::{Judged, Script},
    sys::{
        sock::{Kind, Sock},
        task,
    },
};

pub(super) const ALL: &[Scenario] = scenarios![
    conflict_listener,
    conflict_bound_only,
    conflict_udp,
    conflict_udp_connected,
    conflict_other_address_is_none,
    conflict_other_transport_is_none,
    conflict_specific_vs_wildcard,
    conflict_wildcard_vs_specific,
    conflict_dual_stack: [15],
    conflict_dual_stack_reverse,
    conflict_dual_stack_v6only_is_none,
    conflict_dual_stack_udp: [20],
    conflict_reuseaddr_bound_both_is_none,
    conflict_reuseaddr_one_sided,
    conflict_reuseaddr_listening,
    conflict_reuseport_is_none,
    conflict_reuseport_missing,
    conflict_reuseport_other_user: [11],
    conflict_reuse_mixed_udp,
    conflict_time_wait,
    conflict_time_wait_reuseaddr: [9],
    conflict_fin_wait,
    conflict_client_port: [6],
    conflict_client_explicit_port,
    conflict_accepted_outlives_listener,
    conflict_listener_among_children,
    conflict_listener_among_many_children,
    conflict_child_of_backlog_0,
    conflict_inherited_descriptor,
    conflict_of_two_processes,
    conflict_ended_with_the_holder,
];

const LO4: Ipv4Addr = Ipv4Addr::LOCALHOST;
const LO6: Ipv6Addr = Ipv6Addr::LOCALHOST;
const ANY4: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const ANY6: Ipv6Addr = Ipv6Addr::UNSPECIFIED;

/// A fresh socket is refused because of one holder in this state, for this reason.
fn refused(
    s: &mut Script,
    late: &Sock,
    ip: impl Into<IpAddr>,
    holder: &Sock,
    state: &str,
    judged: Judged,
) -> Result<()> {
    let port = holder.local().context("a holder without a port")?.port();
    s.bind(late, (ip.into(), port))
        .fails(Errno::EADDRINUSE)?
        .holder(0, holder, state)?
        .judged(judged)
        .set("conflict.holders.1", Want::Absent)
        .holders_total(1);
    Ok(())
}

fn conflict_listener(s: &mut Script) -> Result<()> {
    for (kind, ip) in [(Kind::Tcp4, IpAddr::V4(LO4)), (Kind::Tcp6, IpAddr::V6(LO6))] {
        let holder = s.listener(kind, (ip, 8080))?;
        let late = s.socket(kind)?;
        refused(
            s,
            &late,
            ip,
            &holder,
            "listen",
            ("listener", "exact", "no_reuse"),
        )?;
    }
    Ok(())
}

/// Neither /proc/net/tcp nor ss shows this holder.
fn conflict_bound_only(s: &mut Script) -> Result<()> {
    for (kind, ip) in [(Kind::Tcp4, IpAddr::V4(LO4)), (Kind::Tcp6, IpAddr::V6(LO6))] {
        let holder = s.bound(kind, (ip, 8080))?;
        let late = s.socket(kind)?;
        refused(
            s,
            &late,
            ip,
            &holder,
            "closed",
            ("bound", "exact", "no_reuse"),
        )?;
    }
    Ok(())
}

fn conflict_udp(s: &mut Script) -> Result<()> {
    for (kind, ip) in [(Kind::Udp4, IpAddr::V4(LO4)), (Kind::Udp6, IpAddr::V6(LO6))] {
        let holder = s.bound(kind, (ip, 5353))?;
        let late = s.socket(kind)?;
        refused(
            s,
            &late,
            ip,
            &holder,
            "closed",
            ("bound", "exact", "no_reuse"),
        )?;
    }
    let wildcard = s.bound(Kind::Udp4, (ANY4, 5354))?;
    let late = s.socket(Kind::Udp4)?;
    refused(
        s,
        &late,
        LO4,
        &wildcard,
        "closed",
        ("bound", "wildcard", "no_reuse"),
    )?;
    Ok(())
}

fn conflict_udp_connected(s: &mut Script) -> Result<()> {
    let holder = s.bound(Kind::Udp4, (LO4, 5353))?;
    s.connect(&holder, (LO4, 9999)).ok()?;
    let late = s.socket(Kind::Udp4)?;
    refused(
        s,
        &late,
        LO4,
        &holder,
        "established",
        ("bound", "exact", "no_reuse"),
    )
}

fn conflict_other_address_is_none(s: &mut Script) -> Result<()> {
    let _holder = s.listener(Kind::Tcp4, (LO4, 8080))?;
    s.listener(Kind::Tcp4, (Ipv4Addr::new(127, 0, 0, 2), 8080))
        .map(drop)
}

fn conflict_other_transport_is_none(s: &mut Script) -> Result<()> {
    let _holder = s.listener(Kind::Tcp4, (ANY4, 8080))?;
    s.bound(Kind::Udp4, (ANY4, 8080)).map(drop)
}

/// The check that inet_csk_bind_conflict() does not make from 6.1 on.
fn conflict_specific_vs_wildcard(s: &mut Script) -> Result<()> {
    let holder = s.listener(Kind::Tcp4, (ANY4, 8080))?;
    let late = s.socket(Kind::Tcp4)?;
    refused(
        s,
        &late,
        LO4,
        &holder,
        "listen",
        ("listener", "wildcard", "no_reuse"),
    )?;
    let late = s.socket(Kind::Tcp4)?.reuseaddr()?;
    refused(
        s,
        &late,
        LO4,
        &holder,
        "listen",
        ("listener", "wildcard", "reuse_listening"),
    )
}

fn conflict_wildcard_vs_specific(s: &mut Script) -> Result<()> {
    let holder = s.listener(Kind::Tcp4, (LO4, 8080))?;
    let late = s.socket(Kind::Tcp4)?;
    refused(
        s,
        &late,
        ANY4,
        &holder,
        "listen",
        ("listener", "wildcard", "no_reuse"),
    )?;
    let late = s.socket(Kind::Tcp4)?.reuseaddr()?;
    refused(
        s,
        &late,
        ANY4,
        &holder,
        "listen",
        ("listener", "wildcard", "reuse_listening"),
    )
}

fn conflict_dual_stack(s: &mut Script) -> Result<()> {
    let holder = s.listener(Kind::Tcp6, (ANY6, 8080))?;
    for ip in [ANY4, LO4] {
        let late = s.socket(Kind::Tcp4)?;
        refused(
            s,
            &late,
            ip,
            &holder,
            "listen",
            ("listener", "dual_stack", "no_reuse"),
        )?;
        s.last()?
            .says(&["held by this very process", "its [::] takes IPv4 too"])
            .advises(&["Let the [::] socket do for both", "IPV6_V6ONLY"]);
    }
    Ok(())
}

fn conflict_dual_stack_reverse(s: &mut Script) -> Result<()> {
    let holder = s.listener(Kind::Tcp4, (ANY4, 8080))?;
    let late = s.socket(Kind::Tcp6)?;
    refused(
        s,
        &late,
        ANY6,
        &holder,
        "listen",
        ("listener", "dual_stack", "no_reuse"),
    )
}

fn conflict_dual_stack_v6only_is_none(s: &mut Script) -> Result<()> {
    let v6 = s.socket(Kind::Tcp6)?.v6only()?;
    s.bind(&v6, (ANY6, 8080)).ok()?;
    s.listen(&v6, 5).ok()?;
    s.listener(Kind::Tcp4, (ANY4, 8080)).map(drop)
}

fn conflict_dual_stack_udp(s: &mut Script) -> Result<()> {
    let holder = s.bound(Kind::Udp6, (ANY6, 5353))?;
    let late = s.socket(Kind::Udp4)?;
    refused(
        s,
        &late,
        ANY4,
        &holder,
        "closed",
        ("bound", "dual_stack", "no_reuse"),
    )?;
    s.last()?
        .says(&["held by this very process", "its [::] takes IPv4 too"]);
    Ok(())
}

fn conflict_reuseaddr_bound_both_is_none(s: &mut Script) -> Result<()> {
    let first = s.socket(Kind::Tcp4)?.reuseaddr()?;
    s.bind(&first, (ANY4, 8080)).ok()?;
    let second = s.socket(Kind::Tcp4)?.reuseaddr()?;
    s.bind(&second, (LO4, 8080)).ok()?;
    Ok(())
}

fn conflict_reuseaddr_one_sided(s: &mut Script) -> Result<()> {
    let holder = s.socket(Kind::Tcp4)?.reuseaddr()?;
    s.bind(&holder, (LO4, 8080)).ok()?;
    let late = s.socket(Kind::Tcp4)?;
    refused(
        s,
        &late,
        LO4,
        &holder,
        "closed",
        ("bound", "exact", "reuse_missing_self"),
    )?;
    let late = late.reuseaddr()?;
    s.bind(&late, (LO4, 8080)).ok()?;
    let without = s.bound(Kind::Tcp4, (LO4, 8081))?;
    let late = s.socket(Kind::Tcp4)?.reuseaddr()?;
    refused(
        s,
        &late,
        LO4,
        &without,
        "closed",
        ("bound", "exact", "reuse_missing_holder"),
    )
}

fn conflict_reuseaddr_listening(s: &mut Script) -> Result<()> {
    let holder = s.socket(Kind::Tcp4)?.reuseaddr()?;
    s.bind(&holder, (LO4, 8080)).ok()?;
    s.listen(&holder, 5).ok()?;
    let late = s.socket(Kind::Tcp4)?.reuseaddr()?;
    refused(
        s,
        &late,
        LO4,
        &holder,
        "listen",
        ("listener", "exact", "reuse_listening"),
    )
}

fn conflict_reuseport_is_none(s: &mut Script) -> Result<()> {
    for kind in [Kind::Tcp4, Kind::Udp4] {
        let first = s.socket(kind)?.reuseport()?;
        s.bind(&first, (LO4, 8080)).ok()?;
        let second = s.socket(kind)?.reuseport()?;
        s.bind(&second, (LO4, 8080)).ok()?;
        if kind == Kind::Tcp4 {
            s.listen(&first, 5).ok()?;
            s.listen(&second, 5).ok()?;
        }
    }
    Ok(())
}

fn conflict_reuseport_missing(s: &mut Script) -> Result<()> {
    let holder = s.socket(Kind::Tcp4)?.reuseport()?;
    s.bind(&holder, (LO4, 8080)).ok()?;
    s.listen(&holder, 5).ok()?;
    let late = s.socket(Kind::Tcp4)?;
    refused(
        s,
        &late,
        LO4,
        &holder,
        "listen",
        ("listener", "exact", "reuseport_missing_self"),
    )?;
    let late = s.socket(Kind::Tcp4)?.reuseaddr()?;
    refused(
        s,
        &late,
        LO4,
        &holder,
        "listen",
        ("listener", "exact", "reuse_mismatch"),
    )
}

fn conflict_reuseport_other_user(s: &mut Script) -> Result<()> {
    for (kind, state, judged) in [
        (Kind::Tcp4, "listen", ("listener", "exact", "reuseport_uid")),
        (Kind::Udp4, "closed", ("bound", "exact", "reuseport_uid")),
    ] {
        let holder = s.socket(kind)?.reuseport()?;
        s.bind(&holder, (LO4, 8080)).ok()?;
        if kind == Kind::Tcp4 {
            s.listen(&holder, 5).ok()?;
        }
        let late = task::with_effective_user(65534, || s.socket(kind))??.reuseport()?;
        refused(s, &late, LO4, &holder, state, judged)?;
        s.last()?.says(&[
            "SO_REUSEPORT shares a port among sockets of one user only",
            "yours is of uid 65534, this one of uid 0",
        ]);
    }
    Ok(())
}

fn conflict_reuse_mixed_udp(s: &mut Script) -> Result<()> {
    let holder = s.bound(Kind::Udp4, (LO4, 5353))?;
    let late = s.socket(Kind::Udp4)?.reuseaddr()?;
    refused(
        s,
        &late,
        LO4,
        &holder,
        "closed",
        ("bound", "exact", "reuse_missing_holder"),
    )?;
    let holder = s.socket(Kind::Udp4)?.reuseaddr()?;
    s.bind(&holder, (LO4, 5354)).ok()?;
    let late = s.socket(Kind::Udp4)?.reuseport()?;
    refused(
        s,
        &late,
        LO4,
        &holder,
        "closed",
        ("bound", "exact", "reuse_mismatch"),
    )
}

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

fn conflict_time_wait(s: &mut Script) -> Result<()> {
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

/// Closed on the server's side only. The kernel keeps no more of it than of one in TIME_WAIT, and to its
/// programs it looks like one; the client may keep it so for long.
fn conflict_fin_wait(s: &mut Script) -> Result<()> {
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

fn conflict_time_wait_reuseaddr(s: &mut Script) -> Result<()> {
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
fn conflict_client_port(s: &mut Script) -> Result<()> {
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

fn conflict_client_explicit_port(s: &mut Script) -> Result<()> {
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

fn conflict_accepted_outlives_listener(s: &mut Script) -> Result<()> {
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

fn conflict_listener_among_children(s: &mut Script) -> Result<()> {
    children(s, 3)
}

/// The kernel tells connections that came in by their listener's backlog, which may be 0.
fn conflict_child_of_backlog_0(s: &mut Script) -> Result<()> {
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

fn conflict_listener_among_many_children(s: &mut Script) -> Result<()> {
    let many = if s.ctx.long { 10_000 } else { 300 };
    task::allow_descriptors(2 * many.max(500))?;
    children(s, many as usize)
}

/// The parent has closed it, the child has it still.
fn conflict_inherited_descriptor(s: &mut Script) -> Result<()> {
    let holder = s.listener(Kind::Tcp4, (LO4, 8080))?;
    let child = task::Background::spawn(|| {
        loop {
            std::thread::park();
        }
    })?;
    let late = s.socket(Kind::Tcp4)?;
    let line = s.bind(&late, (LO4, 8080)).fails(Errno::EADDRINUSE)?;
    line.holder(0, &holder, "listen")?
        .judged(("listener", "exact", "no_reuse"))
        .is("conflict.holders.0.processes.1.pid", child.pid())
        .holders_total(1);
    // Both are looked at when the event has arrived: they have to have it still.
    std::thread::sleep(Duration::from_millis(200));
    let creator = holder.creator;
    drop(holder);
    let again = s.bind(&late, (LO4, 8080)).result();
    anyhow::ensure!(
        again == Err(Errno::EADDRINUSE),
        "the child does not hold it: {again:?}"
    );
    // The same holder as before, though this process can no longer look at it.
    let lines = s.lines();
    let copy = lines.len() - 2;
    let inode = lines[copy]
        .wanted("conflict.holders.0.socket.inode")
        .cloned();
    if let (Some(inode), Some(last)) = (inode, lines.last_mut()) {
        last.set("conflict.holders.0.socket.inode", inode)
            .judged(("listener", "exact", "no_reuse"))
            .is("conflict.holders.0.creator.pid", creator)
            .set("conflict.holders.0.creator.exited", Want::Absent)
            .is("conflict.holders.0.processes.0.pid", child.pid())
            .set("conflict.holders.0.processes.1", Want::Absent);
    }
    std::thread::sleep(Duration::from_millis(200));
    drop(child);
    Ok(())
}

/// Two processes want the same port: the usual case.
fn conflict_of_two_processes(s: &mut Script) -> Result<()> {
    let holder = s.listener(Kind::Tcp4, (ANY4, 8080))?;
    s.forked(|s| {
        let late = s.socket(Kind::Tcp4)?;
        let own = s.me.pid;
        s.bind(&late, (ANY4, 8080))
            .fails(Errno::EADDRINUSE)?
            .holder(0, &holder, "listen")?
            .judged(("listener", "exact", "no_reuse"))
            .is("conflict.holders.0.processes.1.pid", own)
            .holders_total(1);
        std::thread::sleep(Duration::from_millis(200));
        Ok(())
    })?;
    Ok(())
}

/// Once the holder is gone the same socket may bind.
fn conflict_ended_with_the_holder(s: &mut Script) -> Result<()> {
    let holder = s.listener(Kind::Tcp4, (LO4, 8080))?;
    let late = s.socket(Kind::Tcp4)?;
    refused(
        s,
        &late,
        LO4,
        &holder,
        "listen",
        ("listener", "exact", "no_reuse"),
    )?;
    drop(holder);
    s.bind(&late, (LO4, 8080)).ok()?;
    Ok(())
}
