//! No automatic port left: one cause, three errnos.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use nix::errno::Errno;

use super::{Scenario, scenarios};
use crate::{
    expect::Want,
    script::{Script, skip},
    sys::{
        netns,
        sock::{IP_LOCAL_PORT_RANGE, Kind},
    },
};

pub(super) const ALL: &[Scenario] = scenarios![
    exhausted_tcp_connect,
    exhausted_tcp_connect_again,
    exhausted_tcp_bind_and_listen,
    exhausted_odd_range,
    exhausted_udp_bind,
    exhausted_udp_connect_and_send,
    exhausted_port_range_of_socket,
    exhausted_shared_source_port,
];

const LO4: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// Leaves two automatic ports in this namespace.
fn two_ports(s: &mut Script) -> Result<()> {
    netns::sysctl("ipv4/ip_local_port_range", "40000 40001")?;
    s.relearn()
}

fn exhausted_tcp_connect(s: &mut Script) -> Result<()> {
    two_ports(s)?;
    let server = s.listener(Kind::Tcp4, (LO4, 8080))?;
    let address = server.local().context("no address")?;
    let _first = s.connected(&server)?;
    let _second = s.connected(&server)?;
    let third = s.socket(Kind::Tcp4)?;
    s.connect(&third, address)
        .fails(Errno::EADDRNOTAVAIL)?
        .is("conflict.exhausted.scope", "tuple")
        .is("conflict.exhausted.range.0", 40000)
        .is("conflict.exhausted.range.1", 40001)
        .is("conflict.exhausted.reserved", 0)
        .set("network.local.port", Want::Absent);
    // The range is used up towards this peer alone.
    let other = s.listener(Kind::Tcp4, (LO4, 8081))?;
    let _fourth = s.connected(&other)?;
    // And a non-blocking connect fails just as immediately.
    let fifth = s.socket(Kind::Tcp4)?;
    fifth.set_nonblocking(true)?;
    s.connect(&fifth, address).fails(Errno::EADDRNOTAVAIL)?;
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
    let _first = s.bound(Kind::Tcp4, (LO4, 0))?;
    let _second = s.bound(Kind::Tcp4, (LO4, 0))?;
    let third = s.socket(Kind::Tcp4)?;
    s.bind(&third, (LO4, 0))
        .fails(Errno::EADDRINUSE)?
        .judged_alone("exhausted")
        .is("conflict.exhausted.scope", "address");
    let fourth = s.socket(Kind::Tcp4)?;
    s.listen(&fourth, 5)
        .fails(Errno::EADDRINUSE)?
        .judged_alone("exhausted")
        .is("conflict.exhausted.scope", "address")
        .is("conflict.exhausted.range.0", 40000)
        .is("conflict.exhausted.range.1", 40001)
        .set("network.local.port", Want::Absent);
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
    let _first = s.bound(Kind::Udp4, (LO4, 0))?;
    let _second = s.bound(Kind::Udp4, (LO4, 0))?;
    let third = s.socket(Kind::Udp4)?;
    s.bind(&third, (LO4, 0))
        .fails(Errno::EADDRINUSE)?
        .judged_alone("exhausted")
        .is("conflict.exhausted.scope", "address");
    Ok(())
}

/// Inside, the port search says EADDRINUSE; the caller gets EAGAIN.
fn exhausted_udp_connect_and_send(s: &mut Script) -> Result<()> {
    two_ports(s)?;
    let _first = s.bound(Kind::Udp4, (LO4, 0))?;
    let _second = s.bound(Kind::Udp4, (LO4, 0))?;
    let connecting = s.socket(Kind::Udp4)?;
    s.connect(&connecting, (LO4, 8080))
        .fails(Errno::EAGAIN)?
        .set("network.local.port", Want::Absent);
    let sending = s.socket(Kind::Udp4)?;
    s.send_to(&sending, (LO4, 8080))
        .fails(Errno::EAGAIN)?
        .set("network.local.port", Want::Absent);
    Ok(())
}

/// The range of one socket (Linux 6.3, backported to 6.1).
fn exhausted_port_range_of_socket(s: &mut Script) -> Result<()> {
    let narrow = |s: &Script| -> Result<_> {
        let sock = s.socket(Kind::Tcp4)?;
        match sock.set_option(libc::IPPROTO_IP, IP_LOCAL_PORT_RANGE, 41000 | 41000 << 16) {
            Ok(()) => Ok(sock),
            Err(Errno::ENOPROTOOPT) => skip("no IP_LOCAL_PORT_RANGE on this kernel"),
            Err(errno) => anyhow::bail!("IP_LOCAL_PORT_RANGE: {errno}"),
        }
    };
    let server = s.listener(Kind::Tcp4, (LO4, 8080))?;
    let address = server.local().context("no address")?;
    let bound = narrow(s)?;
    s.bind(&bound, (LO4, 0))
        .ok()?
        .is("network.local.port", 41000);
    let late = narrow(s)?;
    s.bind(&late, (LO4, 0))
        .fails(Errno::EADDRINUSE)?
        .judged_alone("exhausted");
    let connecting = narrow(s)?;
    s.connect(&connecting, address)
        .fails(Errno::EADDRNOTAVAIL)?;
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
