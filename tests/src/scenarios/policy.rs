//! Refused by policy, before the socket layer decides: cgroup programs, Landlock, seccomp.

use std::{net::Ipv4Addr, os::fd::OwnedFd, path::Path};

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use portwatch::host::btf::{self, Btf};

use super::{Scenario, scenarios};
use crate::{
    degraded::{self, Backend, Feature},
    expect::{Expect, Want},
    script::{Script, skip},
    sys::{
        bpf::{
            Cgroup, Refuse,
            program::{self, Program},
        },
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
    policy_security_module,
    policy_security_module_without_errno,
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

/// Has bind() of this process return that, without doing anything, as a security module may; as long as the value lives.
fn instead_of_bind(result: i32) -> Result<[OwnedFd; 2]> {
    const HOOK: &str = "security_socket_bind";
    let types = Btf::read(Path::new(btf::VMLINUX), &[HOOK])?;
    let own = std::process::id();
    let jump_unless = |number: u32, by: u64| u64::from(number) << 32 | by << 16 | 0x55;
    let program = Program {
        kind: program::kind::TRACING,
        at: program::at::INSTEAD,
        target: types.function_id(HOOK).context(HOOK)?,
        code: &[
            14 << 32 | 0x85, // bpf_get_current_pid_tgid
            32 << 32 | 0x77, // r0 >>= 32
            jump_unless(own, 2),
            u64::from(result.cast_unsigned()) << 32 | 0xb7,
            0x95,
            0xb7, // r0 = 0
            0x95,
        ],
        ..Program::default()
    };
    let program = match program.load() {
        Ok(program) => program,
        Err(error) => {
            return skip(format!(
                "no program in the place of a security hook: {error}"
            ));
        }
    };
    let link = program::attach(&program, None).context("cannot attach to a security hook")?;
    Ok([program, link])
}

/// A security module may refuse with any errno, also with one that means a socket in the way elsewhere.
fn policy_security_module(s: &mut Script) -> Result<()> {
    let module = instead_of_bind(-(Errno::EADDRINUSE as i32))?;
    let kind = match s.ctx.backend {
        // The system call's result does not say who refused, and nobody has the port.
        Backend::RawTp => "gone",
        Backend::Tracing | Backend::Kprobe => "policy",
    };
    let sock = s.socket(Kind::Tcp4)?;
    s.bind(&sock, (LO4, 8080))
        .fails(Errno::EADDRINUSE)?
        .judged_alone(kind)
        .set("event.duration", Want::Present.maybe());
    drop(module);
    Ok(())
}

/// One that returns what is no errno ends the call, which has then neither worked nor failed: nothing is told of it.
fn policy_security_module_without_errno(s: &mut Script) -> Result<()> {
    let module = instead_of_bind(1)?;
    let sock = s.socket(Kind::Tcp4)?;
    let address = nix::sys::socket::SockaddrIn::new(127, 0, 0, 1, 8080);
    // SAFETY: a valid address of that length.
    let returned = unsafe {
        libc::bind(
            sock.fd(),
            std::ptr::from_ref(&address).cast(),
            size_of::<libc::sockaddr_in>() as u32,
        )
    };
    ensure!(returned == 1, "bind() returned {returned}");
    drop(module);
    s.bind(&sock, (LO4, 8080)).ok()?;
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
