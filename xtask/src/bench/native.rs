//! What is measured on this machine itself: the binary's size, and how long it takes to start.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::privilege;
use crate::say::say;

/// How often it is started.
const RUNS: usize = 11;

/// Figures of this machine.
#[derive(Debug)]
pub(crate) struct Native {
    /// Of the release binary, in bytes.
    pub(crate) binary: u64,
    /// Median of [`RUNS`] starts up to the `start` line; `None` where we are not root.
    pub(crate) start: Option<Duration>,
    /// The backend that was chosen.
    pub(crate) backend: String,
    /// This machine's kernel.
    pub(crate) kernel: String,
    /// How busy it was with other things: the load average of the minute before, proc(5).
    pub(crate) load: String,
}

impl Native {
    /// Measures.
    ///
    /// # Errors
    /// portwatch cannot be run.
    pub(crate) fn measure(portwatch: &Path) -> Result<Native> {
        let binary = fs::metadata(portwatch).context("no release binary")?.len();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let kernel = kernel.trim().to_string();
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split(' ').next().unwrap_or_default().to_string();
        let mut native = Native {
            binary,
            start: None,
            backend: String::new(),
            kernel,
            load,
        };
        if !privilege::is_root() {
            say("not root: the time to start on this machine is not measured");
            return Ok(native);
        }
        let mut times = Vec::new();
        for _ in 0..RUNS {
            let (time, backend) = start(portwatch)?;
            times.push(time);
            native.backend = backend;
        }
        times.sort_unstable();
        native.start = times.get(RUNS / 2).copied();
        Ok(native)
    }
}

fn start(portwatch: &Path) -> Result<(Duration, String)> {
    let since = Instant::now();
    let mut child = privilege::as_root(portwatch)?
        .args(["trace", "-o", "json"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot run {}", portwatch.display()))?;
    let mut line = String::new();
    let mut pipe = BufReader::new(child.stdout.take().context("no pipe")?);
    pipe.read_line(&mut line)
        .context("cannot read its first line")?;
    let time = since.elapsed();
    // It is our child and not waited for yet, so the pid cannot be another's.
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL).context("cannot end it")?;
    child.wait().context("cannot wait for it")?;
    let start: serde_json::Value = serde_json::from_str(&line)
        .with_context(|| format!("it does not start on this machine: {line}"))?;
    let backend = start["backend"].as_str().unwrap_or_default();
    Ok((time, backend.to_string()))
}
