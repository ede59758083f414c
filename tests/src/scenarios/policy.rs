//! Refused by policy, before the socket layer decides: cgroup programs, Landlock, seccomp.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;

use super::{Scenario, scenarios};
use crate::{
    degraded::{self, Backend, Feature},
    expect::{Expect, Want},
    script::{Script, skip},
    sys::{
        bpf::{Cgroup, Refuse},
        landlock,
        sock::Kind,
        task,
    },
};

pub(super) const ALL: &[Scenario] = scenarios![
    policy_cgroup_bind,
    policy_cgroup_connect,
    policy_cgroup_connect_as_if_answered,
    policy_landlock,
    policy_landlock_mptcp: [45],
    policy_seccomp,
];

const LO4: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// A cgroup whose programs refuse these calls, with this process in it.
pub(super) fn cgroup(s: &mut Script, refuse: &[Refuse]) -> Result<Cgroup> {
    let own = s.me.cgroup.clone().unwrap_or_else(|| "/".to_owned());
    let Some(cgroup) = Cgroup::enter(&own)? else {
        return skip("cgroup v2 is not mounted");
    };
    for call in refuse {
        cgroup.refuse(*call)?;
    }
    s.relearn()?;
    ensure!(s.me.cgroup.as_ref() != Some(&own), "still in cgroup {own}");
    Ok(cgroup)
}

/// The refusal names this program on the process' own cgroup.
pub(super) fn named(line: &mut Expect, attach_type: &str, cgroup: &Cgroup) {
    let at = |path: &str| format!("conflict.policy.programs.0.{path}");
    line.is(&at("name"), "pw_refuses")
        .set(&at("id"), Want::Present)
        .is(&at("attach_type"), attach_type)
        .is(&at("cgroup"), cgroup.path_inside());
}

fn policy_cgroup_bind(s: &mut Script) -> Result<()> {
    let cgroup = cgroup(s, &[Refuse::Bind4, Refuse::Bind6])?;
    for kind in [Kind::Tcp4, Kind::Udp4] {
        let sock = s.socket(kind)?;
        let line = s.bind(&sock, (LO4, 8080)).fails(Errno::EPERM)?;
        named(line, "cgroup_inet4_bind", &cgroup);
    }
    let v6 = s.socket(Kind::Tcp6)?;
    let line = s
        .bind(&v6, (std::net::Ipv6Addr::LOCALHOST, 8080))
        .fails(Errno::EPERM)?;
    named(line, "cgroup_inet6_bind", &cgroup);
    s.keep(cgroup);
    Ok(())
}

fn policy_cgroup_connect(s: &mut Script) -> Result<()> {
    let _server = s.listener(Kind::Tcp4, (LO4, 8080))?;
    let cgroup = cgroup(s, &[Refuse::Connect4])?;
    for kind in [Kind::Tcp4, Kind::Udp4] {
        let sock = s.socket(kind)?;
        let line = s.connect(&sock, (LO4, 8080)).fails(Errno::EPERM)?;
        named(line, "cgroup_inet4_connect", &cgroup);
    }
    s.keep(cgroup);
    Ok(())
}

/// A program may refuse with the errno of a peer that has answered.
fn policy_cgroup_connect_as_if_answered(s: &mut Script) -> Result<()> {
    let cgroup = cgroup(s, &[])?;
    if !cgroup.refuse_with(Refuse::Connect4, Errno::ECONNREFUSED)? {
        return skip("programs of this kernel cannot choose an errno");
    }
    let why = degraded::may_miss(s.ctx.backend, Feature::RefusedAsAnswered);
    for kind in [Kind::Udp4, Kind::Tcp4] {
        let sock = s.socket(kind)?;
        let line = s.connect(&sock, (LO4, 8080)).fails(Errno::ECONNREFUSED)?;
        if kind == Kind::Tcp4 {
            // The address that a real answer would have come to is not known either.
            line.forget("network.local.address");
            if let Some(why) = why {
                line.optional(why);
            }
        }
    }
    drop(cgroup);
    Ok(())
}

/// Skips where Landlock has no network rules.
fn needs_landlock() -> Result<()> {
    match landlock::version() {
        Ok(version) if version >= 4 => Ok(()),
        Ok(version) => skip(format!("Landlock ABI {version} has no network rules")),
        Err(error) => skip(format!("no Landlock on this kernel ({error:?})")),
    }
}

/// Leaves this process one port; the rest is refused by the LSM hook, before any protocol.
fn restrict(port: u16) -> Result<()> {
    landlock::allow_only(port).context("Landlock")
}

fn policy_landlock(s: &mut Script) -> Result<()> {
    needs_landlock()?;
    s.forked(|s| {
        restrict(8080)?;
        let allowed = s.listener(Kind::Tcp4, (LO4, 8080))?;
        let refused = s.socket(Kind::Tcp4)?;
        s.bind(&refused, (LO4, 8081))
            .fails(Errno::EACCES)?
            .judged_alone("policy");
        // A system call's result alone does not say who refused.
        let kind = match s.ctx.backend {
            Backend::RawTp => "unknown",
            Backend::Tracing | Backend::Kprobe => "policy",
        };
        let refused = s.socket(Kind::Tcp4)?;
        s.connect(&refused, (LO4, 8081))
            .fails(Errno::EACCES)?
            .judged_alone(kind);
        let nonblocking = s.socket(Kind::Tcp4)?;
        nonblocking.set_nonblocking(true)?;
        s.connect(&nonblocking, (LO4, 8081))
            .fails(Errno::EACCES)?
            .judged_alone(kind);
        // What the connection has left behind is none of the refusals'.
        let (client, _accepted) = s.connected(&allowed)?;
        s.connect(&client, (LO4, 8081))
            .fails(Errno::EACCES)?
            .judged_alone(kind)
            .forget("network.local.port");
        drop(client);
        let reused = s.socket(Kind::Tcp4)?;
        s.connect(&reused, (LO4, 8081))
            .fails(Errno::EACCES)?
            .judged_alone(kind);
        Ok(())
    })?;
    Ok(())
}

/// Refused or not depends on the kernel (Landlock let MPTCP pass at first); told either way.
fn policy_landlock_mptcp(s: &mut Script) -> Result<()> {
    needs_landlock()?;
    s.forked(|s| {
        restrict(8080)?;
        let sock = s.socket(Kind::Mptcp4)?;
        let call = s.bind(&sock, (LO4, 8081));
        match call.result() {
            Ok(()) => call.ok()?,
            Err(_) => call.fails(Errno::EACCES)?,
        };
        Ok(())
    })?;
    Ok(())
}

/// Refused at the door of the kernel: only the system call itself is seen.
fn policy_seccomp(s: &mut Script) -> Result<()> {
    s.forked(|s| {
        let sock = s.socket(Kind::Tcp4)?;
        task::forbid_bind()?;
        let why = degraded::may_miss(s.ctx.backend, Feature::Early);
        let line = s.bind(&sock, (LO4, 8080)).fails(Errno::EPERM)?;
        line.set("event.duration", Want::Present.maybe());
        if let Some(why) = why {
            line.optional(why);
        }
        Ok(())
    })?;
    s.control()
}
