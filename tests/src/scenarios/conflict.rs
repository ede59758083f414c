//! EADDRINUSE: every rule by which two sockets may not share a port, and its near misses.
//!
//! The outcomes are those of the conflict oracle measured on Linux; the workload itself fails if
//! the running kernel decides otherwise.

mod connections;
mod processes;
mod reuse;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;

use self::{connections::*, processes::*, reuse::*};
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
    conflict_time_wait_outgoing,
    conflict_fin_wait,
    conflict_client_port: [6],
    conflict_client_explicit_port,
    conflict_accepted_outlives_listener,
    conflict_listener_among_children,
    conflict_listener_among_many_children,
    conflict_child_of_backlog_0,
    conflict_inherited_descriptor,
    conflict_of_two_processes,
    conflict_of_short_lived_heir,
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
