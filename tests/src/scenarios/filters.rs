//! Every filter selects what it says and nothing else.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Result, ensure};
use nix::errno::Errno;

use self::asked::{accept_mix, filter_accept, filter_release, release_mix};
use super::{Scenario, Session, scenarios, sessions};
use crate::{
    bench::{self, Bench},
    degraded,
    expect::{self, Expect, Mismatch},
    runner::Workload,
    script::{Script, skip},
    sys::{bpf::Cgroup, netns::Netns, proc, sock::Kind, task},
};

mod asked;

pub(super) const ALL: &[Session] = sessions![
    filter_port,
    filter_port_range: crossed,
    filter_peer_port,
    filter_pid,
    filter_comm: crossed,
    filter_uid: crossed,
    filter_netns: crossed,
    filter_cgroup,
    filter_tcp: crossed,
    filter_udp: crossed,
    filter_ipv4: crossed,
    filter_ipv6: crossed,
    filter_event: crossed,
    filter_failed: crossed,
    filter_conflicts: crossed,
    filter_all_kinds_at_once,
    filter_nothing_matches,
    filter_accept: crossed,
    filter_release: crossed,
];

/// The workloads that they look at: that of most of them, and those for events that are off unless asked for.
pub(super) const MIX: &[Scenario] = scenarios![filter_mix, accept_mix, release_mix];

const LO4: Ipv4Addr = Ipv4Addr::LOCALHOST;
const LO6: Ipv6Addr = Ipv6Addr::LOCALHOST;
/// Task name of one part of it.
const COMM: &str = "pw-filter-me";

/// Something of every kind.
fn filter_mix(s: &mut Script) -> Result<()> {
    let server = s.listener(Kind::Tcp4, (LO4, 8080))?;
    let _v6 = s.listener(Kind::Tcp6, (LO6, 8081))?;
    let _udp4 = s.bound(Kind::Udp4, (LO4, 5353))?;
    let udp6 = s.bound(Kind::Udp6, (LO6, 5354))?;
    // Whoever is in the way is named whatever the filter.
    let late = s.socket(Kind::Tcp4)?;
    s.bind(&late, (LO4, 8080))
        .fails(Errno::EADDRINUSE)?
        .holder(0, &server, "listen")?
        .judged(("listener", "exact", "no_reuse"));
    let late = s.socket(Kind::Udp6)?;
    s.bind(&late, (LO6, 5354))
        .fails(Errno::EADDRINUSE)?
        .holder(0, &udp6, "closed")?
        .judged(("bound", "exact", "no_reuse"));
    let _connection = s.connected(&server)?;
    let refused = s.socket(Kind::Tcp4)?;
    s.connect(&refused, (LO4, 8099))
        .fails(Errno::ECONNREFUSED)?;
    let sending = s.socket(Kind::Udp4)?;
    s.send_to(&sending, (LO4, 5353)).ok()?;
    s.forked(|s| {
        task::become_user(65534)?;
        s.relearn()?;
        s.bound(Kind::Tcp4, (LO4, 8090))?;
        let refused = s.socket(Kind::Tcp6)?;
        s.bind(&refused, (LO6, 81)).fails(Errno::EACCES)?;
        Ok(())
    })?;
    s.elsewhere(|s| s.bound(Kind::Tcp4, (LO4, 8100)).map(drop))?;
    s.forked(|s| {
        task::rename(COMM.as_bytes())?;
        s.relearn()?;
        s.bound(Kind::Udp4, (LO4, 8110)).map(drop)
    })?;
    if let Some(own) = s.me.cgroup.clone()
        && let Some(cgroup) = Cgroup::existing(&own, CGROUP)
    {
        s.forked(|s| {
            cgroup.join()?;
            s.relearn()?;
            s.bound(Kind::Tcp6, (LO6, 8120)).map(drop)
        })?;
    }
    Ok(())
}

/// Name of the cgroup that a part of it runs in.
const CGROUP: &str = "portwatch-tests-filter";

/// What is only known once the workload is there.
struct Targets {
    pid: u32,
    netns: u64,
    cgroup: Option<String>,
}

