//! What socket options make of a port: a range of the socket's own, a device, an address that is not
//! this machine's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;

use super::{Scenario, scenarios};
use crate::{
    expect::Want,
    script::{Script, skip},
    sys::{
        addr::Address,
        netlink, netns,
        sock::{IP_LOCAL_PORT_RANGE, Kind, Sock},
    },
};

pub(super) const ALL: &[Scenario] = scenarios![
    option_own_port_range,
    option_own_port_range_of_datagrams,
    option_device,
    option_device_of_a_connection,
    option_transparent,
    option_freebind6,
];

const LO4: Ipv4Addr = Ipv4Addr::LOCALHOST;
const ANY4: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
/// Nobody has it (RFC 5737).
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// Gives a socket a range of its own: a part of its namespace's.
fn with_own_range(sock: &Sock, (low, high): (u16, u16)) -> Result<()> {
    let value = i32::from(low) | i32::from(high) << 16;
    match sock.set_option(libc::IPPROTO_IP, IP_LOCAL_PORT_RANGE, value) {
        Ok(()) => Ok(()),
        Err(Errno::ENOPROTOOPT) => skip("no IP_LOCAL_PORT_RANGE on this kernel"),
        Err(errno) => bail!("IP_LOCAL_PORT_RANGE: {errno}"),
    }
}

/// The kernel takes no port outside both ranges (Documentation/networking/ip-sysctl.rst: the option
/// narrows the one of the namespace).
fn option_own_port_range(s: &mut Script) -> Result<()> {
    let range = (45_000, 45_003);
    let server = s.listener(Kind::Tcp4, (LO4, 8080))?;
    let address = server.local().context("no address")?;
    let inside = |sock: &Sock| -> Result<()> {
        let port = sock.local().context("no address")?.port();
        ensure!((range.0..=range.1).contains(&port), "port {port}");
        Ok(())
    };
    let bound = s.socket(Kind::Tcp4)?;
    with_own_range(&bound, range)?;
    s.bind(&bound, (LO4, 0)).ok()?;
    inside(&bound)?;
    let client = s.socket(Kind::Tcp4)?;
    with_own_range(&client, range)?;
    s.connect(&client, address).ok()?;
    inside(&client)?;
    let listening = s.socket(Kind::Tcp4)?;
    with_own_range(&listening, range)?;
    s.listen(&listening, 16).ok()?;
    inside(&listening)?;
    // Whoever names a port gets it.
    let named = s.socket(Kind::Tcp4)?;
    with_own_range(&named, range)?;
    s.bind(&named, (LO4, 50_000)).ok()?;
    Ok(())
}

fn option_own_port_range_of_datagrams(s: &mut Script) -> Result<()> {
    let range = (45_000, 45_003);
    for peer in 0..2 {
        let sock = s.socket(Kind::Udp4)?;
        with_own_range(&sock, range)?;
        if peer == 0 {
            s.bind(&sock, (LO4, 0)).ok()?;
        } else {
            s.connect(&sock, (LO4, 5353)).ok()?;
        }
        let port = sock.local().context("no address")?.port();
        ensure!((range.0..=range.1).contains(&port), "port {port}");
    }
    Ok(())
}

/// Two devices, a port on each of them, and whoever wants it on all.
fn option_device(s: &mut Script) -> Result<()> {
    veth_pair()?;
    let on = |s: &mut Script, kind, device: &str| -> Result<Sock> {
        let sock = s.socket(kind)?;
        sock.bind_to_device(device)?;
        Ok(sock)
    };
    for (kind, port) in [(Kind::Tcp4, 8080), (Kind::Udp4, 8081), (Kind::Tcp6, 8082)] {
        let ip: IpAddr = if kind.is_v6() {
            Ipv6Addr::UNSPECIFIED.into()
        } else {
            ANY4.into()
        };
        let one = on(s, kind, "pwa")?;
        s.bind(&one, (ip, port))
            .ok()?
            .is("network.interface.name", "pwa");
        let other = on(s, kind, "lo")?;
        s.bind(&other, (ip, port))
            .ok()?
            .is("network.interface.name", "lo");
        let late = on(s, kind, "pwa")?;
        let kind_of_holder = "bound";
        s.bind(&late, (ip, port))
            .fails(Errno::EADDRINUSE)?
            .holder(0, &one, "closed")?
            .judged((kind_of_holder, "exact", "no_reuse"))
            .is("network.interface.name", "pwa")
            .is("conflict.device", true)
            .is("conflict.holders.0.network.interface.name", "pwa")
            .set("conflict.holders.1", Want::Absent);
    }
    Ok(())
}

