//! Namespaces that come and go, processes whose numbers are not what they take them for, and a portwatch
//! that is inside.

use std::{ffi::OsString, net::Ipv4Addr, process::Stdio};

use anyhow::{Result, bail, ensure};
use nix::errno::Errno;
use serde_json::Value;

use super::{Scenario, Session, puzzles::roles, scenarios, sessions};
use crate::{
    bench::{self, Bench},
    expect::{Want, lookup},
    script::{Role, Script},
    sys::{
        netns::{self, Netns},
        sock::{Kind, Sock},
        task,
    },
    tracer::{self, Tracer},
};

pub(super) const ALL: &[Scenario] = scenarios![
    namespaces_come_and_go,
    namespaces_of_short_lives,
    pid_namespace_of_the_caller,
    pid_namespace_of_a_holder,
];

pub(super) const SESSIONS: &[Session] = sessions![
    pid_namespace_of_portwatch,
    pid_namespace_of_portwatch_and_command: each_kernel,
];

pub(super) const ROLES: &[Role] = roles![contains];

const LO4: Ipv4Addr = Ipv4Addr::LOCALHOST;
const PORT: u16 = 25_000;
/// How many: their numbers are given out again meanwhile.
const MANY: u16 = 100;

/// Takes a port, is refused it, and gets another one, in a namespace with this range.
fn in_one_of_many(s: &mut Script, range: &str) -> Result<()> {
    netns::sysctl("ipv4/ip_local_port_range", range)?;
    s.relearn()?;
    let holder = s.listener(Kind::Tcp4, (LO4, PORT))?;
    let late = s.socket(Kind::Tcp4)?;
    s.bind(&late, (LO4, PORT))
        .fails(Errno::EADDRINUSE)?
        .holder(0, &holder, "listen")?
        .judged(("listener", "exact", "no_reuse"))
        .holders_total(1);
    s.bound(Kind::Udp4, (LO4, 0)).map(drop)
}

const RANGES: [&str; 2] = ["20000 29999", "40000 49999"];

/// One process goes through all of them. They have the same range: it is read after the event, by the
/// namespace's number, which the process may be in once more by then.
fn namespaces_come_and_go(s: &mut Script) -> Result<()> {
    for _ in 0..MANY {
        s.elsewhere(|s| in_one_of_many(s, RANGES[0]))?;
    }
    Ok(())
}

/// Each has a process of its own, and ends with it: in every other one the first port is one of those that
/// the kernel gives out.
fn namespaces_of_short_lives(s: &mut Script) -> Result<()> {
    for range in RANGES.into_iter().cycle().take(MANY.into()) {
        s.forked(|s| {
            netns::unshare(libc::CLONE_NEWNET)?;
            netns::link_up("lo")?;
            in_one_of_many(s, range)
        })?;
    }
    Ok(())
}

/// A process in a pid namespace within another: its own number is told beside the machine's.
fn pid_namespace_of_the_caller(s: &mut Script) -> Result<()> {
    s.forked(|s| {
        netns::unshare(libc::CLONE_NEWPID)?;
        s.forked(|s| {
            ensure!(s.me.vpid == 1 && s.me.pid != 1, "{:?}", s.me);
            s.listener(Kind::Tcp4, (LO4, 8080))?;
            netns::unshare(libc::CLONE_NEWPID)?;
            s.forked(|s| {
                ensure!(s.me.vpid == 1 && s.me.pid != 1, "{:?}", s.me);
                s.bound(Kind::Udp4, (LO4, 8081)).map(drop)
            })?;
            Ok(())
        })?;
        Ok(())
    })?;
    Ok(())
}

/// Listens, and leaves its socket to the first process of a pid namespace.
fn contains(s: &mut Script) -> Result<Vec<Sock>> {
    let sock = s.listener(Kind::Tcp4, (LO4, 8080))?;
    netns::unshare(libc::CLONE_NEWPID)?;
    let inside = task::Background::spawn(|| {
        loop {
            std::thread::park();
        }
    })?;
    s.heir(inside.pid());
    // It ends with this process.
    std::mem::forget(inside);
    Ok(vec![sock])
}

