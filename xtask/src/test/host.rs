//! The scenarios on this machine's own kernel.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use anyhow::{Context, Result};

use super::Selection;
use super::scenario;
use super::tier::{Counts, Tier};
use crate::cargo::{self, Built};
use crate::exec::{output, shown};
use crate::privilege;
use crate::vm::console::End;

/// Runs all scenarios for each backend that this kernel offers.
pub(crate) fn run(selection: &Selection, portwatch: &Built) -> Vec<Tier> {
    if !privilege::can_be_root() {
        return vec![Tier::time("host", || {
            Ok(Counts::one_skipped(
                "scenarios",
                "needs root, and there is no sudo",
            ))
        })];
    }
    let prepared = cargo::build("portwatch-tests", "dev", None).and_then(|runner| {
        let runner = runner.executable("portwatch-tests")?.to_path_buf();
        let backends = backends(selection, &runner, portwatch.executable("portwatch")?)?;
        Ok((runner, backends))
    });
    match prepared {
        Ok((runner, backends)) => backends
            .iter()
            .map(|backend| {
                Tier::time(&format!("host/{backend}"), || {
                    scenarios(selection, &runner, portwatch, backend)
                })
            })
            .collect(),
        Err(error) => vec![Tier::time("host", || Err(error))],
    }
}

fn backends(selection: &Selection, runner: &Path, portwatch: &Path) -> Result<Vec<String>> {
    if !selection.attach.is_empty() {
        return Ok(selection.attach.clone());
    }
    let mut command = privilege::as_root(runner)?;
    command.arg("backends").arg("--portwatch").arg(portwatch);
    let listed: Vec<String> = output(&mut command)?.lines().map(String::from).collect();
    anyhow::ensure!(
        !listed.is_empty(),
        "`{}` lists no backend for this kernel",
        shown(&command)
    );
    Ok(listed)
}

fn scenarios(
    selection: &Selection,
    runner: &Path,
    portwatch: &Built,
    backend: &str,
) -> Result<Counts> {
    let mut command = privilege::as_root(runner)?;
    command
        .arg("run")
        .arg("--portwatch")
        .arg(portwatch.executable("portwatch")?)
        .args(["--attach", backend]);
    command.args(selection.scenario_options());
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{}`", shown(&command)))?;
    let mut output = scenario::Output::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line.context("cannot read what the scenario runner prints")?;
            if let Some(news) = output.line(&String::from_utf8_lossy(&line)) {
                eprintln!("{news}");
            }
        }
    }
    let status = child
        .wait()
        .with_context(|| format!("cannot wait for `{}`", shown(&command)))?;
    Ok(output.finish(&ending(status)))
}

fn ending(status: ExitStatus) -> End {
    match status.code() {
        Some(code) => End::Exit(code),
        None => End::Other(format!("signal {}", status.signal().unwrap_or_default())),
    }
}
