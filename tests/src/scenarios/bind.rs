//! bind() that works, and bind() that is refused without anybody in the way.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use serde_json::json;

use super::{Scenario, scenarios};
use crate::{
    degraded::{self, Feature},
    expect::Want,
    script::{Script, hex},
    sys::{
        addr::Address,
        netlink, netns,
        sock::{self, Kind},
        task,
    },
};

pub(super) const ALL: &[Scenario] = scenarios![
    bind_tcp4,
    bind_tcp6,
    bind_udp4,
    bind_udp6,
    bind_auto_port_tcp4,
    bind_auto_port_tcp6,
    bind_auto_port_udp4,
    bind_auto_port_udp6,
    bind_wildcards,
    bind_well_known_port_as_root,
    bind_v4_mapped,
    bind_v4_mapped_conflict,
    bind_port_in_reserved_list,
    bind_options,
    bind_without_port,
    bind_to_device,
    bind_link_local_scope,
    bind_unspec_family,
    bind_same_port_in_another_netns,
    bind_udplite,
    bind_sctp,
    bind_cookie_known_before,
    bind_already_bound,
    bind_privileged_port_as_nobody: [43],
    bind_socket_of_another_user,
    bind_not_local: [41],
    bind_tentative: [40],
    bind_used_twice,
    bind_on_another_interface,
    bind_short_address,
    bind_wrong_family,
    bind_link_local_without_scope: [42],
    bind_unreadable_address,
    bind_no_socket,
    bind_raw_and_icmp,
    bind_unix_and_netlink,
];

const LO4: Ipv4Addr = Ipv4Addr::LOCALHOST;
const LO6: Ipv6Addr = Ipv6Addr::LOCALHOST;
const ANY4: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const ANY6: Ipv6Addr = Ipv6Addr::UNSPECIFIED;

fn bind_tcp4(s: &mut Script) -> Result<()> {
    let sock = s.socket(Kind::Tcp4)?;
    // Elsewhere it may be missing: the process may be gone when portwatch looks at its namespace.
    s.bind(&sock, (LO4, 8080))
        .ok()?
        .is("network.local.ephemeral", false);
    Ok(())
}

fn bind_tcp6(s: &mut Script) -> Result<()> {
    s.bound(Kind::Tcp6, (LO6, 8080)).map(drop)
}

fn bind_udp4(s: &mut Script) -> Result<()> {
    s.bound(Kind::Udp4, (Ipv4Addr::new(127, 0, 0, 7), 5353))
        .map(drop)
}

fn bind_udp6(s: &mut Script) -> Result<()> {
    s.bound(Kind::Udp6, (LO6, 5353)).map(drop)
}

fn bind_auto_port_tcp4(s: &mut Script) -> Result<()> {
    let sock = s.socket(Kind::Tcp4)?;
    let line = s.bind(&sock, (LO4, 0)).ok()?;
    line.is("network.local.ephemeral", true);
    Ok(())
}

fn bind_auto_port_tcp6(s: &mut Script) -> Result<()> {
    s.bound(Kind::Tcp6, (LO6, 0)).map(drop)
}

fn bind_auto_port_udp4(s: &mut Script) -> Result<()> {
    s.bound(Kind::Udp4, (LO4, 0)).map(drop)
}

fn bind_auto_port_udp6(s: &mut Script) -> Result<()> {
    s.bound(Kind::Udp6, (LO6, 0)).map(drop)
}

fn bind_wildcards(s: &mut Script) -> Result<()> {
    s.bound(Kind::Tcp4, (ANY4, 1024))?;
    s.bound(Kind::Tcp6, (ANY6, 49151))?;
    s.bound(Kind::Udp4, (ANY4, 49152))?;
    s.bound(Kind::Udp6, (ANY6, 65535))?;
    Ok(())
}

fn bind_well_known_port_as_root(s: &mut Script) -> Result<()> {
    s.bound(Kind::Tcp4, (LO4, 80))?;
    s.bound(Kind::Udp6, (LO6, 1))?;
    Ok(())
}

fn bind_v4_mapped(s: &mut Script) -> Result<()> {
    s.bound(Kind::Tcp6, (LO4.to_ipv6_mapped(), 8080))?;
    s.bound(Kind::Udp6, (LO4.to_ipv6_mapped(), 8080))?;
    Ok(())
}

