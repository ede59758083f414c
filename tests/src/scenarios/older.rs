//! Sockets that are older than the trace.

use std::{
    ffi::OsString,
    net::Ipv4Addr,
    num::NonZeroUsize,
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use serde_json::Value;

use super::{Session, sessions};
use crate::{
    bench::{self, Bench},
    crowd::{self, Crowd},
    degraded::{self, Backend, Feature},
    expect::lookup,
    script::Skip,
    sys::{
        clock,
        netns::Netns,
        sock::{Kind, Sock},
        task::{self, Background},
    },
    tracer::{PATIENCE, Tracer},
};

pub(super) const ALL: &[Session] = sessions![
    older_sockets_are_found: crossed,
    older_sockets_are_found_without_iterator: crossed,
    older_sockets_move: crossed,
    older_port_released,
];

/// How the kernel lets us find them.
#[derive(Clone, Copy, PartialEq)]
enum Kernel {
    /// As it is.
    Plain,
    /// As if it had no iterator over descriptors.
    WithoutIterator,
}

impl Kernel {
    fn command(self, bench: &Bench, args: Vec<OsString>) -> Result<(PathBuf, Vec<OsString>)> {
        if self == Self::Plain {
            return Ok((bench.portwatch.clone(), args));
        }
        let helper = ["helper", "without-iterator"].map(OsString::from);
        let mut all = helper.to_vec();
        all.push(bench.portwatch.clone().into());
        all.extend(args);
        Ok((Bench::own_program()?, all))
    }

    /// What `trace -v` says of older sockets: how many descriptors, and how they were found.
    fn found(self, bench: &Bench) -> Result<(i64, String)> {
        let args = bench.trace_args(["-v", "--duration", "1ms"]);
        let (program, args) = self.command(bench, args)?;
        let output = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .output()?;
        let notes = String::from_utf8_lossy(&output.stderr);
        notes
            .lines()
            .find_map(|line| {
                let rest = line.strip_prefix("portwatch: ")?;
                let (count, rest) = rest.split_once(" descriptors of sockets found in ")?;
                let (_, how) = rest.split_once(", ")?;
                Some((count.parse().ok()?, how.to_owned()))
            })
            .with_context(|| format!("nothing about older sockets in: {notes}"))
    }

    fn trace(self, bench: &Bench) -> Result<Tracer> {
        let args = bench.trace_args(["-o", "json", "-e", "bind", "--failed"]);
        let (program, args) = self.command(bench, args)?;
        Tracer::start(&program, args)
    }

    /// Whether that is a way to find them.
    fn expects(self, how: &str, backend: Backend) -> bool {
        let by_iterator = how == "by the kernel's iterator";
        match (self, backend) {
            // Where tracing programs are permitted, iterators are.
            (Self::Plain, Backend::Tracing) => by_iterator,
            (Self::Plain, _) => by_iterator || how.starts_with("in /proc: "),
            (Self::WithoutIterator, _) => {
                how == "in /proc: the kernel has no iterator over descriptors"
            }
        }
    }
}

/// Pids of whoever has the first holder.
fn pids(line: &Value) -> Vec<u64> {
    let holder = lookup(line, "conflict.holders").and_then(|holders| holders.get(0));
    let processes = holder.and_then(|holder| holder.get("processes"));
    let processes = processes.and_then(Value::as_array);
    processes
        .into_iter()
        .flatten()
        .filter_map(|process| process.get("pid").and_then(Value::as_u64))
        .collect()
}

/// Every descriptor is found, whatever the network namespace and whether the socket listens; and each
/// leads to the process that has it.
fn older_sockets_are_found(bench: &Bench) -> Result<()> {
    are_found(bench, Kernel::Plain)
}

fn older_sockets_are_found_without_iterator(bench: &Bench) -> Result<()> {
    are_found(bench, Kernel::WithoutIterator)
}

fn are_found(bench: &Bench, kernel: Kernel) -> Result<()> {
    const PROCESSES: u16 = 20;
    const SOCKETS: u16 = 60;
    /// What other processes open and close meanwhile.
    const OTHERS: i64 = 30;
    let (before, _) = kernel.found(bench)?;
    let home = Netns::current()?;
    let netns = Netns::new()?;
    netns.enter()?;
    let crowd = Crowd::gather(PROCESSES, SOCKETS)?;
    home.enter()?;
    let (after, how) = kernel.found(bench)?;
    let more = after - before;
    let expected = i64::from(PROCESSES) * i64::from(SOCKETS);
    ensure!(
        (expected - OTHERS..=expected + OTHERS).contains(&more),
        "{more} descriptors more instead of {expected}, {how}"
    );
    ensure!(kernel.expects(&how, bench.backend), "found {how}");
    println!("{more} descriptors, {how}");
    let mut tracer = kernel.trace(bench)?;
    netns.enter()?;
    for (process, pid) in (0..).zip(crowd.pids()) {
        for socket in [0, 1, 2, SOCKETS - 1] {
            let (kind, address) = crowd::place(process, socket);
            ensure!(
                Sock::new(kind)?.bind(&address.into()).is_err(),
                "{address} is free"
            );
            let line = loop {
                let (line, _) = tracer.next(PATIENCE)?.context("portwatch ended")?;
                let number = |path| lookup(&line, path).and_then(Value::as_u64);
                if number("process.pid") == Some(std::process::id().into()) {
                    break line;
                }
            };
            ensure!(pids(&line) == [u64::from(pid)], "{pid} has it: {line}");
        }
    }
    home.enter()?;
    tracer.stop()?;
    Ok(())
}

/// Since when a port is held that others had before the trace is not known, whoever was the last on it; the
/// next time it is.
fn older_port_released(bench: &Bench) -> Result<()> {
    if let Some(why) = degraded::may_miss(bench.backend, Feature::Release) {
        return Err(Skip(why.to_owned()).into());
    }
    const PORT: u16 = 8080;
    let listener = || -> Result<Sock> {
        let sock = Sock::new(Kind::Tcp4)?.reuseport().context("SO_REUSEPORT")?;
        sock.bind(&(Ipv4Addr::LOCALHOST, PORT).into())
            .context("bind")?;
        sock.listen(8).context("listen")?;
        Ok(sock)
    };
    let home = Netns::current()?;
    let netns = Netns::new()?;
    netns.enter()?;
    let old = listener()?;
    home.enter()?;
    let inode = netns.inode.to_string();
    let tracer = bench.trace(["-e", "release", "--port", "8080", "--netns", &inode])?;
    netns.enter()?;
    let new = listener()?;
    drop(old);
    drop(new);
    drop(listener()?);
    home.enter()?;
    let lines = bench::events(tracer.stop()?.lines);
    let held: Vec<bool> = lines
        .iter()
        .map(|line| lookup(line, "release.held").is_some())
        .collect();
    ensure!(held == [false, true], "held: {held:?} of {lines:?}");
    let missing = lookup(&lines[0], "missing").and_then(Value::as_array);
    let is_told = missing.is_some_and(|paths| paths.iter().any(|path| path == "release.held"));
    ensure!(is_told, "not missing: {}", lines[0]);
    Ok(())
}

/// Sockets that go from process to process.
const RELAYS: usize = 6;
/// Processes that have one of them, one after the other.
/// Enough for as long as [`MOST_SNAPSHOTS`] take.
const RUNNERS: usize = 20_000;
const FIRST_PORT: u16 = 21_000;
/// Times that portwatch starts among them; more where the machine is so busy that whoever it finds has
/// passed the socket on already, so that it has nobody to name.
const SNAPSHOTS: usize = 4;
const MOST_SNAPSHOTS: usize = 16;
/// Failures with a name that are wanted: a test in which nobody is named shows nothing.
const NAMED: usize = 5;
/// Failures that are wanted of each snapshot.
const FAILURES: usize = 24;
/// How long they are there afterwards.
const LINGER: Duration = Duration::from_millis(200);
/// As in `fire`: between the program's look at the clock and the look at the owners, ns.
const SLACK: u64 = 2_000_000;

/// A process had the socket until then, CLOCK_BOOTTIME, ns; 0: it still has.
#[repr(C)]
struct Runner {
    pid: AtomicU64,
    till: AtomicU64,
}

/// What the runners share with the referee; zeros at first.
#[repr(C)]
struct Track {
    over: AtomicU64,
    relays: [[Runner; RUNNERS]; RELAYS],
}

impl Track {
    /// In memory that stays when this process forks.
    fn new() -> Result<&'static Self> {
        let size = NonZeroUsize::new(size_of::<Self>()).context("no track")?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: new memory of nobody else; zeros are a value of every member.
        let memory = unsafe { mmap_anonymous(None, size, access, MapFlags::MAP_SHARED) };
        // SAFETY: as large as it has to be, and never unmapped.
        Ok(unsafe { memory.context("no shared memory")?.cast().as_ref() })
    }
}

