//! A machine that is busy already when portwatch is started: when is it ready, and how much memory does
//! it take to know who has which socket?

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use serde_json::Value;

use super::{
    contender::{Contender, Output},
    drive::value,
    memory::{self, Resident},
};
use crate::{
    crowd::{self, Crowd},
    expect::lookup,
    sys::sock::Sock,
};

/// Processes that the sockets are spread over.
const PROCESSES: u16 = 100;

/// How long anything may take under emulation.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug, Args)]
pub(crate) struct Options {
    processes: u16,
    /// Of each process.
    sockets: u16,
}

/// Is the crowd: says its pids in one line, then waits for the end of stdin.
pub(super) fn gather(options: &Options) -> Result<()> {
    let crowd = Crowd::gather(options.processes, options.sockets)?;
    let pids: Vec<String> = crowd.pids().iter().map(ToString::to_string).collect();
    println!("{}", pids.join(" "));
    std::io::stdout().flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Starts portwatch beside so many sockets, of which one is in the way at once. It looks older sockets up
/// between its `start` line and its first event: when that is told with the name of the holder, it is
/// ready.
pub(super) fn measure(contender: &Contender, sockets: u32) -> Result<()> {
    let each = u16::try_from(sockets.div_ceil(PROCESSES.into()))?;
    let mut crowd = Command::new("/proc/self/exe")
        .args(["cost", "crowd", &PROCESSES.to_string(), &each.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the crowd")?;
    let mut pids = String::new();
    BufReader::new(crowd.stdout.take().context("no pipe")?).read_line(&mut pids)?;
    let measured = beside(contender, sockets, pids.split_whitespace().last());
    // The end of its stdin.
    drop(crowd.stdin.take());
    ensure!(crowd.wait()?.success(), "the crowd did not come together");
    measured
}

fn beside(contender: &Contender, sockets: u32, holder: Option<&str>) -> Result<()> {
    let holder: u64 = holder.context("no crowd")?.parse()?;
    let mut tracer = contender.start(Output::Pipe, &["-o", "json", "-v"])?;
    let mut lines = tracer.lines()?;
    let mut next = || {
        let line = lines.next(PATIENCE)?.context("it is not ready")?;
        serde_json::from_str::<Value>(&line).with_context(|| format!("it says {line:?}"))
    };
    let start = next()?;
    let since = Instant::now();
    ensure!(
        lookup(&start, "event.name") == Some(&"start".into()),
        "it begins with {start}"
    );
    let (kind, address) = crowd::place(PROCESSES - 1, 0);
    ensure!(
        Sock::new(kind)?.bind(&address.into()).is_err(),
        "{address} is free"
    );
    let line = loop {
        let line = next()?;
        if lookup(&line, "process.pid") == Some(&std::process::id().into()) {
            break line;
        }
    };
    let ready = since.elapsed();
    let holders = lookup(&line, "conflict.holders").and_then(|holders| holders.get(0));
    let named = holders.and_then(|holder| lookup(holder, "process.pid"));
    ensure!(
        named == Some(&holder.into()),
        "{holder} has the port: {line}"
    );
    let told = |name: &str, figure: u64| value(contender, &format!("{sockets}-{name}"), figure);
    told("ready-us", u64::try_from(ready.as_micros())?);
    let Resident { all, maps } = Resident::of(tracer.pid())?;
    told("rss-without-ring-kb", all - maps);
    told("rss-peak-kb", memory::peak(tracer.pid())?);
    let notes = tracer.stop()?;
    let Some(note) = notes
        .lines()
        .find(|note| note.contains("descriptors of sockets found"))
    else {
        bail!("nothing about older sockets in {notes}");
    };
    let note = note.trim_start_matches("portwatch: ");
    value(contender, &format!("{sockets}-note"), note);
    Ok(())
}
