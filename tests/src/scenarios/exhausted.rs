//! No automatic port left: one cause, three errnos.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use serde_json::json;

use super::{Scenario, scenarios};
use crate::{
    expect::{Expect, Want},
    script::{Script, skip},
    sys::{
        netns,
        sock::{IP_LOCAL_PORT_RANGE, Kind, Sock},
        task,
    },
};

pub(super) const ALL: &[Scenario] = scenarios![
    exhausted_tcp_connect: [35],
    exhausted_tcp_connect_again,
    exhausted_by_whom,
    exhausted_tcp_bind_and_listen: [34],
    exhausted_odd_range,
    exhausted_udp_bind,
    exhausted_udp_connect_and_send: [37],
    exhausted_port_range_of_socket,
    exhausted_half_open_range_of_socket,
    exhausted_shared_source_port,
];

const LO4: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// Leaves these open until portwatch has counted or found them: it looks while this process waits for its end.
pub(super) fn keep<T>(sockets: T) {
    std::mem::forget(sockets);
}

/// portwatch counts ports, and searches processes, for a part of each second: what was before is not to
/// count here.
pub(super) fn next_second() {
    std::thread::sleep(Duration::from_millis(1100));
}

/// Leaves two automatic ports in this namespace.
fn two_ports(s: &mut Script) -> Result<()> {
    netns::sysctl("ipv4/ip_local_port_range", "40000 40001")?;
    s.relearn()
}

fn exhausted_tcp_connect(s: &mut Script) -> Result<()> {
    two_ports(s)?;
    let server = s.listener(Kind::Tcp4, (LO4, 8080))?;
    let address = server.local().context("no address")?;
    let first = s.connected(&server)?;
    let second = s.connected(&server)?;
    next_second();
    let third = s.socket(Kind::Tcp4)?;
    let me = s.me.pid;
    s.connect(&third, address)
        .fails(Errno::EADDRNOTAVAIL)?
        .is("conflict.exhausted.scope", "tuple")
        .is("conflict.exhausted.range.0", 40000)
        .is("conflict.exhausted.range.1", 40001)
        .is("conflict.exhausted.reserved", 0)
        .used(2, 0, me, 2)
        .says(&[
            "no automatic port",
            "to 127.0.0.1:8080",
            "other destinations may still have some",
        ])
        .advises(&["widen net.ipv4.ip_local_port_range"])
        .set("network.local.port", Want::Absent);
    // The range is used up towards this peer alone.
    let other = s.listener(Kind::Tcp4, (LO4, 8081))?;
    let _fourth = s.connected(&other)?;
    // And a non-blocking connect fails just as immediately.
    let fifth = s.socket(Kind::Tcp4)?;
    fifth.set_nonblocking(true)?;
    s.connect(&fifth, address).fails(Errno::EADDRNOTAVAIL)?;
    keep((first, second));
    Ok(())
}

/// Who uses up the ports: this process, its child, and nobody any more.
fn exhausted_by_whom(s: &mut Script) -> Result<()> {
    netns::sysctl("ipv4/ip_local_port_range", "40000 40003")?;
    netns::sysctl("ipv4/ip_local_reserved_ports", "40002")?;
    // Else a port in TIME_WAIT does for a new connection over loopback, after a second.
    netns::sysctl("ipv4/tcp_tw_reuse", "0")?;
    s.relearn()?;
    let server = s.listener(Kind::Tcp4, (LO4, 8080))?;
    let address = server.local().context("no address")?;
    let (ended, accepted) = s.connected(&server)?;
    // Who closes first keeps the TIME_WAIT.
    drop(ended);
    drop(accepted);
    let inherited = s.connected(&server)?;
    let child = task::Background::spawn(|| {
        loop {
            std::thread::park();
        }
    })?;
    let own = s.connected(&server)?;
    next_second();
    let late = s.socket(Kind::Tcp4)?;
    let me = s.me.pid;
    s.connect(&late, address)
        .fails(Errno::EADDRNOTAVAIL)?
        .used(3, 1, me, 2)
        .is("conflict.exhausted.reserved", 1)
        .forget("conflict.exhausted.top.1")
        .is("conflict.exhausted.top.1.process.pid", child.pid())
        .is("conflict.exhausted.top.1.count", 1)
        .set("conflict.exhausted.top.2", Want::Absent);
    keep((server, inherited, own, child));
    Ok(())
}

