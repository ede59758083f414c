//! What `churn` adds to a TCP connection: instructions of the whole machine, for one that is reset and for one
//! that ends in TIME_WAIT. Nothing is printed meanwhile; what reading the tables costs is a figure of its own.
//!
//! Figures are printed as [`super::drive`] does.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use super::work::{Mode, Times};
use crate::degraded::Backend;

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
        // Two without, so that it shows how much they differ.
        let (first, second) = (work(mode, *count)?, work(mode, *count)?);
        let without = first.min(second);
        println!("value\tnothing\t{name}-per-op\t{without}");
        println!("value\tnothing\t{name}-noise\t{}", first.abs_diff(second));
        for backend in attach {
            let churn = start(portwatch, *backend)?;
            let with = work(mode, *count);
            stop(churn)?;
            let added = with?.saturating_sub(without);
            println!(
                "value\tchurn {}\t{name}-added-per-op\t{added}",
                backend.as_str()
            );
        }
    }
    Ok(())
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
    for line in BufReader::new(stderr).lines() {
        if line?.contains("counting") {
            return Ok(child);
        }
    }
    child.wait()?;
    bail!("portwatch churn does not start with {}", backend.as_str())
}

fn stop(mut child: Child) -> Result<()> {
    crate::sys::task::signal(child.id(), libc::SIGTERM)?;
    let status = child.wait()?;
    ensure!(status.success(), "portwatch churn: {status}");
    Ok(())
}
