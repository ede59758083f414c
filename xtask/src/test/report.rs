//! The end of a test run: a table, what was skipped, and the totals as the very last line.

use std::fmt::Write as _;

use super::skips::Comparison;
use super::tier::{Counts, Failure, Tier, printable};
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
    for (label, tier, failure) in bad(tiers) {
        let why: Vec<String> = failure.why.lines().map(printable).collect();
        tell(&mut text, label, tier, &failure.name, &why.join("\n    "));
    }
    // Whoever has only the end of a long output sees each of them.
    if bad(tiers).any(|(_, _, failure)| is_long(&failure.why)) {
        line(&mut text, format_args!("\nThese again, in a line each:"));
        for (label, tier, failure) in bad(tiers) {
            tell(
                &mut text,
                label,
                tier,
                &failure.name,
                &shortened(&failure.why),
            );
        }
    }
    if is_too_unsteady(tiers) {
        line(
            &mut text,
            format_args!(
                "FAILED: more than one in {STEADY} passed only when it ran once more, so all of these count as failed"
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

fn tell(text: &mut String, label: &str, tier: &Tier, name: &str, why: &str) {
    line(text, format_args!("{label} {} {name}: {why}", tier.name));
}

/// What a check is called that failed, and passed when it ran once more.
const UNSTEADY: &str = "unsteady (failed once, then passed)";

/// Of so many checks that passed one may be unsteady.
const STEADY: u32 = 1000;

fn is_too_unsteady(tiers: &[Tier]) -> bool {
    let passed: u32 = tiers.iter().map(|tier| tier.counts.passed).sum();
    unsteady(tiers) > (passed / STEADY) as usize
}

fn unsteady(tiers: &[Tier]) -> usize {
    tiers.iter().map(|tier| tier.counts.unsteady.len()).sum()
}

/// What failed, and what did once: what it is called, where, and how.
fn bad(tiers: &[Tier]) -> impl Iterator<Item = (&'static str, &Tier, &Failure)> {
    tiers.iter().flat_map(|tier| {
        let Counts {
            failures, unsteady, ..
        } = &tier.counts;
        let failures = failures.iter().map(move |one| ("FAILED", tier, one));
        let unsteady = unsteady.iter().map(move |one| (UNSTEADY, tier, one));
        unsteady.chain(failures)
    })
}

/// Characters of a failure that still are a line.
const SHORT: usize = 300;

fn is_long(why: &str) -> bool {
    why.lines().count() > 1 || why.len() > SHORT
}

/// The beginning of its first line.
fn shortened(why: &str) -> String {
    let first = printable(why.lines().next().unwrap_or_default());
    let mut shown: String = first.chars().take(SHORT).collect();
    if is_long(why) {
        shown.push_str(" …");
    }
    shown
}

fn line(text: &mut String, content: std::fmt::Arguments) {
    // Writing to a String cannot fail.
    let _infallible = writeln!(text, "{content}");
}

/// The numbers of the last line.
#[derive(Debug, PartialEq)]
pub(crate) struct Totals {
    /// Checks that passed; those that did only when they ran once more are among them unless they are many.
    pub(crate) passed: u32,
    /// Checks that failed, and if they are many those that passed only when they ran once more; with `strict`
    /// every surprise among the skips counts as one.
    pub(crate) failed: usize,
    /// Checks that did not run.
    pub(crate) skipped: usize,
}

/// Adds up.
pub(crate) fn totals(tiers: &[Tier], comparison: &Comparison, strict: bool) -> Totals {
    let surprises = comparison.unexpected.len() + comparison.missing.len();
    let failed: usize = tiers.iter().map(|tier| tier.counts.failures.len()).sum();
    let passed: u32 = tiers.iter().map(|tier| tier.counts.passed).sum();
    let too_unsteady = if is_too_unsteady(tiers) {
        unsteady(tiers)
    } else {
        0
    };
    Totals {
        passed: passed.saturating_sub(too_unsteady as u32),
        failed: failed + too_unsteady + if strict { surprises } else { 0 },
        skipped: tiers.iter().map(|tier| tier.counts.skips.len()).sum(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tier::Skip;
    use super::*;

    fn run() -> Vec<Tier> {
        let failures = vec![Failure {
            name: "listen".into(),
            why: "one\x1b\ntwo".into(),
        }];
        let skips = vec![Skip {
            name: "sctp".into(),
            reason: "no".into(),
        }];
        let counts = Counts {
            passed: 3,
            failures,
            skips,
            ..Counts::default()
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
        assert!(text.contains("FAILED vm/6.1/kprobe listen: one\u{fffd}\n    two\n"));
        assert!(text.contains("\nFAILED vm/6.1/kprobe listen: one\u{fffd} …\n"));
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

    #[test]
    fn a_few_may_be_unsteady() {
        let of = |passed, unsteady| {
            let counts = Counts {
                passed,
                unsteady: vec![
                    Failure {
                        name: "late".into(),
                        why: "no line".into()
                    };
                    unsteady
                ],
                ..Counts::default()
            };
            let tiers = [Tier {
                name: "vm/6.1/kprobe".into(),
                elapsed: Duration::from_secs(31),
                counts,
            }];
            let comparison = Comparison::default();
            let totals = totals(&tiers, &comparison, true);
            assert_eq!(totals.passed + totals.failed as u32, passed);
            (totals.failed, render(&tiers, &comparison, true))
        };
        let (failed, text) = of(5000, 5);
        assert_eq!(failed, 0);
        assert!(
            text.contains("\nunsteady (failed once, then passed) vm/6.1/kprobe late: no line\n")
        );
        assert_eq!(of(5000, 6).0, 6);
        assert_eq!(of(999, 1).0, 1);
        assert!(of(999, 1).1.contains("\nFAILED: more than one in 1000 "));
    }
}