fn pid_namespace_of_a_holder(s: &mut Script) -> Result<()> {
    let kept = s.program("container", "contains", &[])?;
    let &[inside] = &kept.heirs[..] else {
        bail!("{:?}", kept.heirs);
    };
    let late = s.socket(Kind::Tcp4)?;
    s.bind(&late, (LO4, 8080))
        .fails(Errno::EADDRINUSE)?
        .held_by(0, kept.sock()?, "listen")
        .named(0, &kept.me)
        .judged(("listener", "exact", "no_reuse"))
        .holders_total(1)
        .is("conflict.holders.0.processes.1.pid", inside)
        .is("conflict.holders.0.processes.1.vpid", 1)
        .set("conflict.holders.0.processes.2", Want::Absent);
    Ok(())
}

/// A portwatch in a pid namespace of its own.
fn inside(bench: &Bench, args: Vec<OsString>) -> Vec<OsString> {
    let helper = ["helper", "in-pid-namespace"].map(OsString::from);
    let program = std::iter::once(bench.portwatch.clone().into_os_string());
    helper.into_iter().chain(program).chain(args).collect()
}

/// The kernel counts by the machine's pids, which the /proc in there does not know: that is said at the
/// start, nobody is taken for gone, and nobody is taken for somebody else.
fn pid_namespace_of_portwatch(bench: &Bench) -> Result<()> {
    let args = inside(bench, bench.trace_args(["-o", "json"]));
    let mut tracer = Tracer::start(&Bench::own_program()?, args)?;
    let netns = Netns::new()?;
    let home = Netns::current()?;
    let mine = u64::from(std::process::id());
    netns.enter()?;
    let done = (|| -> Result<()> {
        let listener = Sock::new(Kind::Tcp4)?;
        listener.bind(&(LO4, 8080).into())?;
        listener.listen(16)?;
        // Two processes have it: the kernel's programs find the one that got it.
        let worker = task::Background::spawn(|| {
            loop {
                std::thread::park();
            }
        })?;
        let late = Sock::new(Kind::Tcp4)?;
        ensure!(
            late.bind(&(LO4, 8080).into()) == Err(Errno::EADDRINUSE),
            "the port is free"
        );
        drop(worker);
        Ok(())
    })();
    home.enter()?;
    done?;
    let lines = tracer.until_now()?;
    let own: Vec<&Value> = lines
        .iter()
        .filter(|line| lookup(line, "socket.netns").and_then(Value::as_u64) == Some(netns.inode))
        .collect();
    let [bind, listen, refused] = own[..] else {
        bail!("{} lines instead of 3: {own:?}", own.len());
    };
    for (line, name) in [(bind, "bind"), (listen, "listen"), (refused, "bind")] {
        ensure!(
            lookup(line, "event.name") == Some(&name.into())
                && lookup(line, "process.pid") == Some(&mine.into()),
            "not {name} of {mine}: {line}"
        );
    }
    let at = |path: &str| lookup(refused, path);
    ensure!(
        at("conflict.kind") == Some(&"listener".into())
            && at("conflict.holders.0.creator.pid") == Some(&mine.into())
            && at("conflict.holders.0.creator.exited").is_none(),
        "{refused}"
    );
    ensure!(
        at("conflict.holders.0.processes.0.pid") == Some(&mine.into()),
        "nobody or somebody else has it: {refused}"
    );
    let missing = at("missing").and_then(Value::as_array);
    ensure!(
        missing.is_some_and(|paths| paths.contains(&"conflict.holders.processes".into())),
        "it takes the owners that it knows for all: {refused}"
    );
    let finished = tracer.stop()?;
    finished.ended_well(0)?;
    ensure!(
        finished.stderr.contains("pid namespace"),
        "not a word about it: {:?}",
        finished.stderr
    );
    Ok(())
}

/// There a command cannot be followed: its number is not the one the kernel knows it by.
fn pid_namespace_of_portwatch_and_command(bench: &Bench) -> Result<()> {
    let touched = bench.file("touched")?;
    let mut args = bench.trace_args(["-o", "json", "--"]);
    args.push(Bench::own_program()?.into());
    args.extend(["helper", "touch"].map(OsString::from));
    args.push(touched.clone().into());
    let mut command = std::process::Command::new(Bench::own_program()?);
    command
        .args(inside(bench, args))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let output = bench::ended(command.spawn()?)?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        tracer::code(output.status) == 3,
        "{}; stderr: {}",
        output.status,
        stderr.trim()
    );
    ensure!(
        stderr.contains("pid namespace") && stderr.contains("hint: "),
        "unclear: {}",
        stderr.trim()
    );
    ensure!(!touched.exists(), "the command was run");
    Ok(())
}
