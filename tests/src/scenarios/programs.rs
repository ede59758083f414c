//! Programs as people run them, their events compared with what strace says they did, one to one.
//!
//! Each is a script for bash, in a root file system of Debian's and a network namespace of its own.

mod opens;
mod truth;

#[cfg(test)]
mod tests;

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{Session, Spread};
use crate::{
    bench::{self, Bench},
    degraded::Backend,
    expect::{self, Expected, Mismatch, lookup},
    script::skip,
    strace::{self, Call},
    sys::{netns::Netns, task},
    tracer::Tracer,
};

/// A table of sessions, one for each script.
macro_rules! programs {
    ($($name:ident = $script:literal),* $(,)?) => {
        pub(super) const ALL: &[Session] = &[$(Session {
            name: stringify!($name),
            run: |bench| beside_strace(bench, include_str!(concat!("programs/", $script))),
            spread: Spread::EachBackend,
            asks: None,
        }),*];
    };
}

programs! {
    programs_nginx = "nginx.sh",
    programs_haproxy = "haproxy.sh",
    programs_redis = "redis.sh",
    programs_memcached = "memcached.sh",
    programs_postgres = "postgres.sh",
    programs_python = "python.sh",
    programs_node = "node.sh",
    programs_go = "go.sh",
    programs_ssh = "ssh.sh",
    programs_curl = "curl.sh",
    programs_dns = "dns.sh",
    programs_socket_activate = "socket_activate.sh",
    programs_rootless = "rootless.sh",
}

/// What strace is asked for gives no other events.
const EVENTS: &str = "bind,listen,connect,autobind,accept";

const PRELUDE: &str = include_str!("programs/prelude.sh");

/// The status that a script ends with where it cannot be run; see `skip` there.
const SKIPPED: i32 = 77;

/// How long a script may take under software emulation.
const LIMIT: Duration = Duration::from_secs(180);

/// The calls that events come from, those that tell which sockets and processes these are, and what
/// became of a connect().
const CALLS: &str = "trace=socket,bind,listen,connect,accept,accept4,getsockopt,setsockopt,sendto,sendmsg,\
                     sendmmsg,clone,clone3,fork,vfork";

/// `strace`, for a script in the root of the programs. The kernel stops a process for these calls alone
/// (`--seccomp-bpf`), and whoever it follows ends with it.
const STRACE: &[&str] = &[
    "/usr/bin/strace",
    "-f",
    "-y",
    "-ttt",
    "-s",
    "0",
    "--seccomp-bpf",
    "--pidns-translation",
    "--kill-on-exit",
    "-e",
    "signal=none",
    "-e",
    CALLS,
    "-o",
    "/tmp/strace",
    "/usr/bin/bash",
    "/tmp/script",
];

/// The root file system with the programs.
pub(super) fn root(bench: &Bench) -> Result<&Path> {
    match &bench.programs {
        Some(root) => Ok(root),
        None => skip("no programs of Debian's here"),
    }
}

/// `program` with `args` in that root, which has the folder `work` as its /tmp.
pub(super) fn inside(root: &Path, work: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command
        .args(["helper", "in-root"])
        .args([root, work])
        .args(args)
        .env_clear()
        .envs([
            ("PATH", "/usr/bin:/usr/sbin"),
            ("HOME", "/root"),
            ("LC_ALL", "C.UTF-8"),
        ])
        .stdin(Stdio::null());
    command
}

/// A folder that is to be /tmp there.
pub(super) fn work(bench: &Bench) -> Result<std::path::PathBuf> {
    let work = bench.file("programs")?;
    fs::create_dir(&work)?;
    fs::set_permissions(&work, fs::Permissions::from_mode(0o1777))?;
    Ok(work)
}

fn beside_strace(bench: &Bench, script: &str) -> Result<()> {
    let root = root(bench)?;
    let work = work(bench)?;
    let done = watched(bench, root, &work, script);
    fs::remove_dir_all(&work)?;
    done
}

fn watched(bench: &Bench, root: &Path, work: &Path, script: &str) -> Result<()> {
    fs::write(work.join("script"), format!("{PRELUDE}{script}"))?;
    let netns = Netns::new()?;
    let mut tracers = Vec::new();
    for backend in [bench.backend].iter().chain(&bench.also) {
        let args = [
            "trace",
            "-o",
            "json",
            "-e",
            EVENTS,
            "--attach",
            backend.as_str(),
        ];
        tracers.push((*backend, Tracer::start(&bench.portwatch, args)?));
    }
    let mut command = inside(root, work, STRACE);
    let output = work.join("output");
    let said = fs::File::create(&output)?;
    command.stdout(said.try_clone()?).stderr(said);
    let status = ended(bench::spawn_in(&netns, &mut command)?)?;
    let said = fs::read_to_string(&output)?;
    if let Some((_, why)) = said
        .rsplit_once("skip: ")
        .filter(|_| status.code() == Some(SKIPPED))
    {
        return skip(why.trim());
    }
    ensure!(status.success(), "the script ended with {status}: {said}");
    let log = fs::read_to_string(work.join("strace"))?;
    let calls = strace::calls(&log)?;
    for (backend, tracer) in tracers {
        compare(backend, tracer, &calls, &netns)?;
    }
    Ok(())
}

/// What a portwatch has told of these calls, in this namespace and those that they have made, is what they did.
fn compare(backend: Backend, mut tracer: Tracer, calls: &[Call], netns: &Netns) -> Result<()> {
    let lines = tracer.until_now()?;
    let finished = tracer.stop()?;
    finished.ended_well(0)?;
    let (_, _, lost) = finished.totals;
    ensure!(lost == 0, "{lost} events were lost");
    let expected = Expected {
        lines: truth::of(calls, backend),
        any_order: true,
        ..Expected::default()
    };
    ensure!(
        expected.lines.len() >= 5,
        "strace saw next to nothing: {calls:?}"
    );
    let threads: HashSet<u64> = calls.iter().map(|call| call.thread.into()).collect();
    let number = |line: &Value, path| lookup(line, path).and_then(Value::as_u64);
    let own = |line: &Value| {
        number(line, "socket.netns") == Some(netns.inode)
            || number(line, "thread.id").is_some_and(|thread| threads.contains(&thread))
    };
    let lines: Vec<_> = bench::events(lines.into_iter().filter(own).collect());
    expect::compare(&expected, &lines).map_err(|Mismatch { why, details }| {
        let why = format!("{}: {why}", backend.as_str());
        Mismatch { why, details }.into()
    })
}

fn ended(mut child: Child) -> Result<ExitStatus> {
    let deadline = Instant::now() + LIMIT;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    task::signal(child.id(), libc::SIGKILL)?;
    child.wait().context("cannot wait for strace")?;
    bail!("the script does not end")
}
