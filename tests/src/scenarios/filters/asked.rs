//! The same of events that are off unless asked for: filters are decided in hooks of their own there, and a release
//! has no caller, but somebody who had the port last.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};

use super::{CGROUP, COMM, Case, LO4, LO6, Targets, all_filtered, local, words};
use crate::{
    bench::Bench,
    degraded::{self, Feature},
    script::{Port, Script, Skip},
    sys::{
        addr::Address,
        bpf::Cgroup,
        clock, proc,
        sock::{Kind, Sock},
        task,
    },
};

/// Runs a part in a process of that cgroup, if there is one.
fn in_cgroup(s: &mut Script, work: impl FnOnce(&mut Script) -> Result<()>) -> Result<()> {
    if let Some(own) = s.me.cgroup.clone()
        && let Some(cgroup) = Cgroup::existing(&own, CGROUP)
    {
        s.forked(|s| {
            cgroup.join()?;
            s.relearn()?;
            work(s)
        })?;
    }
    Ok(())
}

/// A connection to that port, from that one, and who accepts it.
fn accepted(s: &mut Script, kind: Kind, port: u16, from: u16) -> Result<()> {
    let ip = |port: u16| match kind.is_v6() {
        true => Address::from((LO6, port)),
        false => (LO4, port).into(),
    };
    let server = s.socket(kind)?.reuseaddr().context("SO_REUSEADDR")?;
    server.bind(&ip(port)).context("bind")?;
    server.listen(4).context("listen")?;
    let client = s.socket(kind)?.reuseaddr().context("SO_REUSEADDR")?;
    client.bind(&ip(from)).context("bind")?;
    client.connect(&ip(port)).context("connect")?;
    s.accept(&server).map(drop)
}

/// Connections of every kind.
pub(super) fn accept_mix(s: &mut Script) -> Result<()> {
    accepted(s, Kind::Tcp4, 8080, 9001)?;
    accepted(s, Kind::Tcp6, 8081, 9002)?;
    s.forked(|s| {
        task::become_user(65534)?;
        s.relearn()?;
        accepted(s, Kind::Tcp4, 8090, 9003)
    })?;
    s.elsewhere(|s| accepted(s, Kind::Tcp4, 8100, 9004))?;
    s.forked(|s| {
        task::rename(COMM.as_bytes())?;
        s.relearn()?;
        accepted(s, Kind::Tcp4, 8110, 9005)
    })?;
    in_cgroup(s, |s| accepted(s, Kind::Tcp6, 8120, 9006))
}

pub(super) fn filter_accept(bench: &Bench) -> Result<()> {
    let mut cases = vec![
        Case {
            args: |targets| {
                let mut args = words("-e accept -t -4 --port 8080-8100");
                args.extend(["--netns".into(), targets.netns.to_string()]);
                args
            },
            keep: Some(|line, _| matches!(local(line), 8080 | 8090)),
        },
        Case {
            args: |_| words("-e accept --uid 0 --peer-port 9002-9003 --peer-port 9005"),
            keep: Some(|line, _| matches!(local(line), 8081 | 8110)),
        },
        Case {
            args: |_| vec!["-e".into(), "accept".into(), "--comm".into(), COMM.into()],
            keep: Some(|line, _| local(line) == 8110),
        },
        Case {
            args: |targets| {
                let mut args = words("-e accept -6 --pid");
                args.push(targets.pid.to_string());
                args
            },
            keep: Some(|line, _| local(line) == 8081),
        },
        // None of them has failed.
        Case {
            args: |_| words("-e accept,bind --failed"),
            keep: None,
        },
    ];
    cases.extend(of_cgroup(|targets| in_cgroup_of(targets, "accept")));
    all_filtered(bench, "accept_mix", &cases)
}

/// A case for the part in a cgroup of its own, where there are cgroups of version 2.
fn of_cgroup(args: fn(&Targets) -> Vec<String>) -> Option<Case> {
    proc::cgroup2_mount()?;
    Some(Case {
        args,
        keep: Some(|line, _| local(line) == 8120),
    })
}

fn in_cgroup_of(targets: &Targets, event: &str) -> Vec<String> {
    let cgroup = targets.cgroup.clone().unwrap_or_default();
    vec!["-e".into(), event.into(), "--cgroup".into(), cgroup]
}

/// A socket that gets a port and is closed.
fn released(s: &mut Script, kind: Kind, address: impl Into<Address>) -> Result<()> {
    let since = clock::boot_ns();
    let sock: Sock = s.socket(kind)?;
    sock.bind(&address.into()).context("bind")?;
    if kind.transport() == "tcp" {
        sock.listen(4).context("listen")?;
    }
    let local = sock.local().context("no address")?;
    drop(sock);
    s.released(Port { kind, local, since }, "closed");
    Ok(())
}

/// Ports of every kind.
pub(super) fn release_mix(s: &mut Script) -> Result<()> {
    released(s, Kind::Tcp4, (LO4, 8080))?;
    released(s, Kind::Tcp6, (Ipv6Addr::UNSPECIFIED, 8081))?;
    released(s, Kind::Udp4, (Ipv4Addr::UNSPECIFIED, 8082))?;
    s.forked(|s| {
        task::become_user(65534)?;
        s.relearn()?;
        released(s, Kind::Tcp4, (LO4, 8090))
    })?;
    s.elsewhere(|s| released(s, Kind::Tcp4, (LO4, 8100)))?;
    s.forked(|s| {
        task::rename(COMM.as_bytes())?;
        s.relearn()?;
        released(s, Kind::Tcp4, (LO4, 8110))
    })?;
    in_cgroup(s, |s| released(s, Kind::Udp6, (LO6, 8120)))
}

pub(super) fn filter_release(bench: &Bench) -> Result<()> {
    if let Some(why) = degraded::may_miss(bench.backend, Feature::Release) {
        return Err(Skip(why.to_owned()).into());
    }
    let mut cases = vec![
        Case {
            args: |targets| {
                let mut args = words("-e release -t -4 --port 8080-8100");
                args.extend(["--netns".into(), targets.netns.to_string()]);
                args
            },
            keep: Some(|line, _| matches!(local(line), 8080 | 8090)),
        },
        Case {
            args: |_| words("-e release --uid 65534"),
            keep: Some(|line, _| local(line) == 8090),
        },
        Case {
            args: |_| vec!["-e".into(), "release".into(), "--comm".into(), COMM.into()],
            keep: Some(|line, _| local(line) == 8110),
        },
        Case {
            args: |targets| {
                let mut args = words("-e release -u --pid");
                args.push(targets.pid.to_string());
                args
            },
            keep: Some(|line, _| local(line) == 8082),
        },
        // It has no peer, whoever had the port.
        Case {
            args: |_| words("-e release --peer-port 1-65535"),
            keep: None,
        },
    ];
    cases.extend(of_cgroup(|targets| in_cgroup_of(targets, "release")));
    all_filtered(bench, "release_mix", &cases)
}
