//! The scenarios, and the rules of sharing a port, on this machine's own kernel.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result};

use super::Selection;
use super::tier::{Counts, Tier, chain};
use super::{rules, scenario};
use crate::cargo::Built;
use crate::exec::{output, shown};
use crate::privilege;
use crate::say::say;
use crate::vm::console::End;
use crate::vm::neighbours::Neighbours;
use crate::vm::programs;
use crate::workspace::Cache;

/// Runs all scenarios for each backend that this kernel offers.
pub(crate) fn run(selection: &Selection, built: &Built) -> Vec<Tier> {
    if !privilege::can_be_root() {
        return vec![Tier::time("host", || {
            Ok(Counts::one_skipped(
                "scenarios",
                "needs root, and there is no sudo",
            ))
        })];
    }
    let runner = match built.executable("portwatch-tests") {
        Ok(runner) => runner,
        Err(error) => return vec![Tier::time("host", || Err(error))],
    };
    let mut tiers = Vec::new();
    if rules::wants_scenarios(selection) {
        tiers.extend(of_backends(selection, runner, built));
    }
    if let Some(argv) = rules::argv(selection) {
        tiers.push(Tier::time(&format!("host/{}", rules::ID), || {
            run_runner(privilege::as_root(runner)?.args(argv))
        }));
    }
    tiers
}

fn of_backends(selection: &Selection, runner: &Path, built: &Built) -> Vec<Tier> {
    let listed = built
        .executable("portwatch")
        .and_then(|portwatch| backends(selection, runner, portwatch));
    let fetched = || Cache::open().and_then(|cache| Neighbours::fetched(&cache));
    let neighbours = Neighbours::own().map_or_else(fetched, Ok);
    // What is compared with them is skipped then, which is told.
    let neighbours = neighbours.map_err(|error| say(chain(&error))).ok();
    let programs = if wants_programs(selection) {
        let found = Cache::open().and_then(|cache| programs::find_or_fetch(&cache));
        found.map_err(|error| say(chain(&error))).ok()
    } else {
        None
    };
    let mut roots: Vec<(&str, &Path)> = Vec::new();
    roots.extend(
        neighbours
            .iter()
            .map(|found| ("--neighbours", found.root())),
    );
    roots.extend(programs.iter().map(|root| ("--programs", root.as_path())));
    match listed {
        Ok(backends) => backends
            .iter()
            .enumerate()
            .map(|(place, backend)| {
                Tier::time(&format!("host/{backend}"), || {
                    scenarios(selection, runner, built, &roots, (backend, place))
                })
            })
            .collect(),
        Err(error) => vec![Tier::time("host", || Err(error))],
    }
}

/// Whether a scenario that was chosen may need Debian's programs: they are fetched only then.
fn wants_programs(selection: &Selection) -> bool {
    let filter = selection.filter.as_deref();
    filter.is_none_or(|filter| filter.starts_with(programs::SCENARIOS))
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
    built: &Built,
    roots: &[(&str, &Path)],
    (backend, place): (&str, usize),
) -> Result<Counts> {
    let mut command = privilege::as_root(runner)?;
    command
        .arg("run")
        .arg("--portwatch")
        .arg(built.executable("portwatch")?)
        .args(["--attach", backend, "--place", &place.to_string()]);
    for (option, root) in roots {
        command.arg(option).arg(root);
    }
    run_runner(command.args(selection.scenario_options()))
}

fn run_runner(command: &mut Command) -> Result<Counts> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{}`", shown(command)))?;
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
        .with_context(|| format!("cannot wait for `{}`", shown(command)))?;
    Ok(output.finish(&ending(status)))
}

fn ending(status: ExitStatus) -> End {
    match status.code() {
        Some(code) => End::Exit(code),
        None => End::Other(format!("signal {}", status.signal().unwrap_or_default())),
    }
}
