//! Random activity of several processes, for seconds or for an hour, with the truth kept by the processes
//! themselves: nothing is missing, nothing invented, each process' lines are in its order, and portwatch's
//! memory does not grow.
//!
//! It goes in rounds, so that what has to be remembered is bounded: some processes make some calls each, write
//! down what the kernel answered, and portwatch's lines up to then are compared. The seed is printed; with
//! PORTWATCH_TESTS_SEED it is the same again, as far as processes that race can be.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::Range,
    sync::OnceLock,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use fastrand::Rng;
use nix::errno::Errno;
use serde_json::Value;

use super::{Scenario, Session, scenarios, sessions};
use crate::{
    bench::{self, Bench},
    cost::memory,
    degraded,
    expect::{self, Expected, Want, lookup},
    runner::{SEED, Workload},
    script::Script,
    sys::{
        clock,
        netns::Netns,
        sock::{Kind, Sock},
    },
    tracer::Tracer,
};

pub(super) const ALL: &[Session] = sessions![random_processes];

/// Workloads of it.
pub(super) const PARTS: &[Scenario] = scenarios![random_calls];

/// Processes of a round.
const PROCESSES: u64 = 4;
/// Steps of a process in a round.
const STEPS: u32 = 60;
/// Steps of a child of it.
const STEPS_OF_CHILD: u32 = 8;
/// Sockets that a process has at most.
const SOCKETS: usize = 12;
/// Ports that all of them want, below every automatic range.
const PORTS: Range<u16> = 20_000..20_008;
/// Connections that nobody accepts: those of a round find room.
const BACKLOG: Range<i32> = 300..400;
/// Rounds until portwatch has met everything once.
const WARM: usize = 5;
/// Rounds after which the memory of the first and of the last can be compared.
const LEAST: usize = WARM + 3;
/// Memory that may come and go, KiB: caches fill, and are bounded.
const SLACK_KB: u64 = 4096;

/// A socket, and what has become of it.
struct Held {
    sock: Sock,
    /// A bind() was refused.
    refused: bool,
    bound: bool,
    listens: bool,
    connected: bool,
}

/// A process in the middle of it.
struct Activity {
    random: Rng,
    held: Vec<Held>,
}

fn random_calls(s: &mut Script) -> Result<()> {
    let seed = std::env::var(SEED).context(SEED)?;
    let random = Rng::with_seed(seed.parse().context(SEED)?);
    Activity::new(random).run(s, STEPS, true)
}

impl Activity {
    const fn new(random: Rng) -> Self {
        Self {
            random,
            held: Vec::new(),
        }
    }

    fn run(&mut self, s: &mut Script, steps: u32, may_fork: bool) -> Result<()> {
        for _ in 0..steps {
            match self.random.u32(0..100) {
                0..20 => self.open(s)?,
                20..50 => self.bind(s)?,
                50..62 => self.listen(s)?,
                62..78 => self.connect(s)?,
                78..84 => self.send(s)?,
                84..94 => drop(self.taken()),
                94..98 if may_fork => self.fork(s)?,
                98.. if may_fork => self.fork_and_exec(s)?,
                _ => self.open(s)?,
            }
        }
        Ok(())
    }

    /// One of those that it holds.
    fn taken(&mut self) -> Option<Held> {
        let index = self.random.usize(..self.held.len().max(1));
        (index < self.held.len()).then(|| self.held.swap_remove(index))
    }

    /// One that is fit for something; makes one where none is held.
    fn any(&mut self, s: &Script) -> Result<Held> {
        match self.taken() {
            Some(held) => Ok(held),
            None => self.fresh(s),
        }
    }

    fn fresh(&mut self, s: &Script) -> Result<Held> {
        let kinds = [Kind::Tcp4, Kind::Tcp4, Kind::Tcp6, Kind::Udp4, Kind::Udp6];
        let mut sock = s.socket(kinds[self.random.usize(..kinds.len())])?;
        if self.random.u8(..3) == 0 {
            sock = sock.reuseaddr()?;
        }
        if self.random.u8(..5) == 0 {
            sock = sock.reuseport()?;
        }
        if sock.kind.is_v6() && self.random.bool() {
            sock = sock.v6only()?;
        }
        Ok(Held {
            sock,
            refused: false,
            bound: false,
            listens: false,
            connected: false,
        })
    }

    fn keep(&mut self, held: Held) {
        if self.held.len() >= SOCKETS {
            self.held.swap_remove(0);
        }
        self.held.push(held);
    }

    fn open(&mut self, s: &Script) -> Result<()> {
        let held = self.fresh(s)?;
        self.keep(held);
        Ok(())
    }