/// Has a socket for some milliseconds, then leaves it to a child and ends.
fn run(track: &Track, relay: usize, mut at: usize, sock: Sock) -> Result<()> {
    loop {
        let Some(runner) = track.relays[relay].get(at) else {
            bail!("the track is too short");
        };
        let pid = std::process::id();
        runner.pid.store(pid.into(), Ordering::Release);
        std::thread::sleep(Duration::from_millis(20 + u64::from(pid % 4) * 10));
        let over = track.over.load(Ordering::Acquire) != 0;
        if over || !task::fork_away()? {
            drop(sock);
            runner.till.store(clock::boot_ns(), Ordering::Release);
            // Whoever takes the word of an old snapshot finds a process to name.
            std::thread::sleep(LINGER);
            return Ok(());
        }
        at += 1;
    }
}

/// Starts a relay; whoever is started cleans up behind the runners, and ends after the last.
fn start(track: &'static Track, relay: usize) -> Result<Background> {
    Background::spawn(|| {
        let result = Sock::new(Kind::Tcp4).map_err(Into::into).and_then(|sock| {
            sock.bind(&(Ipv4Addr::LOCALHOST, FIRST_PORT + relay as u16).into())?;
            sock.listen(1)?;
            task::adopt()?;
            if task::fork_away()? {
                run(track, relay, 0, sock)
            } else {
                drop(sock);
                task::wait_for_all()
            }
        });
        if let Err(error) = &result {
            eprintln!("relay {relay}: {error:#}");
        }
        // SAFETY: ends the process without running the parent's destructors.
        unsafe { libc::_exit(i32::from(result.is_err())) };
    })
}