/// Arguments of `portwatch trace`, and which of a workload's lines must come then: all of these, nothing else.
#[derive(Clone, Copy)]
struct Case {
    args: fn(&Targets) -> Vec<String>,
    /// Some of them; `None`: not one must come.
    keep: Option<fn(&Expect, &Targets) -> bool>,
}

/// Runs the mix under `portwatch trace ARGS…`: exactly the lines that `keep` keeps must come.
fn filtered(
    bench: &Bench,
    args: fn(&Targets) -> Vec<String>,
    keep: fn(&Expect, &Targets) -> bool,
) -> Result<()> {
    let keep = Some(keep);
    all_filtered(bench, "filter_mix", &[Case { args, keep }])
}

/// Runs a workload once, under a portwatch for each case.
fn all_filtered(bench: &Bench, work: &str, cases: &[Case]) -> Result<()> {
    // A kernel that preempts programs and then skips others (7.x) may lose a call, and counts it.
    let may_lose = degraded::preempts(bench.backend);
    for _ in 0..2 {
        let (lost, result) = once(bench, work, cases)?;
        if lost == 0 || result.is_ok() || !may_lose {
            return result;
        }
        println!("note: {lost} events were lost; once more");
    }
    once(bench, work, cases)?.1
}

/// How many events were lost, and whether the others are as they have to be.
fn once(bench: &Bench, work: &str, cases: &[Case]) -> Result<(u64, Result<()>)> {
    let netns = Netns::new()?;
    let cgroup = Cgroup::beside_own(CGROUP)?;
    let workload = Workload::start(&netns, work, bench.backend, bench.long, true)?;
    let targets = Targets {
        pid: workload.pid(),
        netns: netns.inode,
        cgroup: cgroup
            .as_ref()
            .map(|cgroup| cgroup.path_inside().to_owned()),
    };
    let tracers = cases
        .iter()
        .map(|case| bench.trace((case.args)(&targets)))
        .collect::<Result<Vec<_>>>()?;
    let expected = bench::told(workload.finish()?)?;
    let all = expected.lines.len();
    let mut lost = 0;
    let mut results = Ok(());
    for (case, tracer) in cases.iter().zip(tracers) {
        let finished = tracer.stop()?;
        finished.ended_well(0)?;
        lost += finished.totals.2;
        let mut expected = expected.clone();
        expected
            .lines
            .retain(|line| case.keep.is_some_and(|keep| keep(line, &targets)));
        let args = (case.args)(&targets).join(" ");
        let kept = expected.lines.len();
        ensure!(kept < all, "the filter {args} has nothing to leave out");
        ensure!(
            (kept == 0) == case.keep.is_none(),
            "the filter {args} has {kept} lines to keep"
        );
        let got: Vec<_> = bench::events(finished.lines)
            .into_iter()
            .filter(|line| expected.owns(line))
            .collect();
        let result = expect::compare(&expected, &got).map_err(|mismatch| Mismatch {
            why: format!("trace {args}: {}", mismatch.why),
            ..mismatch
        });
        results = results.and(result);
    }
    Ok((lost, results.map_err(Into::into)))
}

/// Words as arguments.
fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

fn local(line: &Expect) -> u16 {
    line.port("network.local.port").unwrap_or(0)
}

fn filter_port(bench: &Bench) -> Result<()> {
    filtered(
        bench,
        |_| words("--port 8080 --port 5354"),
        |line, _| matches!(local(line), 8080 | 5354),
    )
}

fn filter_port_range(bench: &Bench) -> Result<()> {
    filtered(
        bench,
        |_| words("--port 8081-8110"),
        |line, _| (8081..=8110).contains(&local(line)),
    )
}

fn filter_peer_port(bench: &Bench) -> Result<()> {
    filtered(
        bench,
        |_| words("--peer-port 8099-8101 --peer-port 8080"),
        |line, _| line.port("network.peer.port").is_some(),
    )
}

