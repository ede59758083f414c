//! Addresses, address families and policies: refusals that look like a port in use, or like nothing.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;

use super::super::{Scenario, policy, scenarios};
use crate::{
    script::{Script, skip},
    sys::{bpf::Refuse, netlink, netns, sock::Kind},
};

pub(super) const ALL: &[Scenario] = scenarios![
    puzzle_10_reuseport_set_after_bind: [10],
    puzzle_16_only_where_bindv6only_is_off: [16],
    puzzle_30_refused_after_bind: [30],
    puzzle_40_tentative_address: [40],
];

const LO4: Ipv4Addr = Ipv4Addr::LOCALHOST;
const ANY4: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const ANY6: Ipv6Addr = Ipv6Addr::UNSPECIFIED;

/// The holder sets SO_REUSEPORT too late for the first comer, and in time for the second.
fn puzzle_10_reuseport_set_after_bind(s: &mut Script) -> Result<()> {
    let holder = s.bound(Kind::Udp4, (ANY4, 5060))?;
    let late = s.socket(Kind::Udp4)?.reuseport()?;
    s.bind(&late, (ANY4, 5060))
        .fails(Errno::EADDRINUSE)?
        .holder(0, &holder, "closed")?
        .judged(("bound", "exact", "reuseport_missing_holder"))
        .holders_total(1)
        .says(&["it did not set SO_REUSEPORT, so yours does not help until it is gone"]);
    let _holder = holder.reuseport()?;
    s.bind(&late, (ANY4, 5060)).ok()?;
    Ok(())
}

/// The same program runs or does not run, after net.ipv6.bindv6only.
fn puzzle_16_only_where_bindv6only_is_off(s: &mut Script) -> Result<()> {
    for only in [true, false] {
        netns::sysctl("ipv6/bindv6only", if only { "1" } else { "0" })?;
        let v6 = s.listener(Kind::Tcp6, (ANY6, 7000))?;
        let v4 = s.socket(Kind::Tcp4)?;
        let call = s.bind(&v4, (ANY4, 7000));
        if only {
            call.ok()?;
            continue;
        }
        call.fails(Errno::EADDRINUSE)?
            .holder(0, &v6, "listen")?
            .judged(("listener", "dual_stack", "no_reuse"))
            .is("conflict.holders.0.socket.v6only", false)
            .holders_total(1)
            .says(&["its [::] takes IPv4 too"])
            .advises(&["set IPV6_V6ONLY on it before its bind()"]);
    }
    Ok(())
}

/// A cgroup program undoes a bind that had worked: nobody ever has the port.
fn puzzle_30_refused_after_bind(s: &mut Script) -> Result<()> {
    s.bound(Kind::Tcp4, (LO4, 30539))?;
    let cgroup = policy::cgroup(s, &[Refuse::PostBind4])?;
    for kind in [Kind::Tcp4, Kind::Udp4] {
        let sock = s.socket(kind)?;
        let line = s
            .bind(&sock, (ANY4, 30539))
            .fails(Errno::EPERM)?
            .says(&["pw_refuses"]);
        policy::named(line, "cgroup_inet4_post_bind", &cgroup);
        ensure!(sock.local().is_none_or(|local| local.port() == 0), "bound");
    }
    s.keep(cgroup);
    Ok(())
}

/// An address that is there and may not be used yet: `ip -6 addr` says "tentative".
fn puzzle_40_tentative_address(s: &mut Script) -> Result<()> {
    if let Err(error) = netlink::add_veth("pwa", "pwb") {
        return skip(format!("no veth devices ({error:?})"));
    }
    // Its peer stays down: without a link nobody can be asked whether he has the address.
    netns::link_up("pwa").context("cannot bring a veth up")?;
    let ip: Ipv6Addr = "fd00:5::1".parse()?;
    netlink::add_address_with_detection(netns::link_index("pwa")?, ip.into(), 64)
        .context("cannot add an address")?;
    let sock = s.socket(Kind::Tcp6)?;
    s.bind(&sock, (ip, 8080))
        .fails(Errno::EADDRNOTAVAIL)?
        .judged_alone("not_local")
        .says(&["fd00:5::1", "tentative"]);
    Ok(())
}
