//! More sockets on a port than a conflict shows, most of which cannot be in the way: of the other family, on
//! another device, or sharing the port with the one that is refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};
use nix::errno::Errno;

use super::{Scenario, scenarios};
use crate::{
    expect::Expect,
    script::{Script, skip},
    sys::{
        netlink, netns,
        sock::{Kind, Sock},
    },
};

pub(super) const ALL: &[Scenario] = scenarios![
    crowded_by_other_family,
    crowded_by_specific_addresses,
    crowded_by_own_group,
    crowded_by_other_devices,
];

/// More than a conflict shows. With one more, UDP's slot would have more than ten sockets, of which the kernel
/// looks at fewer (net/ipv4/udp.c, `udp_lib_get_port`): 5.10 lets 0.0.0.0 pass beside 127.0.0.1.
const MANY: u16 = 9;

const ANY4: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const ANY6: Ipv6Addr = Ipv6Addr::UNSPECIFIED;

fn group(s: &mut Script, kind: Kind, ip: impl Into<IpAddr>, port: u16) -> Result<Vec<Sock>> {
    let ip = ip.into();
    let mut group = Vec::new();
    for _ in 0..MANY {
        let mut sock = s.socket(kind)?.reuseport()?;
        if kind.is_v6() && ip.is_unspecified() {
            sock = sock.v6only()?;
        }
        s.bind(&sock, (ip, port)).ok()?;
        s.listen(&sock, 5).ok()?;
        group.push(sock);
    }
    Ok(group)
}

/// The sockets at this address are blamed, and nobody else.
fn blames(line: &mut Expect, ip: impl Into<IpAddr>, total: u64) {
    line.is(
        "conflict.holders.0.network.local.address",
        ip.into().to_string(),
    )
    .holders_total(total);
}

/// nginx with `reuseport` and a worker for each of nine CPUs, on IPv4 and IPv6; whichever was first.
fn crowded_by_other_family(s: &mut Script) -> Result<()> {
    let total = 2 * u64::from(MANY);
    for (port, v6_first) in [(8080, false), (8081, true)] {
        let mut open = Vec::new();
        for v6 in [v6_first, !v6_first] {
            open.extend(if v6 {
                group(s, Kind::Tcp6, ANY6, port)?
            } else {
                group(s, Kind::Tcp4, ANY4, port)?
            });
        }
        let late = s.socket(Kind::Tcp4)?;
        let line = s.bind(&late, (ANY4, port)).fails(Errno::EADDRINUSE)?;
        line.judged(("listener", "exact", "reuseport_missing_self"));
        blames(line, ANY4, total);
        let late = s.socket(Kind::Tcp6)?;
        let line = s
            .bind(&late, (Ipv6Addr::LOCALHOST, port))
            .fails(Errno::EADDRINUSE)?;
        line.judged(("listener", "wildcard", "reuseport_missing_self"));
        blames(line, ANY6, total);
    }
    Ok(())
}

/// named: one IPv4 address, and then one socket for each of many IPv6 addresses.
fn crowded_by_specific_addresses(s: &mut Script) -> Result<()> {
    let lo = netns::link_index("lo")?;
    let address = |at: u16| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, at);
    for at in 1..=MANY {
        netlink::add_address(lo, address(at).into(), 128).context("cannot add an address")?;
    }
    for (four, six) in [(Kind::Tcp4, Kind::Tcp6), (Kind::Udp4, Kind::Udp6)] {
        let is_tcp = matches!(four, Kind::Tcp4);
        let holder = s.bound(four, (Ipv4Addr::LOCALHOST, 5353))?;
        if is_tcp {
            s.listen(&holder, 5).ok()?;
        }
        let mut others = Vec::new();
        for at in 1..=MANY {
            let other = s.bound(six, (address(at), 5353))?;
            if is_tcp {
                s.listen(&other, 5).ok()?;
            }
            others.push(other);
        }
        let (state, kind) = if is_tcp {
            ("listen", "listener")
        } else {
            ("closed", "bound")
        };
        for (ip, overlap) in [(Ipv4Addr::LOCALHOST, "exact"), (ANY4, "wildcard")] {
            let late = s.socket(four)?;
            s.bind(&late, (ip, 5353))
                .fails(Errno::EADDRINUSE)?
                .holder(0, &holder, state)?
                .judged((kind, overlap, "no_reuse"))
                .set("conflict.holders.1", crate::expect::Want::Absent)
                .holders_total(u64::from(MANY) + 1)
                .says(&["held by this very process"]);
        }
    }
    Ok(())
}

/// Those with SO_REUSEPORT would take it in; the one that is in the way only bound its port.
fn crowded_by_own_group(s: &mut Script) -> Result<()> {
    let holder = s.bound(Kind::Tcp4, (Ipv4Addr::LOCALHOST, 8080))?;
    let _group = group(s, Kind::Tcp6, Ipv6Addr::LOCALHOST, 8080)?;
    let late = s.socket(Kind::Tcp4)?;
    s.bind(&late, (Ipv4Addr::LOCALHOST, 8080))
        .fails(Errno::EADDRINUSE)?
        .holder(0, &holder, "closed")?
        .judged(("bound", "exact", "no_reuse"))
        .holders_total(u64::from(MANY) + 1);
    let late = s.socket(Kind::Tcp6)?.reuseport()?;
    s.bind(&late, (ANY6, 8080))
        .fails(Errno::EADDRINUSE)?
        .holder(0, &holder, "closed")?
        .judged(("bound", "dual_stack", "reuseport_missing_holder"))
        .holders_total(u64::from(MANY) + 1);
    Ok(())
}

/// A DHCP server with a socket for each device.
fn crowded_by_other_devices(s: &mut Script) -> Result<()> {
    let mut devices = Vec::new();
    for pair in 0..5 {
        let (one, other) = (format!("pwa{pair}"), format!("pwb{pair}"));
        if let Err(error) = netlink::add_veth(&one, &other) {
            return skip(format!("no veth devices ({error:?})"));
        }
        devices.extend([one, other]);
    }
    for kind in [Kind::Udp4, Kind::Tcp4] {
        let mut socks = Vec::new();
        for device in &devices {
            let sock = s.socket(kind)?;
            sock.bind_to_device(device)?;
            s.bind(&sock, (ANY4, 6767)).ok()?;
            socks.push(sock);
        }
        for (device, holder) in devices.iter().zip(&socks) {
            let late = s.socket(kind)?;
            late.bind_to_device(device)?;
            s.bind(&late, (ANY4, 6767))
                .fails(Errno::EADDRINUSE)?
                .holder(0, holder, "closed")?
                .judged(("bound", "exact", "no_reuse"))
                .is("conflict.holders.0.network.interface.name", device.as_str())
                .holders_total(devices.len() as u64);
        }
    }
    Ok(())
}
