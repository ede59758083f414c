//! What a tier comes to.

use std::time::{Duration, Instant};

use anyhow::{Error, Result};

use crate::say::{duration, say};

/// A check that failed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Failure {
    /// Which.
    pub(crate) name: String,
    /// Why: the first line is a summary, more may follow.
    pub(crate) why: String,
}

/// A check that could not run here.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Skip {
    /// Which.
    pub(crate) name: String,
    /// Why not.
    pub(crate) reason: String,
}

/// The checks of a tier.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Counts {
    /// How many passed.
    pub(crate) passed: u32,
    /// Those that failed.
    pub(crate) failures: Vec<Failure>,
    /// Those that did not run.
    pub(crate) skips: Vec<Skip>,
    /// Those that failed once and passed when they ran once more: how they failed.
    pub(crate) unsteady: Vec<Failure>,
}

impl Counts {
    /// One check that passed.
    pub(crate) fn one_passed() -> Counts {
        Counts {
            passed: 1,
            ..Counts::default()
        }
    }

    /// One check that failed.
    pub(crate) fn one_failed(name: &str, why: impl Into<String>) -> Counts {
        Counts {
            failures: vec![Failure {
                name: name.into(),
                why: why.into(),
            }],
            ..Counts::default()
        }
    }

    /// One check that could not run.
    pub(crate) fn one_skipped(name: &str, reason: impl Into<String>) -> Counts {
        Counts {
            skips: vec![Skip {
                name: name.into(),
                reason: reason.into(),
            }],
            ..Counts::default()
        }
    }

    /// One check that passed or failed as a whole.
    pub(crate) fn of_one(name: &str, result: Result<()>) -> Counts {
        match result {
            Ok(()) => Counts::one_passed(),
            Err(error) => Counts::one_failed(name, chain(&error)),
        }
    }
}

/// A tier that has run.
#[derive(Debug, PartialEq)]
pub(crate) struct Tier {
    /// `unit`, `host/raw_tp`, `vm/6.1/kprobe`.
    pub(crate) name: String,
    /// How long it took.
    pub(crate) elapsed: Duration,
    /// What it found.
    pub(crate) counts: Counts,
}

impl Tier {
    /// Runs a tier and says how it went. An error is a failure of the tier, not the end of the run.
    pub(crate) fn time(name: &str, work: impl FnOnce() -> Result<Counts>) -> Tier {
        say(format_args!("--- {name}"));
        let since = Instant::now();
        let counts = work().unwrap_or_else(|error| {
            say(format_args!("{name}: {}", chain(&error)));
            Counts::one_failed(name, chain(&error))
        });
        let tier = Tier {
            name: name.into(),
            elapsed: since.elapsed(),
            counts,
        };
        say(tier.summary());
        tier
    }

    /// `vm/6.1/kprobe: 54 passed, 0 failed, 2 skipped (31 s)`
    pub(crate) fn summary(&self) -> String {
        let Counts {
            passed,
            failures,
            skips,
            unsteady,
        } = &self.counts;
        let time = duration(self.elapsed);
        let aside = match unsteady.len() {
            0 => time,
            count => format!("{time}; {count} of them unsteady"),
        };
        format!(
            "{}: {passed} passed, {} failed, {} skipped ({aside})",
            self.name,
            failures.len(),
            skips.len(),
        )
    }
}

/// An error with its causes, as a failure's reason.
pub(super) fn chain(error: &Error) -> String {
    format!("{error:#}")
}

/// Text from a guest or a test, made fit for a terminal: control characters other than tab show as
/// the replacement character.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\t' {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_a_failure_of_its_tier() {
        let tier = Tier::time(
            "unit",
            || Err(Error::msg("no disk").context("cannot build")),
        );
        assert_eq!(
            tier.counts,
            Counts::one_failed("unit", "cannot build: no disk")
        );
    }

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        assert_eq!(printable("a\x1b[31mb\tc"), "a\u{fffd}[31mb\tc");
    }
}
