//! The end of a test run: a table, what was skipped, and the totals as the very last line.

use std::fmt::Write as _;

use super::skips::Comparison;
use super::tier::{Tier, printable};
use crate::say::duration;

/// Everything, ready to be printed.
pub(crate) fn render(tiers: &[Tier], comparison: &Comparison, strict: bool) -> String {
    let mut text = String::new();
    let width = tiers
        .iter()
        .map(|tier| tier.name.len())
        .max()
        .unwrap_or(0)
        .max(4);
    line(
        &mut text,
        format_args!(
            "\n{:width$}  {:>12}  {:>6}  {:>6}  {:>7}",
            "tier", "time", "passed", "failed", "skipped"
        ),
    );
    for Tier {
        name,
        elapsed,
        counts,
    } in tiers
    {
        let (failed, skipped) = (counts.failures.len(), counts.skips.len());
        let time = duration(*elapsed);
        line(
            &mut text,
            format_args!(
                "{name:width$}  {time:>12}  {:>6}  {failed:>6}  {skipped:>7}",
                counts.passed
            ),
        );
    }
    for (tier, skip) in tiers
        .iter()
        .flat_map(|tier| tier.counts.skips.iter().map(move |skip| (tier, skip)))
    {
        let known = format!("{} {}: {}", tier.name, skip.name, skip.reason);
        let label = match comparison.unexpected.contains(&known) {
            true => "skip (not in tests/expected-skips.txt)",
            false => "skip",
        };
        line(&mut text, format_args!("{label}: {}", printable(&known)));
    }
    for skip in &comparison.missing {
        line(
            &mut text,
            format_args!("in tests/expected-skips.txt, but not skipped: {skip}"),
        );
    }
    for (tier, failure) in tiers.iter().flat_map(|tier| {
        tier.counts
            .failures
            .iter()
            .map(move |failure| (tier, failure))
    }) {
        let why: Vec<String> = failure.why.lines().map(printable).collect();
        line(
            &mut text,
            format_args!(
                "FAILED {} {}: {}",
                tier.name,
                failure.name,
                why.join("\n    ")
            ),
        );
    }
    let Totals {
        passed,
        failed,
        skipped,
    } = totals(tiers, comparison, strict);
    line(
        &mut text,
        format_args!("{passed} passed, {failed} failed, {skipped} skipped"),
    );
    text
}

fn line(text: &mut String, content: std::fmt::Arguments) {
    // Writing to a String cannot fail.
    let _infallible = writeln!(text, "{content}");
}

/// The numbers of the last line.
#[derive(Debug, PartialEq)]
pub(crate) struct Totals {
    /// Checks that passed.
    pub(crate) passed: u32,
    /// Checks that failed; with `strict` every surprise among the skips counts as one.
    pub(crate) failed: usize,
    /// Checks that did not run.
    pub(crate) skipped: usize,
}

/// Adds up.
pub(crate) fn totals(tiers: &[Tier], comparison: &Comparison, strict: bool) -> Totals {
    let surprises = comparison.unexpected.len() + comparison.missing.len();
    let failed: usize = tiers.iter().map(|tier| tier.counts.failures.len()).sum();
    Totals {
        passed: tiers.iter().map(|tier| tier.counts.passed).sum(),
        failed: failed + if strict { surprises } else { 0 },
        skipped: tiers.iter().map(|tier| tier.counts.skips.len()).sum(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tier::{Counts, Failure, Skip};
    use super::*;

    fn run() -> Vec<Tier> {
        let failures = vec![Failure {
            name: "listen".into(),
            why: "one\ntwo\x1b".into(),
        }];
        let skips = vec![Skip {
            name: "sctp".into(),
            reason: "no".into(),
        }];
        let counts = Counts {
            passed: 3,
            failures,
            skips,
        };
        vec![
            Tier {
                name: "format".into(),
                elapsed: Duration::from_millis(800),
                counts: Counts::one_passed(),
            },
            Tier {
                name: "vm/6.1/kprobe".into(),
                elapsed: Duration::from_secs(31),
                counts,
            },
        ]
    }

    #[test]
    fn the_last_line_is_the_totals_alone() {
        let text = render(&run(), &Comparison::default(), false);
        assert_eq!(text.lines().last(), Some("4 passed, 1 failed, 1 skipped"));
        assert!(text.contains("FAILED vm/6.1/kprobe listen: one\n    two\u{fffd}\n"));
        assert!(text.contains("\nskip: vm/6.1/kprobe sctp: no\n"));
        let unexpected = vec!["vm/6.1/kprobe sctp: no".into()];
        let comparison = Comparison {
            unexpected,
            missing: Vec::new(),
        };
        let text = render(&run(), &comparison, true);
        assert!(text.contains("skip (not in tests/expected-skips.txt): vm/6.1/kprobe sctp: no\n"));
    }

    #[test]
    fn surprising_skips_fail_only_where_it_is_strict() {
        let comparison = Comparison {
            unexpected: vec!["a b: c".into()],
            missing: vec!["d e: f".into()],
        };
        assert_eq!(totals(&run(), &comparison, false).failed, 1);
        assert_eq!(totals(&run(), &comparison, true).failed, 3);
    }
}
