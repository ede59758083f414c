//! portwatch's rules of sharing a port against the running kernel: sockets with random options,
//! addresses and states come to one port in random order, and each bind() and listen() has to do what
//! `portwatch::conflict::rules` says.
//!
//! What ever disagreed is a line of `named.jsonl`, run first.

mod asked;
mod case;
mod compare;
mod generate;
mod kernel;
mod make;
mod past;
mod predict;

use std::{
    process::ExitCode,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use clap::Args;
use serde::Deserialize;

use self::{
    case::Case,
    compare::{Disagreement, Judge},
};

/// Name of the test that is all the random cases.
const RANDOM: &str = "rules_random_cases";
/// Name of the test that is all the random questions.
const ASKED: &str = "rules_check_random_questions";
/// After so many disagreements it is clear that something is wrong.
const ENOUGH: usize = 8;

/// What to run.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How many random cases.
    #[arg(long, default_value_t = 5000)]
    cases: u64,
    /// How many random questions to `check`.
    #[arg(long, default_value_t = 1000)]
    questions: u64,
    /// Seed of the first one; each other has the next number. Else a fresh one.
    #[arg(long)]
    seed: Option<u64>,
    /// Only this case, as a disagreement prints it.
    #[arg(long, value_name = "JSON")]
    case: Option<String>,
    /// Only tests whose name contains this.
    #[arg(long, default_value = "")]
    filter: String,
}

/// A line of `named.jsonl`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
    case: Case,
}

fn named() -> Result<Vec<Named>> {
    include_str!("named.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("in named.jsonl: {line}")))
        .collect()
}

/// `portwatch-tests rules`
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let Options {
        cases,
        questions,
        seed,
        case,
        filter,
    } = options;
    let mut judge = Judge::new()?;
    let mut score = Score::default();
    if let Some(text) = case {
        let case = serde_json::from_str(text).context("--case")?;
        score.of("rules_case", || {
            Ok(judge.case(&case)?.into_iter().collect())
        })?;
        return Ok(score.finish());
    }
    for Named { name, case } in named()? {
        let name = format!("rules_{name}");
        if name.contains(filter.as_str()) {
            score.of(&name, || Ok(judge.case(&case)?.into_iter().collect()))?;
        }
    }
    if RANDOM.contains(filter.as_str()) {
        let seed = seed.map_or_else(fresh_seed, Ok)?;
        println!("note: {cases} random cases, seed {seed}");
        score.of(RANDOM, || random(&mut judge, seed, *cases))?;
    }
    if ASKED.contains(filter.as_str()) {
        let seed = seed.map_or_else(fresh_seed, Ok)?;
        println!("note: {questions} random questions to check, seed {seed}");
        score.asked(seed, *questions)?;
    }
    Ok(score.finish())
}

/// What disagrees among so many random cases, each as short as it can be.
fn random(judge: &mut Judge, seed: u64, cases: u64) -> Result<Vec<Disagreement>> {
    let mut found = Vec::new();
    for seed in (0..cases).map(|at| seed.wrapping_add(at)) {
        let case = generate::case(seed);
        let judged = judge
            .case(&case)
            .with_context(|| format!("seed {seed}: {}", compare::shown(&case)))?;
        if let Some(disagreement) = judged {
            found.push(judge.shorten(disagreement)?);
            if found.len() == ENOUGH {
                break;
            }
        }
    }
    Ok(found)
}

/// The time in µs: runs that start a second apart share no case.
fn fresh_seed() -> Result<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(u64::try_from(now.as_micros())?)
}

/// How many tests passed, and how many did not.
#[derive(Debug, Default)]
struct Score {
    passed: u32,
    failed: u32,
}

impl Score {
    fn of(&mut self, name: &str, test: impl FnOnce() -> Result<Vec<Disagreement>>) -> Result<()> {
        let since = Instant::now();
        let found = test().with_context(|| name.to_owned())?;
        if found.is_empty() {
            self.passed += 1;
            println!("ok {name} ({} ms)", since.elapsed().as_millis());
        } else {
            self.failed += 1;
            println!("FAILED {name}: {} disagreements", found.len());
        }
        for line in found.iter().flat_map(Disagreement::lines) {
            println!("    {line}");
        }
        Ok(())
    }

    /// What `check` answers to random questions.
    fn asked(&mut self, seed: u64, questions: u64) -> Result<()> {
        let since = Instant::now();
        let tally = asked::random(seed, questions, ENOUGH).context(ASKED)?;
        println!("note: {}", tally.line());
        if tally.wrong.is_empty() && !tally.is_too_vague() {
            self.passed += 1;
            println!("ok {ASKED} ({} ms)", since.elapsed().as_millis());
        } else {
            self.failed += 1;
            println!("FAILED {ASKED}: {}", tally.line());
        }
        for line in &tally.wrong {
            println!("    {line}");
        }
        Ok(())
    }

    fn finish(self) -> ExitCode {
        let Self { passed, failed } = self;
        println!("{passed} passed, {failed} failed, 0 skipped");
        if failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = named().unwrap().into_iter().map(|line| line.name).collect();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