/// One is compared, several are looked up: both ways, with one that does nothing.
fn filter_pid(bench: &Bench) -> Result<()> {
    let keep: fn(&Expect, &Targets) -> bool =
        |line, targets| line.number("process.pid") == Some(targets.pid.into());
    let keep = Some(keep);
    let one: fn(&Targets) -> Vec<String> = |targets| words(&format!("--pid {}", targets.pid));
    let several: fn(&Targets) -> Vec<String> =
        |targets| words(&format!("--pid 1 --pid {}", targets.pid));
    let cases = [one, several].map(|args| Case { args, keep });
    all_filtered(bench, "filter_mix", &cases)
}

fn filter_comm(bench: &Bench) -> Result<()> {
    filtered(
        bench,
        |_| vec!["--comm".into(), COMM.into()],
        |line, _| line.text("process.comm") == Some(COMM),
    )
}

fn filter_uid(bench: &Bench) -> Result<()> {
    filtered(
        bench,
        |_| words("--uid 65534"),
        |line, _| line.number("process.user.id") == Some(65534),
    )
}

fn filter_netns(bench: &Bench) -> Result<()> {
    let keep: fn(&Expect, &Targets) -> bool =
        |line, targets| line.number("socket.netns") == Some(targets.netns);
    let keep = Some(keep);
    let one: fn(&Targets) -> Vec<String> = |targets| words(&format!("--netns {}", targets.netns));
    let several: fn(&Targets) -> Vec<String> = |targets| {
        words(&format!(
            "--netns /proc/self/ns/net --netns {}",
            targets.netns
        ))
    };
    let cases = [one, several].map(|args| Case { args, keep });
    all_filtered(bench, "filter_mix", &cases)
}

fn filter_cgroup(bench: &Bench) -> Result<()> {
    if proc::cgroup2_mount().is_none() {
        return skip("cgroup v2 is not mounted");
    }
    filtered(
        bench,
        |targets| {
            let path = targets.cgroup.clone().unwrap_or_default();
            vec!["--cgroup".into(), path]
        },
        |line, _| local(line) == 8120,
    )
}

fn filter_tcp(bench: &Bench) -> Result<()> {
    filtered(
        bench,
        |_| words("-t"),
        |line, _| line.text("network.transport") == Some("tcp"),
    )
}

fn filter_udp(bench: &Bench) -> Result<()> {
    filtered(
        bench,
        |_| words("-u"),
        |line, _| line.text("network.transport") == Some("udp"),
    )
}

fn filter_ipv4(bench: &Bench) -> Result<()> {
    filtered(
        bench,
        |_| words("-4"),
        |line, _| line.text("network.type") == Some("ipv4"),
    )
}

fn filter_ipv6(bench: &Bench) -> Result<()> {
    filtered(
        bench,
        |_| words("-6"),
        |line, _| line.text("network.type") == Some("ipv6"),
    )
}

fn filter_event(bench: &Bench) -> Result<()> {
    filtered(
        bench,
        |_| words("-e listen,connect -e autobind"),
        |line, _| line.text("event.name") != Some("bind"),
    )
}

fn filter_failed(bench: &Bench) -> Result<()> {
    filtered(
        bench,
        |_| words("--failed"),
        |line, _| line.text("event.outcome") == Some("failure"),
    )
}

/// A refused connection is a failure and no conflict.
fn filter_conflicts(bench: &Bench) -> Result<()> {
    filtered(
        bench,
        |_| words("--conflicts"),
        |line, _| matches!(line.text("error.type"), Some("EADDRINUSE" | "EACCES")),
    )
}

fn filter_all_kinds_at_once(bench: &Bench) -> Result<()> {
    filtered(
        bench,
        |targets| {
            let mut args = words("-t -4 --failed --uid 0 -e bind,connect --port 8000-8999");
            args.extend(["--netns".into(), targets.netns.to_string()]);
            args
        },
        |line, _| local(line) == 8080 && line.text("error.type") == Some("EADDRINUSE"),
    )
}

fn filter_nothing_matches(bench: &Bench) -> Result<()> {
    let nothing = Case {
        args: |_| words("--port 1"),
        keep: None,
    };
    all_filtered(bench, "filter_mix", &[nothing])
}