/// While sockets go from process to process, no snapshot of who has them is true for long: nobody is
/// named who has none any more.
fn older_sockets_move(bench: &Bench) -> Result<()> {
    let track = Track::new()?;
    let netns = Netns::new()?;
    let home = Netns::current()?;
    netns.enter()?;
    // So that it takes a while to look at all of them.
    let crowd = Crowd::gather(10, 300)?;
    let relays = (0..RELAYS)
        .map(|relay| start(track, relay))
        .collect::<Result<Vec<_>>>()?;
    std::thread::sleep(Duration::from_millis(50));
    let mut lines = Vec::new();
    for snapshot in 0..MOST_SNAPSHOTS {
        home.enter()?;
        // `start` is written before older sockets are looked up.
        let tracer = bench.trace(["-e", "bind", "--failed"])?;
        netns.enter()?;
        let began = Instant::now();
        let mut failures = 0;
        while began.elapsed() < Duration::from_millis(300) || failures < FAILURES {
            for relay in 0..RELAYS {
                let address = (Ipv4Addr::LOCALHOST, FIRST_PORT + relay as u16);
                ensure!(
                    Sock::new(Kind::Tcp4)?.bind(&address.into()).is_err(),
                    "{address:?} is free"
                );
                failures += 1;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let ours = Value::from(std::process::id());
        let new = bench::events(tracer.stop()?.lines).into_iter();
        lines.extend(new.filter(|line| lookup(line, "process.pid") == Some(&ours)));
        let named = lines.iter().filter(|line| !pids(line).is_empty()).count();
        if snapshot + 1 >= SNAPSHOTS && named >= NAMED {
            break;
        }
    }
    home.enter()?;
    track.over.store(1, Ordering::Release);
    for relay in relays {
        ensure!(relay.ended()? == task::Ended::Code(0), "a relay stumbled");
    }
    drop(crowd);
    judge(track, &lines)
}

fn judge(track: &Track, lines: &[Value]) -> Result<()> {
    let (mut seen, mut named) = (0, 0_usize);
    for line in lines {
        let number = |path| lookup(line, path).and_then(Value::as_u64);
        let port = number("network.local.port").context("no port")?;
        let relay = usize::try_from(port - u64::from(FIRST_PORT))?;
        let began =
            number("time_boot").context("no time")? - number("event.duration").unwrap_or_default();
        seen += 1;
        let pids = pids(line);
        named += usize::from(!pids.is_empty());
        for pid in pids {
            let had_it = track.relays[relay].iter().any(|runner| {
                runner.pid.load(Ordering::Acquire) == pid
                    && runner.till.load(Ordering::Acquire) + SLACK >= began
            });
            ensure!(had_it, "{pid} did not have {port} any more: {line}");
        }
    }
    println!("{seen} failures, {named} named");
    ensure!(seen > 50, "no race: {seen} failures");
    // Most have changed hands when they are looked for.
    ensure!(named >= NAMED, "{named} of {seen} named");
    Ok(())
}
