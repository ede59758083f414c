//! What `churn` adds to a TCP connection: instructions of the whole machine, for one that is reset and for one
//! that ends in TIME_WAIT. Nothing is printed meanwhile; what reading the tables costs is a figure of its own.
//!
//! Figures are printed as [`super::drive`] does.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use super::work::{Mode, Times};
use crate::{
    degraded::Backend,
    sys::bpf::{self, Runs},
};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The portwatch to start.
    #[arg(long)]
    portwatch: PathBuf,
    #[arg(long)]
    attach: Vec<Backend>,
    /// Connections of a run.
    #[arg(long, default_value_t = 2000)]
    count: u64,
}

/// Runs it.
pub(super) fn run(options: &Options) -> Result<()> {
    let Options {
        portwatch,
        attach,
        count,
    } = options;
    for mode in [Mode::Connect, Mode::ConnectWait] {
        let name = mode.name();
        // Once without before all others and once after them: what the machine itself does differently by then
        // is told as noise.
        let first = settled(mode, *count)?;
        let mut with = Vec::new();
        for backend in attach {
            let churn = start(portwatch, *backend)?;
            let time = work(mode, *count);
            let items = itemised(churn.id(), mode, *count);
            stop(churn)?;
            with.push((backend.as_str(), time?));
            for item in items? {
                println!("item\t{}\t{name}\t{item}", backend.as_str());
            }
        }
        let last = settled(mode, *count)?;
        let without = first.min(last);
        println!("value\tnothing\t{name}-per-op\t{without}");
        println!("value\tnothing\t{name}-noise\t{}", first.abs_diff(last));
        for (backend, time) in with {
            ensure!(
                time > without,
                "{name}: {time} with {backend}, {without} without"
            );
            println!(
                "value\tchurn {backend}\t{name}-added-per-op\t{}",
                time - without
            );
        }
    }
    Ok(())
}

/// Longer than TIME_WAIT is (include/net/tcp.h, TCP_TIMEWAIT_LEN).
const TIME_WAIT: Duration = Duration::from_secs(65);

/// What each program runs for an operation: name, how often, how long each time. The kernel's clock costs something
/// itself, so this is work of its own.
fn itemised(churn: u32, mode: Mode, count: u64) -> Result<Vec<String>> {
    const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";
    let wait = || {
        if mode == Mode::ConnectWait {
            std::thread::sleep(TIME_WAIT);
        }
    };
    // What the work before has left there.
    wait();
    fs::write(SWITCH, "1")?;
    let ran = counted(churn, || {
        work(mode, count)?;
        // Its end runs a program too.
        wait();
        Ok(())
    });
    fs::write(SWITCH, "0")?;
    let (before, after) = ran?;
    // `work` begins with a tenth that it does not measure.
    let operations = (count + count / 10) as f64;
    let ran = |(before, after): (Runs, Runs)| {
        let (runs, time) = (after.count - before.count, after.time - before.time);
        // The socket that is connected to is bound and listens.
        (runs > count / 2).then(|| {
            format!(
                "{}\t{:.2}\t{:.0}",
                after.name,
                runs as f64 / operations,
                time as f64 / runs as f64
            )
        })
    };
    Ok(before.into_iter().zip(after).filter_map(ran).collect())
}

/// What its programs have run before and after that.
fn counted(churn: u32, work: impl FnOnce() -> Result<()>) -> Result<(Vec<Runs>, Vec<Runs>)> {
    let before = bpf::runs(churn)?;
    work()?;
    Ok((before, bpf::runs(churn)?))
}

/// The same until it takes the same: after boot a connection costs more, for thousands of them, and a tracer that
/// has ended leaves work behind (both measured on 6.12).
fn settled(mode: Mode, count: u64) -> Result<u64> {
    let mut last = work(mode, count)?;
    for _ in 0..8 {
        let next = work(mode, count)?;
        if last.abs_diff(next) * 200 < next {
            return Ok(next);
        }
        last = next;
    }
    Ok(last)
}

/// The machine's time for an operation, ns.
fn work(mode: Mode, count: u64) -> Result<u64> {
    let output = Command::new("/proc/self/exe")
        .args(["cost", "work", &mode.name(), &count.to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start the workload")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let times = Times::parse(text.trim()).context("the workload says nothing")?;
    ensure!(count > 0, "no operation");
    Ok(times.machine / count)
}

/// Starts it and waits until it counts.
fn start(portwatch: &Path, backend: Backend) -> Result<Child> {
    let mut child = Command::new(portwatch)
        .args(["churn", "-v", "--interval", "1h", "-o", "json", "--attach"])
        .arg(backend.as_str())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", portwatch.display()))?;
    let stderr = child.stderr.take().context("no pipe")?;
    let mut said = String::new();
    for line in BufReader::new(stderr).lines() {
        let line = line?;
        if line.contains("counting") {
            return Ok(child);
        }
        said.push_str(&line);
        said.push('\n');
    }
    child.wait()?;
    bail!(
        "portwatch churn does not start with {}: {said}",
        backend.as_str()
    )
}

fn stop(mut child: Child) -> Result<()> {
    crate::sys::task::signal(child.id(), libc::SIGTERM)?;
    let status = child.wait()?;
    ensure!(status.success(), "portwatch churn: {status}");
    Ok(())
}