    fn bind(&mut self, s: &mut Script) -> Result<()> {
        let mut held = self.any(s)?;
        let v4 = [
            Ipv4Addr::LOCALHOST,
            Ipv4Addr::LOCALHOST,
            Ipv4Addr::new(127, 0, 0, 2),
            Ipv4Addr::UNSPECIFIED,
            // No interface has it (RFC 5737).
            Ipv4Addr::new(192, 0, 2, 1),
        ];
        let v6 = [
            Ipv6Addr::LOCALHOST,
            Ipv6Addr::UNSPECIFIED,
            // RFC 3849
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
        ];
        let ip = if held.sock.kind.is_v6() {
            IpAddr::from(v6[self.random.usize(..v6.len())])
        } else {
            v4[self.random.usize(..v4.len())].into()
        };
        let port = match self.random.u8(..4) {
            0 => 0,
            _ => self.random.u16(PORTS),
        };
        let call = s.bind(&held.sock, SocketAddr::from((ip, port)));
        match call.result() {
            Ok(()) => {
                call.ok()?;
                held.bound = true;
            }
            Err(errno) => {
                call.fails(errno)?;
                held.refused = true;
            }
        }
        self.keep(held);
        Ok(())
    }

    fn listen(&mut self, s: &mut Script) -> Result<()> {
        let mut held = self.any(s)?;
        // listen() of a protocol that has none ends before anything that every backend sees.
        if held.sock.kind.transport() == "tcp" && !held.connected {
            let backlog = self.random.i32(BACKLOG);
            let call = s.listen(&held.sock, backlog);
            match call.result() {
                Ok(()) => {
                    let line = call.ok()?;
                    // On a port that nobody chose, after a refusal.
                    if held.refused {
                        line.forget("warning");
                    }
                    held.bound = true;
                    held.listens = true;
                }
                Err(errno) => drop(call.fails(errno)?),
            }
        }
        self.keep(held);
        Ok(())
    }

    fn connect(&mut self, s: &mut Script) -> Result<()> {
        let mut held = self.any(s)?;
        if !(held.bound || held.listens || held.connected) {
            let ip = if held.sock.kind.is_v6() {
                IpAddr::from(Ipv6Addr::LOCALHOST)
            } else {
                Ipv4Addr::LOCALHOST.into()
            };
            let port = self.random.u16(PORTS);
            let call = s.connect(&held.sock, SocketAddr::from((ip, port)));
            match call.result() {
                Ok(()) => {
                    let line = call.ok()?;
                    if held.sock.peer().is_none() {
                        // Reset since: its own end is no longer known.
                        line.forget("network.local.port");
                    }
                }
                // Its listener was closed before the call had returned: the connection stood all the same.
                Err(errno @ Errno::ECONNRESET) => {
                    call.fails(errno)?
                        .is("event.outcome", "success")
                        .forget("error.type")
                        .forget("error.code")
                        .set("error", Want::Absent)
                        .forget("network.local.port");
                }
                Err(errno) => drop(call.fails(errno)?),
            }
            held.connected = true;
        }
        self.keep(held);
        Ok(())
    }

    /// A datagram to a port of this round; it takes a port where the socket has none.
    fn send(&mut self, s: &mut Script) -> Result<()> {
        let mut held = self.any(s)?;
        let udp = held.sock.kind.transport() == "udp";
        if udp && !(held.bound || held.connected) {
            let ip = if held.sock.kind.is_v6() {
                IpAddr::from(Ipv6Addr::LOCALHOST)
            } else {
                Ipv4Addr::LOCALHOST.into()
            };
            let to = SocketAddr::from((ip, self.random.u16(PORTS)));
            s.send_to(&held.sock, to).ok()?;
            held.bound = true;
        }
        self.keep(held);
        Ok(())
    }

    fn fork(&mut self, s: &mut Script) -> Result<()> {
        let random = self.random.fork();
        s.forked(|s| Self::new(random).run(s, STEPS_OF_CHILD, false))?;
        Ok(())
    }

    fn fork_and_exec(&mut self, s: &mut Script) -> Result<()> {
        let random = self.random.fork();
        let program = Bench::own_program()?;
        s.forked_then_exec(
            |s| Self::new(random).run(s, STEPS_OF_CHILD, false),
            &program,
            &["helper", "exit", "0"],
        )?;
        Ok(())
    }
}

/// What the rounds came to.
#[derive(Debug, Default)]
struct Sum {
    calls: usize,
    lines: usize,
    /// Calls of which there is no line.
    missing: usize,
    /// Resident memory of portwatch after each round, KiB.
    memory: Vec<u64>,
}