/// The socket still knows the port of its first attempt (`inet_sport`), which is not of the second.
fn exhausted_tcp_connect_again(s: &mut Script) -> Result<()> {
    two_ports(s)?;
    let server = s.listener(Kind::Tcp4, (LO4, 8080))?;
    let address = server.local().context("no address")?;
    let again = s.socket(Kind::Tcp4)?;
    s.connect(&again, (LO4, 8081)).fails(Errno::ECONNREFUSED)?;
    let _first = s.connected(&server)?;
    let _second = s.connected(&server)?;
    s.connect(&again, address)
        .fails(Errno::EADDRNOTAVAIL)?
        .set("network.local.port", Want::Absent);
    Ok(())
}

fn exhausted_tcp_bind_and_listen(s: &mut Script) -> Result<()> {
    two_ports(s)?;
    let first = s.bound(Kind::Tcp4, (LO4, 0))?;
    let second = s.bound(Kind::Tcp4, (LO4, 0))?;
    next_second();
    let third = s.socket(Kind::Tcp4)?;
    let me = s.me.pid;
    let shows_bound = s.ctx.kernel >= (6, 8);
    let line = s
        .bind(&third, (LO4, 0))
        .fails(Errno::EADDRINUSE)?
        .judged_alone("exhausted")
        .is("conflict.exhausted.scope", "address")
        .says(&["no automatic port is left on 127.0.0.1"])
        .advises(&["IP_BIND_ADDRESS_NO_PORT"]);
    if shows_bound {
        line.used(2, 0, me, 2);
    } else {
        // Of the two the kernel shows neither.
        line.set("conflict.exhausted.used", Want::Absent)
            .set("missing", Want::Lists(json!("conflict.exhausted.used")));
    }
    let fourth = s.socket(Kind::Tcp4)?;
    s.listen(&fourth, 5)
        .fails(Errno::EADDRINUSE)?
        .judged_alone("exhausted")
        .is("conflict.exhausted.scope", "address")
        .is("conflict.exhausted.range.0", 40000)
        .is("conflict.exhausted.range.1", 40001)
        .set("network.local.port", Want::Absent);
    keep((first, second));
    Ok(())
}

/// bind(0) rounds a range of three down to two (net/ipv4/inet_connection_sock.c,
/// `inet_csk_find_open_port`).
fn exhausted_odd_range(s: &mut Script) -> Result<()> {
    netns::sysctl("ipv4/ip_local_port_range", "40000 40002")?;
    s.relearn()?;
    let _first = s.bound(Kind::Tcp4, (LO4, 0))?;
    let _second = s.bound(Kind::Tcp4, (LO4, 0))?;
    let third = s.socket(Kind::Tcp4)?;
    s.bind(&third, (LO4, 0))
        .fails(Errno::EADDRINUSE)?
        .judged_alone("exhausted")
        .is("conflict.exhausted.scope", "address");
    Ok(())
}

fn exhausted_udp_bind(s: &mut Script) -> Result<()> {
    two_ports(s)?;
    let first = s.bound(Kind::Udp4, (LO4, 0))?;
    let second = s.bound(Kind::Udp4, (LO4, 0))?;
    next_second();
    let third = s.socket(Kind::Udp4)?;
    let me = s.me.pid;
    s.bind(&third, (LO4, 0))
        .fails(Errno::EADDRINUSE)?
        .judged_alone("exhausted")
        .is("conflict.exhausted.scope", "address")
        .used(2, 0, me, 2);
    keep((first, second));
    Ok(())
}

