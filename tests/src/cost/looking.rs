//! How long a look at the sockets takes that are there, on a machine with many: portwatch's, and that of
//! others.
//!
//! Figures are printed as [`super::drive`] does.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use super::naming::{FIRST_PORT, hold};
use crate::sys::netns::Netns;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// `LABEL=COMMAND`; `{port}` in it is one of the ports. May be repeated.
    #[arg(long, required = true)]
    contender: Vec<String>,
    #[arg(long, default_value_t = 20_000)]
    sockets: u16,
    /// That have them, each as many.
    #[arg(long, default_value_t = 100)]
    processes: u16,
    /// Of each contender; they take turns, so that what disturbs the machine disturbs all of them.
    #[arg(long, default_value_t = 11)]
    runs: usize,
}

/// A command, and how long it took.
struct Contender<'a> {
    label: &'a str,
    argv: Vec<String>,
    times: Vec<Duration>,
    lines: usize,
}

impl Contender<'_> {
    fn run(&mut self) -> Result<()> {
        let Self {
            argv, times, lines, ..
        } = self;
        let (program, args) = argv.split_first().context("an empty command")?;
        let since = Instant::now();
        let output = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("cannot run {program}"))?;
        times.push(since.elapsed());
        ensure!(output.status.success(), "{program}: {}", output.status);
        *lines = output.stdout.iter().filter(|&&byte| byte == b'\n').count();
        Ok(())
    }

    fn print(mut self) -> Result<()> {
        self.times.sort_unstable();
        let median = self.times.get(self.times.len() / 2).context("no run")?;
        let (label, lines) = (self.label, self.lines);
        println!("value\t{label}\tlook-median-us\t{}", median.as_micros());
        println!("value\t{label}\tlook-lines\t{lines}");
        Ok(())
    }
}

/// Runs it.
pub(super) fn run(options: &Options) -> Result<()> {
    let Options {
        contender,
        sockets,
        processes,
        runs,
    } = options;
    ensure!(
        *sockets <= u16::MAX - FIRST_PORT && *processes > 0 && sockets >= processes,
        "there are not as many ports, or not as many sockets as processes"
    );
    Netns::new()?.enter()?;
    let _holders = hold(*processes, FIRST_PORT, *sockets)?;
    let port = (FIRST_PORT + sockets / 2).to_string();
    let mut contenders = contender
        .iter()
        .map(|text| {
            let Some((label, command)) = text.split_once('=') else {
                bail!("{text:?} is not LABEL=COMMAND");
            };
            let words = command.split_whitespace();
            Ok(Contender {
                label,
                argv: words.map(|word| word.replace("{port}", &port)).collect(),
                times: Vec::new(),
                lines: 0,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    // The first run finds the caches cold.
    for run in 0..=*runs {
        for contender in &mut contenders {
            contender.run()?;
            if run == 0 {
                contender.times.clear();
            }
        }
    }
    contenders.into_iter().try_for_each(Contender::print)
}