fn random_processes(bench: &Bench) -> Result<()> {
    let time = Duration::from_secs(if bench.long { 3600 } else { 15 });
    // Where it runs once more it is the same.
    static CHOSEN: OnceLock<u64> = OnceLock::new();
    let seed = match std::env::var(SEED) {
        Ok(seed) => seed.parse().context(SEED)?,
        Err(_) => *CHOSEN.get_or_init(clock::boot_ns),
    };
    println!("note: {SEED}={seed}");
    let mut random = Rng::with_seed(seed);
    let mut tracer = bench.trace(["--buffer", "16M"])?;
    let mut sum = Sum::default();
    let began = Instant::now();
    // On a slow machine it takes longer than that until there is something to compare.
    while began.elapsed() < time || sum.memory.len() < LEAST {
        round(bench, &mut tracer, &mut random, &mut sum)
            .with_context(|| format!("round {}, {SEED}={seed}", sum.memory.len() + 1))?;
        sum.memory.push({
            let memory::Resident { all, maps } = memory::Resident::of(tracer.pid())?;
            all - maps
        });
    }
    let finished = tracer.stop()?;
    finished.ended_well(0)?;
    let (_, _, lost) = finished.totals;
    let Sum {
        calls,
        lines,
        missing,
        memory,
    } = sum;
    println!(
        "{} rounds: {calls} calls, {lines} lines, {missing} missing, {lost} lost; memory {} KiB after {WARM} rounds, {} KiB at the end",
        memory.len(),
        memory.get(WARM).copied().unwrap_or_default(),
        memory.last().copied().unwrap_or_default(),
    );
    let unaccounted = u64::try_from(missing)?.saturating_sub(lost);
    ensure!(unaccounted == 0, "{missing} missing and {lost} lost");
    ensure!(calls > 1_000, "only {calls} calls");
    is_flat(&memory)
}

/// After it has warmed up it takes what it took, but for what comes and goes: the least of the end against
/// the most of the beginning.
fn is_flat(memory: &[u64]) -> Result<()> {
    let steady = memory.get(WARM..).unwrap_or_default();
    let third = (steady.len() / 3).max(1);
    let before = steady.iter().take(third).max().context("no round")?;
    let after = steady.iter().rev().take(third).min().context("no round")?;
    ensure!(
        *after <= before + SLACK_KB,
        "memory grew from {before} to {after} KiB"
    );
    Ok(())
}

/// Some processes at once, and what portwatch says of them.
fn round(bench: &Bench, tracer: &mut Tracer, random: &mut Rng, sum: &mut Sum) -> Result<()> {
    let netns = Netns::new()?;
    let mut workloads = (0..PROCESSES)
        .map(|_| {
            let seed = Some(random.u64(..));
            Workload::start_with(
                &netns,
                "random_calls",
                bench.backend,
                bench.long,
                true,
                seed,
            )
        })
        .collect::<Result<Vec<_>>>()?;
    // All of them are there: off they go.
    for workload in &mut workloads {
        workload.go();
    }
    let told = workloads
        .iter_mut()
        .map(Workload::told)
        .collect::<Result<Vec<_>>>()?;
    let lines = tracer.until_now()?;
    let expected = workloads
        .into_iter()
        .zip(told)
        .map(|(workload, told)| bench::told(workload.end(told)?))
        .collect::<Result<Vec<_>>>()?;
    // Where a backend loses calls under load some may be missing, as many as are counted as lost in the end.
    let may_lose = degraded::may_lose(bench.backend);
    let lost = lines.iter().find(|line| lookup(line, "lost").is_some());
    ensure!(lost.is_none() || may_lose, "lost: {lost:?}");
    let mut own: Vec<Value> = lines
        .into_iter()
        .filter(|line| lookup(line, "socket.netns").and_then(Value::as_u64) == Some(netns.inode))
        .collect();
    for mut expected in expected {
        let needed = expected.lines.iter().filter(|line| line.is_needed());
        let needed = needed.count();
        if may_lose {
            for line in &mut expected.lines {
                line.optional("events may be lost");
            }
        }
        let (mut of_it, rest): (Vec<Value>, _) =
            own.into_iter().partition(|line| is_of(&expected, line));
        own = rest;
        if degraded::preempts(bench.backend) {
            of_it.retain(|line| !is_told_twice(&expected, line));
        }
        expect::compare(&expected, &of_it)?;
        sum.calls += expected.lines.len();
        sum.lines += of_it.len();
        sum.missing += needed.saturating_sub(of_it.len());
    }
    // By a process that made no such call.
    ensure!(own.is_empty(), "invented: {}", own[0]);
    Ok(())
}

/// Whether a line tells by itself of the port that a connect() has taken. Where the kernel has skipped the program that sees
/// a datagram socket's connect() begin, because another task is preempted inside it, nobody knows that it goes on.
fn is_told_twice(expected: &Expected, line: &Value) -> bool {
    let told = |name: &str, port: &Value| {
        expected.lines.iter().any(|one| {
            one.wanted("event.name") == Some(&Want::is(name))
                && one.wanted("network.local.port") == Some(&Want::is(port.clone()))
        })
    };
    let is_autobind = lookup(line, "event.name").and_then(Value::as_str) == Some("autobind");
    lookup(line, "network.local.port")
        .is_some_and(|port| is_autobind && told("connect", port) && !told("autobind", port))
}

/// Whether one of these processes made the call.
fn is_of(expected: &Expected, line: &Value) -> bool {
    let pid = lookup(line, "process.pid").and_then(Value::as_u64);
    expected.pids.iter().any(|own| pid == Some((*own).into()))
}
