//! The course: what is measured of each contender, in which order.
//!
//! Figures go to stdout, fields separated by tabs:
//!
//! ```text
//! ops CONTENDER MODE TOTAL OWN TRACER   per operation: the whole machine until the last line is
//!                                       written, the traced process, the tracer; `-` and `-again`
//!                                       stand for nobody, before and after all contenders
//! value CONTENDER NAME VALUE            a figure of another kind
//! failed CONTENDER WHY                  it could not be measured
//! ```

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, TcpListener},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use serde_json::Value;

use super::{
    clock,
    contender::{Contender, Output, Running},
    hooks,
    memory::{self, Resident},
    older,
    work::{self, Mode, NAME, Times},
};
use crate::expect::lookup;

/// A part of the course.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Phase {
    /// From exec to the first line.
    Start,
    /// What operations cost.
    Ops,
    /// Idle, memory, and the time from an event to its line.
    Steady,
    /// Binds at full speed.
    Burst,
    /// A start beside many sockets.
    Older,
}

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[arg(long)]
    phase: Vec<Phase>,
    /// `LABEL[:MODE,…]=COMMAND`
    #[arg(long)]
    contender: Vec<Contender>,
    /// Only modes whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Sockets that are older than the tracer.
    #[arg(long, default_values_t = [100, 100_000])]
    sockets: Vec<u32>,
    /// Percentage of the usual number of operations.
    #[arg(long, default_value_t = 100)]
    scale: u64,
}

/// Runs it.
pub(super) fn run(options: &Options) -> Result<()> {
    let Options {
        phase,
        contender: contenders,
        only,
        sockets,
        scale,
    } = options;
    // What booting has left behind is done when the machine idles.
    clock::pause(2000);
    let modes: Vec<Mode> = Mode::value_variants()
        .iter()
        .copied()
        .filter(|mode| mode.name().contains(only.as_str()))
        .collect();
    let with_ops = phase.contains(&Phase::Ops);
    if with_ops {
        // The first run of each finds caches empty, slabs small, and is no measure.
        for mode in &modes {
            working(*mode, mode.count() / 10, None)?;
        }
        operations("-", None, &modes, *scale)?;
    }
    for contender in contenders {
        for phase in phase {
            let measured = match phase {
                Phase::Start => start(contender),
                Phase::Ops => operations_of(contender, &modes, *scale),
                Phase::Steady => steady(contender),
                Phase::Burst => burst(contender, 2000 * scale),
                Phase::Older => sockets
                    .iter()
                    .try_for_each(|&sockets| older::measure(contender, sockets)),
            };
            if let Err(error) = measured {
                let why = format!("{error:#}").replace(['\n', '\t'], " ");
                println!("failed\t{}\t{phase:?}: {why}", contender.label);
            }
        }
    }
    if with_ops {
        operations("-again", None, &modes, *scale)?;
    }
    Ok(())
}

pub(super) fn value(contender: &Contender, name: &str, value: impl std::fmt::Display) {
    println!("value\t{}\t{name}\t{value}", contender.label);
}

