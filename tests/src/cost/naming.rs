//! How long it takes from a refused bind() to the line that names the holder, on a machine with many
//! sockets.
//!
//! Figures are printed as [`super::drive`] does.

use std::{
    io::{Read as _, Write as _},
    net::Ipv4Addr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use nix::errno::Errno;

use super::{
    clock,
    contender::{Contender, Lines, Output},
};
use crate::{
    degraded::Backend,
    sys::{
        netns::Netns,
        sock::{Kind, Sock},
        task::{self, Background},
    },
};

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[arg(long)]
    portwatch: PathBuf,
    /// May be repeated.
    #[arg(long, required = true)]
    attach: Vec<Backend>,
    /// Half of them are older than the trace.
    #[arg(long, default_value_t = 20_000)]
    sockets: u16,
    /// That have them, each as many.
    #[arg(long, default_value_t = 100)]
    processes: u16,
    /// Refused calls, each meeting another socket.
    #[arg(long, default_value_t = 200)]
    tries: u32,
}

/// The first of as many ports as there are sockets.
pub(super) const FIRST_PORT: u16 = 10_000;
/// Between two calls, ms.
const PAUSE: u64 = 5;
/// After this a line is given up.
const PATIENCE: Duration = Duration::from_secs(5);

/// A process with a run of ports.
pub(super) struct Holder {
    process: Background,
    first: u16,
    count: u16,
}

/// Forks processes that listen, and waits until they do. `ports` are shared out among them.
pub(super) fn hold(processes: u16, first: u16, count: u16) -> Result<Vec<Holder>> {
    let (mut ready, tell) = task::pipe()?;
    let each = count / processes;
    let holders: Vec<_> = (0..processes)
        .map(|index| {
            let first = first + index * each;
            let mut tell = &tell;
            let process = Background::spawn(|| {
                let listen = |port| -> Result<Sock> {
                    let sock = Sock::new(Kind::Tcp4)?;
                    sock.bind(&(Ipv4Addr::LOCALHOST, port).into())?;
                    sock.listen(1)?;
                    Ok(sock)
                };
                let socks: Result<Vec<_>> = (first..first + each).map(listen).collect();
                match socks {
                    Ok(_socks) => {
                        if tell.write_all(b"+").is_ok() {
                            loop {
                                std::thread::park();
                            }
                        }
                    }
                    Err(error) => eprintln!("a holder: {error:#}"),
                }
            })?;
            Ok(Holder {
                process,
                first,
                count: each,
            })
        })
        .collect::<Result<_>>()?;
    drop(tell);
    let mut answers = vec![0; holders.len()];
    // Ends early where one of them has failed.
    ready
        .read_exact(&mut answers)
        .context("not all ports could be had")?;
    Ok(holders)
}

/// Times of lines, in microseconds.
#[derive(Debug, Default)]
struct Times {
    taken: Vec<u128>,
    unnamed: u32,
    /// By how much this process woke up too late between the calls, at worst: that is the machine's part.
    late: Duration,
}

impl Times {
    /// Prints them, as figures of this contender.
    fn print(mut self, contender: &str, age: &str) {
        self.taken.sort_unstable();
        let at = |per_mille: usize| {
            let last = self.taken.len().checked_sub(1)?;
            self.taken.get(last * per_mille / 1000)
        };
        for (name, per_mille) in [("median", 500), ("p99", 990), ("worst", 1000)] {
            match at(per_mille) {
                Some(time) => println!("value\t{contender}\tnaming-{age}-{name}-us\t{time}"),
                None => println!("failed\t{contender}\tnothing was named ({age})"),
            }
        }
        println!("value\t{contender}\tnaming-{age}-unnamed\t{}", self.unnamed);
        let late = self.late.as_micros();
        println!("value\t{contender}\tnaming-{age}-late-us\t{late}");
    }
}

/// Is refused a port, and waits for the line that says who has it; `None` if it does not name him.
fn meet(lines: &mut Lines, port: u16, pid: u32) -> Result<Option<Duration>> {
    let late = Sock::new(Kind::Tcp4)?;
    let address = (Ipv4Addr::LOCALHOST, port).into();
    let since = Instant::now();
    let refused = late.bind(&address);
    ensure!(refused == Err(Errno::EADDRINUSE), "{refused:?} of {port}");
    let (json, text) = (format!("\"pid\":{pid},"), format!("(pid {pid}"));
    let mut is_ours = false;
    while let Some(line) = lines.next(PATIENCE.saturating_sub(since.elapsed()))? {
        if line.is_empty() {
            bail!("portwatch ended");
        }
        // In text the explanation is a line of its own.
        is_ours |= line.contains("EADDRINUSE") && line.contains(&port.to_string());
        if is_ours && (line.contains(&json) || line.contains(&text)) {
            return Ok(Some(since.elapsed()));
        }
        let is_explained = line.starts_with('{') || line.contains('↳');
        if is_ours && is_explained {
            return Ok(None);
        }
    }
    Ok(None)
}

fn meet_some(lines: &mut Lines, holders: &[Holder], tries: u32) -> Result<Times> {
    let mut times = Times::default();
    let mut random = fastrand::Rng::with_seed(u64::from(tries));
    for _ in 0..tries {
        let holder = &holders[random.usize(..holders.len())];
        let port = holder.first + random.u16(..holder.count);
        match meet(lines, port, holder.process.pid())? {
            Some(time) => times.taken.push(time.as_micros()),
            None => times.unnamed += 1,
        }
        // The next one finds it idle.
        let since = Instant::now();
        clock::pause(PAUSE);
        let late = since.elapsed().saturating_sub(Duration::from_millis(PAUSE));
        times.late = times.late.max(late);
    }
    Ok(times)
}

/// Runs it.
pub(super) fn run(options: &Options) -> Result<()> {
    let Options {
        portwatch,
        attach,
        sockets,
        processes,
        tries,
    } = options;
    ensure!(
        *sockets <= u16::MAX - FIRST_PORT && *processes >= 2 && sockets / 2 >= *processes,
        "there are not as many ports, or not as many sockets as processes"
    );
    Netns::new()?.enter()?;
    let half = (processes / 2, sockets / 2);
    let older = hold(half.0, FIRST_PORT, half.1)?;
    for backend in attach {
        for format in ["text", "json"] {
            let label = format!("{} {format}", backend.as_str());
            let command = format!(
                "{label}={} trace --attach {} -o {format} --failed",
                portwatch.display(),
                backend.as_str(),
            );
            let contender: Contender = command.parse().map_err(anyhow::Error::msg)?;
            let mut tracer = contender.start(Output::Pipe, &[])?;
            tracer.attached()?;
            let newer = hold(half.0, FIRST_PORT + half.1, half.1)?;
            tracer.settled()?;
            let mut lines = tracer.lines()?;
            for (age, holders) in [("older", &older), ("newer", &newer)] {
                meet_some(&mut lines, holders, *tries)?.print(&label, age);
            }
            tracer.stop()?;
        }
    }
    Ok(())
}