/// Inside, the port search says EADDRINUSE; the caller gets EAGAIN.
fn exhausted_udp_connect_and_send(s: &mut Script) -> Result<()> {
    two_ports(s)?;
    let first = s.bound(Kind::Udp4, (LO4, 0))?;
    let second = s.bound(Kind::Udp4, (LO4, 0))?;
    next_second();
    let connecting = s.socket(Kind::Udp4)?;
    let me = s.me.pid;
    s.connect(&connecting, (LO4, 8080))
        .fails(Errno::EAGAIN)?
        .says(&["no automatic UDP port is left", "what EAGAIN means here"])
        .set("network.local.port", Want::Absent)
        .used(2, 0, me, 2);
    let sending = s.socket(Kind::Udp4)?;
    s.send_to(&sending, (LO4, 8080))
        .fails(Errno::EAGAIN)?
        .set("network.local.port", Want::Absent)
        .used(2, 0, me, 2);
    keep((first, second));
    Ok(())
}

/// A socket with a range of its own (Linux 6.3, backported to 6.1).
fn narrow(s: &Script, low: i32, high: i32) -> Result<Sock> {
    let sock = s.socket(Kind::Tcp4)?;
    match sock.set_option(libc::IPPROTO_IP, IP_LOCAL_PORT_RANGE, low | high << 16) {
        Ok(()) => Ok(sock),
        Err(Errno::ENOPROTOOPT) => skip("no IP_LOCAL_PORT_RANGE on this kernel"),
        Err(errno) => anyhow::bail!("IP_LOCAL_PORT_RANGE: {errno}"),
    }
}

fn exhausted_port_range_of_socket(s: &mut Script) -> Result<()> {
    let of_socket = |line: &mut Expect| {
        line.is("conflict.exhausted.range.0", 41000)
            .is("conflict.exhausted.range.1", 41000)
            .is("conflict.exhausted.range_of_socket", true)
            .says(&["the socket's own range is 41000-41000"])
            .advises(&["IP_LOCAL_PORT_RANGE"]);
    };
    let server = s.listener(Kind::Tcp4, (LO4, 8080))?;
    let address = server.local().context("no address")?;
    let bound = narrow(s, 41000, 41000)?;
    s.bind(&bound, (LO4, 0))
        .ok()?
        .is("network.local.port", 41000);
    let late = narrow(s, 41000, 41000)?;
    of_socket(
        s.bind(&late, (LO4, 0))
            .fails(Errno::EADDRINUSE)?
            .judged_alone("exhausted"),
    );
    let connecting = narrow(s, 41000, 41000)?;
    of_socket(
        s.connect(&connecting, address)
            .fails(Errno::EADDRNOTAVAIL)?,
    );
    Ok(())
}

/// An end that the socket leaves open is the namespace's.
fn exhausted_half_open_range_of_socket(s: &mut Script) -> Result<()> {
    two_ports(s)?;
    let _first = narrow(s, 40001, 0).and_then(|sock| {
        s.bind(&sock, (LO4, 0))
            .ok()?
            .is("network.local.port", 40001);
        Ok(sock)
    })?;
    let late = narrow(s, 40001, 0)?;
    s.bind(&late, (LO4, 0))
        .fails(Errno::EADDRINUSE)?
        .judged_alone("exhausted")
        .is("conflict.exhausted.range.0", 40001)
        .is("conflict.exhausted.range.1", 40001)
        .is("conflict.exhausted.range_of_socket", true);
    Ok(())
}

/// Two sockets share a source port; the second may not go where the first went.
fn exhausted_shared_source_port(s: &mut Script) -> Result<()> {
    let server = s.listener(Kind::Tcp4, (LO4, 8080))?;
    let address = server.local().context("no address")?;
    let first = s.socket(Kind::Tcp4)?.reuseaddr()?;
    s.bind(&first, (LO4, 9000)).ok()?;
    let second = s.socket(Kind::Tcp4)?.reuseaddr()?;
    s.bind(&second, (LO4, 9000)).ok()?;
    s.connect(&first, address).ok()?;
    // No want of ports: this connection exists.
    s.connect(&second, address)
        .fails(Errno::EADDRNOTAVAIL)?
        .judged_alone("unknown");
    Ok(())
}