fn working(mode: Mode, count: u64, tracer: Option<u32>) -> Result<Times> {
    let mut command = Command::new("/proc/self/exe");
    command
        .args(["cost", "work", &mode.name(), &count.to_string()])
        .stdin(Stdio::null());
    if let Some(pid) = tracer {
        command.args(["--tracer", &pid.to_string()]);
    }
    let output = command.output().context("cannot run the workload")?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!(
            "{}: {}: {}",
            mode.name(),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Times::parse(&said).with_context(|| format!("{}: {said}", mode.name()))
}

fn operations(
    label: &str,
    mut tracer: Option<&mut Running>,
    modes: &[Mode],
    scale: u64,
) -> Result<()> {
    for mode in modes {
        let count = (mode.count() * scale / 100).next_multiple_of(work::BATCHES);
        let times = working(*mode, count, tracer.as_ref().map(|tracer| tracer.pid()))?;
        let (mut tail, mut during) = (0, 0);
        if let Some(tracer) = tracer.as_mut() {
            tracer.settled()?;
            tail = tracer.ran()? - times.tracer_after;
            during = times.tracer_after - times.tracer_before;
        }
        let per = |sum: u64| sum as f64 / count as f64;
        println!(
            "ops\t{label}\t{}\t{:.1}\t{:.1}\t{:.1}",
            mode.name(),
            per(times.machine + tail),
            per(times.own),
            per(during + tail)
        );
    }
    Ok(())
}

fn operations_of(contender: &Contender, modes: &[Mode], scale: u64) -> Result<()> {
    let modes: Vec<Mode> = modes
        .iter()
        .copied()
        .filter(|mode| {
            contender
                .modes
                .as_ref()
                .is_none_or(|wanted| wanted.contains(mode))
        })
        .collect();
    if modes.is_empty() {
        return Ok(());
    }
    let mut tracer = contender.start(Output::Null, &[])?;
    tracer.attached()?;
    operations(&contender.label, Some(&mut tracer), &modes, scale)?;
    tracer.stop()?;
    Ok(())
}

/// From exec to the line that says it is attached; a neighbour's moment is when it falls silent.
fn start(contender: &Contender) -> Result<()> {
    if contender.modes.is_some() {
        return Ok(());
    }
    let mut runs = Vec::new();
    for _ in 0..3 {
        let since = clock::machine()?;
        if contender.is_portwatch() {
            let mut tracer = contender.start(Output::Pipe, &["-o", "json"])?;
            let mut lines = tracer.lines()?;
            let first = lines.next(Duration::from_secs(60))?;
            let (now, ran) = (clock::machine()?, tracer.ran()?);
            let inside = clock::in_kernel(tracer.pid())?;
            let first = first.unwrap_or_default();
            if !first.contains("\"start\"") {
                bail!("it does not start: {first} {}", tracer.stop()?);
            }
            lines.drain();
            runs.push((ran, now - since, (ran as f64 * inside) as u64));
            tracer.stop()?;
        } else {
            let mut tracer = contender.start(Output::Null, &[])?;
            tracer.attached()?;
            runs.push((tracer.ran()?, 0, 0));
            tracer.stop()?;
            break;
        }
    }
    let (least, _, kernel) = runs.iter().min().context("no run")?;
    value(contender, "start-run", least);
    let mut elapsed: Vec<u64> = runs.iter().map(|(_, elapsed, _)| *elapsed).collect();
    elapsed.sort_unstable();
    if contender.is_portwatch() {
        value(contender, "start-elapsed", elapsed[elapsed.len() / 2]);
        value(contender, "start-kernel", kernel);
        if let Some(backend) = contender.backend() {
            let (ran, count) = hooks::alone(backend)?;
            value(contender, "start-hooks", ran);
            value(contender, "hooks", count);
        }
    }
    Ok(())
}

fn steady(contender: &Contender) -> Result<()> {
    if contender.modes.is_some() {
        return Ok(());
    }
    let mut tracer = contender.start(Output::Pipe, &[])?;
    tracer.attached()?;
    let mut lines = tracer.lines()?;
    latency(contender, &mut lines)?;
    lines.drain();
    working(Mode::Bind, 2000, None)?;
    tracer.settled()?;
    idle(contender, &tracer)?;
    memory(contender, &tracer)?;
    tracer.stop()?;
    Ok(())
}

/// Event to line through a pipe.
fn latency(contender: &Contender, lines: &mut super::contender::Lines) -> Result<()> {
    const TIMES: u32 = 20;
    let (mut worst, mut seen) = (Duration::ZERO, 0);
    for _ in 0..TIMES {
        let since = Instant::now();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port().to_string();
        while let Some(line) = lines.next(Duration::from_secs(1).saturating_sub(since.elapsed()))? {
            if line.is_empty() {
                bail!("it ended");
            }
            if line.contains(&port) {
                seen += 1;
                worst = worst.max(since.elapsed());
                break;
            }
        }
        clock::pause(30);
    }
    value(contender, "latency-seen", format!("{seen}/{TIMES}"));
    if seen > 0 {
        value(contender, "latency-worst-us", worst.as_micros());
    }
    Ok(())
}

fn idle(contender: &Contender, tracer: &Running) -> Result<()> {
    const SECONDS: u64 = 5;
    let (ran, woken) = (tracer.ran()?, switches(tracer.pid())?);
    clock::pause(SECONDS * 1000);
    let (ran, woken) = (tracer.ran()? - ran, switches(tracer.pid())? - woken);
    value(contender, "idle-run-per-second", ran / SECONDS);
    value(contender, "idle-wakeups", format!("{woken} in {SECONDS} s"));
    Ok(())
}

/// Context switches of all threads so far.
fn switches(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = fs::read_to_string(entry?.path().join("status"))?;
        sum += status
            .lines()
            .filter(|line| line.contains("ctxt_switches"))
            .filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok())
            .sum::<u64>();
    }
    Ok(sum)
}

fn memory(contender: &Contender, tracer: &Running) -> Result<()> {
    let Resident { all, maps } = Resident::of(tracer.pid())?;
    value(contender, "rss-kb", all);
    value(contender, "rss-without-ring-kb", all - maps);
    value(contender, "rss-peak-kb", memory::peak(tracer.pid())?);
    Ok(())
}

/// As many binds as the machine can do, JSON to a file.
fn burst(contender: &Contender, count: u64) -> Result<()> {
    const PATH: &str = "/tmp/lines";
    if contender.modes.is_some() {
        return Ok(());
    }
    let more: &[&str] = if contender.is_portwatch() {
        &["-o", "json"]
    } else {
        &[]
    };
    let mut tracer = contender.start(Output::File(File::create(PATH)?), more)?;
    tracer.attached()?;
    let times = working(Mode::Bind, count, None)?;
    tracer.settled()?;
    let notes = tracer.stop()?;
    // The workload does a tenth more to warm up.
    value(contender, "burst-events", count + count / 10);
    value(contender, "burst-ns-per-op", times.machine / count);
    let mut printed = 0_u64;
    let mut last = String::new();
    for line in BufReader::new(File::open(PATH)?).lines() {
        let line = line?;
        printed += u64::from(line.contains(NAME));
        last = line;
    }
    value(contender, "burst-printed", printed);
    let lost = if contender.is_portwatch() {
        let end: Value = serde_json::from_str(&last).context("the last line")?;
        let lost = lookup(&end, "totals.lost").and_then(Value::as_u64);
        lost.with_context(|| format!("no totals in {last}"))?
    } else {
        lost_in(&notes)
    };
    value(contender, "burst-lost", lost);
    fs::remove_file(PATH)?;
    Ok(())
}

/// The sum of first numbers of lines about loss.
fn lost_in(notes: &str) -> u64 {
    notes
        .lines()
        .filter(|line| {
            let line = line.to_lowercase();
            ["lost", "drop", "missed"]
                .iter()
                .any(|word| line.contains(word))
        })
        .filter_map(|line| {
            line.split(|c: char| !c.is_ascii_digit())
                .find(|word| !word.is_empty())?
                .parse::<u64>()
                .ok()
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_tell_losses_in_their_own_words() {
        assert_eq!(
            lost_in("Lost 12 events on CPU #0!\nlost 3 events\nfine 9\n"),
            15
        );
    }
}