fn bind_v4_mapped_conflict(s: &mut Script) -> Result<()> {
    let holder = s.listener(Kind::Tcp4, (LO4, 8080))?;
    let late = s.socket(Kind::Tcp6)?;
    s.bind(&late, (LO4.to_ipv6_mapped(), 8080))
        .fails(Errno::EADDRINUSE)?
        .holder(0, &holder, "listen")?
        .judged(("listener", "exact", "no_reuse"));
    Ok(())
}

/// Reserved ports are only left out where the kernel chooses.
fn bind_port_in_reserved_list(s: &mut Script) -> Result<()> {
    netns::sysctl("ipv4/ip_local_reserved_ports", "40123")?;
    s.bound(Kind::Tcp4, (LO4, 40123)).map(drop)
}

fn bind_options(s: &mut Script) -> Result<()> {
    let elsewhere = Ipv4Addr::new(192, 0, 2, 1);
    let reuse = s.socket(Kind::Tcp4)?.reuseaddr()?.reuseport()?;
    s.bind(&reuse, (LO4, 8080))
        .ok()?
        .is("socket.reuseaddr", true)
        .is("socket.reuseport", true);
    let free = s.socket(Kind::Tcp4)?;
    free.set_option(libc::IPPROTO_IP, libc::IP_FREEBIND, 1)?;
    s.bind(&free, (elsewhere, 8080))
        .ok()?
        .is("socket.freebind", true);
    let transparent = s.socket(Kind::Udp4)?;
    transparent.set_option(libc::IPPROTO_IP, libc::IP_TRANSPARENT, 1)?;
    s.bind(&transparent, (elsewhere, 8081))
        .ok()?
        .is("socket.transparent", true);
    let v6only = s.socket(Kind::Tcp6)?.v6only()?;
    s.bind(&v6only, (ANY6, 8082))
        .ok()?
        .is("socket.v6only", true);
    let dual = s.socket(Kind::Tcp6)?;
    s.bind(&dual, (ANY6, 8083)).ok()?.is("socket.v6only", false);
    Ok(())
}

/// IP_BIND_ADDRESS_NO_PORT: the bind takes an address, the connect takes the port.
fn bind_without_port(s: &mut Script) -> Result<()> {
    let server = s.listener(Kind::Tcp4, (LO4, 8080))?;
    let client = s.socket(Kind::Tcp4)?;
    client.set_option(libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)?;
    s.bind(&client, (Ipv4Addr::new(127, 0, 0, 9), 0))
        .ok()?
        .is("socket.bind_no_port", true)
        .set("network.local.port", Want::Absent);
    let address = server.local().context("no address")?;
    s.connect(&client, address)
        .ok()?
        .is("socket.auto_port", true);
    let datagrams = s.socket(Kind::Udp4)?;
    datagrams.set_option(libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)?;
    s.bind(&datagrams, (LO4, 0))
        .ok()?
        .set("network.local.port", Want::Absent);
    s.connect(&datagrams, (LO4, 5353))
        .ok()?
        .is("socket.auto_port", true);
    Ok(())
}

fn bind_to_device(s: &mut Script) -> Result<()> {
    let bound = s.socket(Kind::Tcp4)?;
    bound.bind_to_device("lo")?;
    s.bind(&bound, (ANY4, 8080))
        .ok()?
        .is("network.interface.name", "lo");
    let plain = s.socket(Kind::Tcp4)?;
    s.bind(&plain, (ANY4, 8080))
        .fails(Errno::EADDRINUSE)?
        .holder(0, &bound, "closed")?
        .judged(("bound", "exact", "no_reuse"))
        .is("conflict.device", true)
        .is("conflict.holders.0.network.interface.name", "lo")
        .set("network.interface.name", Want::Absent);
    Ok(())
}

/// A link-local address needs a scope, and the scope is a device.
fn bind_link_local_scope(s: &mut Script) -> Result<()> {
    veth_pair()?;
    let ip: Ipv6Addr = "fe80::99".parse()?;
    let scope = netns::link_index("pwa")?;
    netlink::add_address(scope, IpAddr::V6(ip), 64).context("cannot add an address")?;
    let sock = s.socket(Kind::Tcp6)?;
    let address = std::net::SocketAddrV6::new(ip, 8080, 0, scope);
    s.bind(&sock, std::net::SocketAddr::V6(address))
        .ok()?
        .is("network.interface.name", "pwa");
    Ok(())
}

/// A pair of devices, both up.
fn veth_pair() -> Result<()> {
    match netlink::add_veth("pwa", "pwb") {
        Ok(()) => {}
        Err(error) => return crate::script::skip(format!("no veth devices ({error:?})")),
    }
    netns::link_up("pwa").context("cannot bring a veth up")?;
    netns::link_up("pwb").context("cannot bring a veth up")
}