fn option_device_of_a_connection(s: &mut Script) -> Result<()> {
    let server = s.listener(Kind::Tcp4, (ANY4, 8080))?;
    let client = s.socket(Kind::Tcp4)?;
    client.bind_to_device("lo")?;
    s.connect(&client, (LO4, 8080))
        .ok()?
        .is("network.interface.name", "lo");
    let datagrams = s.socket(Kind::Udp4)?;
    datagrams.bind_to_device("lo")?;
    s.connect(&datagrams, (LO4, 5353))
        .ok()?
        .is("network.interface.name", "lo");
    drop(server);
    Ok(())
}

/// What a transparent proxy does: it listens on and connects from addresses of others.
fn option_transparent(s: &mut Script) -> Result<()> {
    let transparent = |s: &mut Script| -> Result<Sock> {
        let sock = s.socket(Kind::Tcp4)?;
        sock.set_option(libc::IPPROTO_IP, libc::IP_TRANSPARENT, 1)
            .context("IP_TRANSPARENT")?;
        Ok(sock)
    };
    let proxy = transparent(s)?;
    s.bind(&proxy, (ELSEWHERE, 8080))
        .ok()?
        .is("socket.transparent", true);
    s.listen(&proxy, 16).ok()?.is("socket.transparent", true);
    let late = transparent(s)?;
    s.bind(&late, (ELSEWHERE, 8080))
        .fails(Errno::EADDRINUSE)?
        .holder(0, &proxy, "listen")?
        .judged(("listener", "exact", "no_reuse"));
    // Without the option the address is refused before the port is looked at.
    let plain = s.socket(Kind::Tcp4)?;
    s.bind(&plain, (ELSEWHERE, 8080))
        .fails(Errno::EADDRNOTAVAIL)?;
    // In the name of a client: the answer to its SYN finds no way back, so that it is given up.
    let client = transparent(s)?;
    s.bind(&client, (ELSEWHERE, 8081)).ok()?;
    client.set_nonblocking(true)?;
    let _server = s.listener(Kind::Tcp4, (LO4, 8082))?;
    let pending = s.connect_start(&client, (LO4, 8082), Errno::EINPROGRESS)?;
    s.connect_given_up(client, &pending)
        .is("socket.transparent", true)
        .is("network.local.address", ELSEWHERE.to_string());
    Ok(())
}

fn option_freebind6(s: &mut Script) -> Result<()> {
    let elsewhere: Ipv6Addr = "2001:db8::1".parse()?;
    let address = Address::from((elsewhere, 8080));
    let plain = s.socket(Kind::Tcp6)?;
    s.bind(&plain, address.clone())
        .fails(Errno::EADDRNOTAVAIL)?
        .is("socket.freebind", false);
    let free = s.socket(Kind::Tcp6)?;
    free.set_option(libc::IPPROTO_IPV6, IPV6_FREEBIND, 1)
        .context("IPV6_FREEBIND")?;
    s.bind(&free, address.clone())
        .ok()?
        .is("socket.freebind", true);
    s.listen(&free, 16).ok()?.is("socket.freebind", true);
    let late = s.socket(Kind::Tcp6)?;
    late.set_option(libc::IPPROTO_IPV6, IPV6_FREEBIND, 1)?;
    s.bind(&late, address)
        .fails(Errno::EADDRINUSE)?
        .holder(0, &free, "listen")?
        .judged(("listener", "exact", "no_reuse"));
    Ok(())
}

/// include/uapi/linux/in6.h
const IPV6_FREEBIND: i32 = 78;

/// A pair of devices, both up.
fn veth_pair() -> Result<()> {
    if let Err(error) = netlink::add_veth("pwa", "pwb") {
        return skip(format!("no veth devices ({error:?})"));
    }
    netns::link_up("pwa").context("cannot bring a veth up")?;
    netns::link_up("pwb").context("cannot bring a veth up")
}