/// An address that IPv6 still looks for on the link (puzzle 40).
fn bind_tentative(s: &mut Script) -> Result<()> {
    veth_pair()?;
    let one = netns::link_index("pwa")?;
    // As long as the scenario: one probe a second.
    netns::sysctl("ipv6/conf/pwa/dad_transmits", "600")?;
    let ip: Ipv6Addr = "2001:db8::1".parse()?;
    netlink::add_address_with_detection(one, IpAddr::V6(ip), 64)
        .context("cannot add an address")?;
    let sock = s.socket(Kind::Tcp6)?;
    s.bind(&sock, (ip, 8080)).fails(Errno::EADDRNOTAVAIL)?.is(
        "conflict.interfaces",
        json!([{"name": "pwa", "state": "tentative"}]),
    );
    Ok(())
}

/// Waits until the kernel has found out that an address is used twice.
fn dad_failed(device: &str, ip: Ipv6Addr) -> Result<()> {
    let wanted = format!("{:032x}", u128::from(ip));
    for _ in 0..1000 {
        let text = std::fs::read_to_string("/proc/thread-self/net/if_inet6")?;
        let failed = text.lines().any(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let flags = fields.get(4).and_then(|it| u8::from_str_radix(it, 16).ok());
            fields.first() == Some(&wanted.as_str())
                && fields.get(5) == Some(&device)
                && flags.is_some_and(|flags| flags & 0x08 != 0)
        });
        if failed {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    anyhow::bail!("{ip} on {device} is not found to be used twice")
}

/// An address of another machine on the link.
fn bind_used_twice(s: &mut Script) -> Result<()> {
    veth_pair()?;
    let ip: Ipv6Addr = "fe80::99".parse()?;
    let (one, other) = (netns::link_index("pwa")?, netns::link_index("pwb")?);
    netlink::add_address(other, IpAddr::V6(ip), 64).context("cannot add an address")?;
    netlink::add_address_with_detection(one, IpAddr::V6(ip), 64)
        .context("cannot add an address")?;
    dad_failed("pwa", ip)?;
    let sock = s.socket(Kind::Tcp6)?;
    let address = std::net::SocketAddrV6::new(ip, 8080, 0, one);
    s.bind(&sock, std::net::SocketAddr::V6(address))
        .fails(Errno::EADDRNOTAVAIL)?
        .is("conflict.interfaces.0.name", "pwa")
        .is("conflict.interfaces.0.state", "dad_failed")
        .is("conflict.interfaces.1.name", "pwb")
        .is("conflict.interfaces.1.state", "usable")
        .is("network.interface.name", "pwa");
    Ok(())
}

/// A link-local address of another interface than the scope says.
fn bind_on_another_interface(s: &mut Script) -> Result<()> {
    veth_pair()?;
    let ip: Ipv6Addr = "fe80::99".parse()?;
    let (one, other) = (netns::link_index("pwa")?, netns::link_index("pwb")?);
    netlink::add_address(other, IpAddr::V6(ip), 64).context("cannot add an address")?;
    let sock = s.socket(Kind::Tcp6)?;
    let address = std::net::SocketAddrV6::new(ip, 8080, 0, one);
    s.bind(&sock, std::net::SocketAddr::V6(address))
        .fails(Errno::EADDRNOTAVAIL)?
        .is(
            "conflict.interfaces",
            json!([{"name": "pwb", "state": "usable"}]),
        )
        .is("network.interface.name", "pwa");
    Ok(())
}

/// Old programs leave the family at 0; the kernel takes that for 0.0.0.0 (net/ipv4/af_inet.c,
/// `__inet_bind`).
fn bind_unspec_family(s: &mut Script) -> Result<()> {
    let sock = s.socket(Kind::Tcp4)?;
    let address = Address::from((ANY4, 8080)).with_family(libc::AF_UNSPEC);
    s.bind(&sock, address).ok()?;
    Ok(())
}

fn bind_same_port_in_another_netns(s: &mut Script) -> Result<()> {
    let _holder = s.listener(Kind::Tcp4, (ANY4, 8080))?;
    let here = s.me.netns;
    s.elsewhere(|s| {
        ensure!(s.me.netns != here, "still in the same namespace");
        s.listener(Kind::Tcp4, (ANY4, 8080)).map(drop)
    })
}

fn bind_udplite(s: &mut Script) -> Result<()> {
    let first = s.bound(Kind::UdpLite4, (LO4, 8080))?;
    let late = s.socket(Kind::UdpLite4)?;
    s.bind(&late, (LO4, 8080))
        .fails(Errno::EADDRINUSE)?
        .holder(0, &first, "closed")?
        .judged(("bound", "exact", "no_reuse"));
    // Not the port of the same number that UDP has.
    s.bound(Kind::Udp4, (LO4, 8080)).map(drop)
}

/// SCTP is seen at its bind alone, and has its own table of ports.
fn bind_sctp(s: &mut Script) -> Result<()> {
    let _holder = s.bound(Kind::Sctp4, (LO4, 8080))?;
    let late = s.socket(Kind::Sctp4)?;
    s.bind(&late, (LO4, 8080))
        .fails(Errno::EADDRINUSE)?
        .judged_alone("unknown");
    Ok(())
}

/// A cookie the kernel has given before is there on every backend and kernel.
fn bind_cookie_known_before(s: &mut Script) -> Result<()> {
    for (kind, port) in [(Kind::Tcp4, 8080), (Kind::Udp4, 8080)] {
        let sock = s.socket(kind)?;
        let cookie = sock.cookie()?;
        s.bind(&sock, (LO4, port))
            .ok()?
            .is("socket.cookie", hex(cookie));
    }
    Ok(())
}

fn bind_already_bound(s: &mut Script) -> Result<()> {
    for (kind, ip) in [
        (Kind::Tcp4, IpAddr::V4(LO4)),
        (Kind::Tcp6, IpAddr::V6(LO6)),
        (Kind::Udp4, IpAddr::V4(LO4)),
        (Kind::Udp6, IpAddr::V6(LO6)),
    ] {
        let sock = s.bound(kind, (ip, 8080))?;
        s.bind(&sock, (ip, 8081))
            .fails(Errno::EINVAL)?
            .judged_alone("already_bound");
    }
    Ok(())
}

fn bind_privileged_port_as_nobody(s: &mut Script) -> Result<()> {
    s.forked(|s| {
        task::become_user(65534)?;
        s.relearn()?;
        for (kind, ip) in [
            (Kind::Tcp4, IpAddr::V4(LO4)),
            (Kind::Tcp6, IpAddr::V6(LO6)),
            (Kind::Udp4, IpAddr::V4(LO4)),
        ] {
            let sock = s.socket(kind)?;
            s.bind(&sock, (ip, 81))
                .fails(Errno::EACCES)?
                .judged_alone("privileged")
                .says(&["port 81 needs CAP_NET_BIND_SERVICE", "(uid 65534)"])
                .advises(&["net.ipv4.ip_unprivileged_port_start=81"])
                .is("process.user.id", 65534)
                .is("socket.uid", 65534);
        }
        Ok(())
    })?;
    Ok(())
}

/// The owner of a socket is the effective user at socket(), the process's user is the real one.
fn bind_socket_of_another_user(s: &mut Script) -> Result<()> {
    let sock = task::with_effective_user(65534, || s.socket(Kind::Tcp4))??;
    s.bind(&sock, (LO4, 80))
        .ok()?
        .is("process.user.id", 0)
        .is("socket.uid", 65534);
    Ok(())
}

fn bind_not_local(s: &mut Script) -> Result<()> {
    let v4 = s.socket(Kind::Tcp4)?;
    s.bind(&v4, (Ipv4Addr::new(192, 0, 2, 1), 8080))
        .fails(Errno::EADDRNOTAVAIL)?
        .is("conflict.interfaces", json!([]))
        .says(&["192.0.2.1", "no interface of this network namespace has it"])
        .advises(&["net.ipv4.ip_nonlocal_bind=1"]);
    let ip: Ipv6Addr = "2001:db8::1".parse()?;
    let v6 = s.socket(Kind::Tcp6)?;
    s.bind(&v6, (ip, 8080))
        .fails(Errno::EADDRNOTAVAIL)?
        .is("conflict.interfaces", json!([]));
    let udp = s.socket(Kind::Udp4)?;
    s.bind(&udp, (Ipv4Addr::new(192, 0, 2, 1), 0))
        .fails(Errno::EADDRNOTAVAIL)?
        .set("network.local.port", Want::Absent);
    let udp = s.socket(Kind::Udp6)?;
    s.bind(&udp, (ip, 8080)).fails(Errno::EADDRNOTAVAIL)?;
    Ok(())
}

fn bind_short_address(s: &mut Script) -> Result<()> {
    let v4 = s.socket(Kind::Tcp4)?;
    s.bind(&v4, Address::from((LO4, 8080)).cut(8))
        .fails(Errno::EINVAL)?
        .judged_alone("unknown");
    let v6 = s.socket(Kind::Udp6)?;
    s.bind(&v6, Address::from((LO6, 8080)).cut(16))
        .fails(Errno::EINVAL)?
        .judged_alone("unknown");
    Ok(())
}

/// The address of one family on a socket of another: what it asks for is unclear.
fn bind_wrong_family(s: &mut Script) -> Result<()> {
    let v4 = s.socket(Kind::Tcp4)?;
    s.bind(&v4, (LO6, 8080))
        .fails(Errno::EAFNOSUPPORT)?
        .forget("network.local.address")
        .forget("network.local.port")
        .forget("network.local.port_class")
        .forget("network.local.ephemeral");
    let v6 = s.socket(Kind::Udp6)?;
    let mut bytes = Address::from((LO6, 8080)).with_family(libc::AF_INET);
    bytes.ip = None;
    s.bind(&v6, bytes).fails(Errno::EAFNOSUPPORT)?;
    Ok(())
}

fn bind_link_local_without_scope(s: &mut Script) -> Result<()> {
    let ip: Ipv6Addr = "fe80::1".parse()?;
    let sock = s.socket(Kind::Tcp6)?;
    s.bind(&sock, (ip, 8080))
        .fails(Errno::EINVAL)?
        .judged_alone("unknown")
        .says(&["fe80::1 is link-local"])
        .advises(&["sin6_scope_id"]);
    Ok(())
}

/// EFAULT: the address cannot be read, so nobody knows what was asked for.
fn bind_unreadable_address(s: &mut Script) -> Result<()> {
    let sock = s.socket(Kind::Tcp4)?;
    let nowhere = Address::from((LO4, 8080)).cut(0);
    let why = degraded::may_miss(s.ctx.backend, Feature::Early);
    let line = s
        .bind_by(&sock, &nowhere, Feature::Early, || {
            sock::bind_raw(sock.fd(), std::ptr::without_provenance(1), 16)
        })
        .fails(Errno::EFAULT)?;
    line.set("network.local", Want::Absent);
    if let Some(why) = why {
        line.optional(why);
    }
    s.control()
}

/// EBADF, ENOTSOCK: there is no socket to tell of.
fn bind_no_socket(s: &mut Script) -> Result<()> {
    let address = Address::from((LO4, 8080));
    let (pointer, len) = address.raw();
    let file = std::fs::File::open("/proc/self/status")?;
    let file = std::os::fd::AsRawFd::as_raw_fd(&file);
    for (fd, errno) in [(9999, Errno::EBADF), (file, Errno::ENOTSOCK)] {
        ensure!(
            sock::bind_raw(fd, pointer, len) == Err(errno),
            "not {errno:?}"
        );
    }
    s.control()
}

/// Raw and ping sockets have no ports.
fn bind_raw_and_icmp(s: &mut Script) -> Result<()> {
    let address = Address::from((LO4, 0));
    let (pointer, len) = address.raw();
    let raw = sock::other(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP)?;
    let raw = std::os::fd::AsRawFd::as_raw_fd(&raw);
    sock::bind_raw(raw, pointer, len).context("raw")?;
    sock::connect_raw(raw, &address).context("raw")?;
    netns::sysctl("ipv4/ping_group_range", "0 2147483647")?;
    let ping = sock::other(libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP)?;
    let ping = std::os::fd::AsRawFd::as_raw_fd(&ping);
    sock::bind_raw(ping, pointer, len).context("ping")?;
    sock::connect_raw(ping, &address).context("ping")?;
    s.control()
}

/// Neither have families that are not IP.
fn bind_unix_and_netlink(s: &mut Script) -> Result<()> {
    let mut unix = b"\x01\x00\x00portwatch-tests".to_vec();
    unix.truncate(18);
    let fd = sock::other(libc::AF_UNIX, libc::SOCK_STREAM, 0)?;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&fd);
    sock::bind_raw(fd, unix.as_ptr().cast(), unix.len() as u32).context("unix")?;
    let netlink = [libc::AF_NETLINK as u8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let fd = sock::other(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)?;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&fd);
    sock::bind_raw(fd, netlink.as_ptr().cast(), netlink.len() as u32).context("netlink")?;
    s.control()
}
