//! The skips that are known and accepted: `tests/expected-skips.txt`.
//!
//! A line is `TIER NAME: REASON`. In TIER and NAME a `*` between slashes stands for any word
//! (`vm/*/kprobe`), and NAME may be `*`; REASON is how the reason given must begin. Empty lines and
//! lines that begin with `#` are comments.

use super::tier::{Skip, Tier};

/// A line of the file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Expected {
    tier: String,
    name: String,
    reason: String,
}

/// Reads the file.
///
/// # Errors
/// The first line that is none of these.
pub(crate) fn parse(text: &str) -> Result<Vec<Expected>, String> {
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| parse_line(line).ok_or_else(|| format!("expected `TIER NAME: REASON`: {line}")))
        .collect()
}

fn parse_line(line: &str) -> Option<Expected> {
    let (tier, rest) = line.split_once(' ')?;
    // Rust paths have `::`; the name ends at a colon with a space after it.
    let (name, reason) = rest.split_once(": ")?;
    Some(Expected {
        tier: tier.into(),
        name: name.trim().into(),
        reason: reason.trim().into(),
    })
}

impl Expected {
    fn covers(&self, tier: &Tier) -> bool {
        fits(&self.tier, &tier.name)
    }

    fn matches(&self, tier: &Tier, skip: &Skip) -> bool {
        self.covers(tier) && fits(&self.name, &skip.name) && skip.reason.starts_with(&self.reason)
    }
}

fn fits(pattern: &str, name: &str) -> bool {
    let mut words = name.split('/');
    let all = pattern
        .split('/')
        .all(|part| words.next().is_some_and(|word| part == "*" || part == word));
    all && words.next().is_none()
}

/// How what was skipped compares with what was expected.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Comparison {
    /// Skips that no line allows, as `TIER NAME: REASON`.
    pub(crate) unexpected: Vec<String>,
    /// Lines whose tiers ran without such a skip.
    pub(crate) missing: Vec<String>,
}

/// Compares. With a filter (`complete` false) absent skips mean nothing.
pub(crate) fn compare(tiers: &[Tier], expected: &[Expected], complete: bool) -> Comparison {
    let all = || {
        tiers
            .iter()
            .flat_map(|tier| tier.counts.skips.iter().map(move |skip| (tier, skip)))
    };
    let unexpected = all()
        .filter(|(tier, skip)| !expected.iter().any(|line| line.matches(tier, skip)))
        .map(|(tier, skip)| format!("{} {}: {}", tier.name, skip.name, skip.reason))
        .collect();
    let missing = expected
        .iter()
        .filter(|line| complete && tiers.iter().any(|tier| line.covers(tier)))
        .filter(|line| !all().any(|(tier, skip)| line.matches(tier, skip)))
        .map(|line| format!("{} {}: {}", line.tier, line.name, line.reason))
        .collect();
    Comparison {
        unexpected,
        missing,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use std::time::Duration;

    use super::super::tier::Counts;
    use super::*;

    fn tier(name: &str, skips: &[(&str, &str)]) -> Tier {
        let skips = skips
            .iter()
            .map(|(name, reason)| Skip {
                name: (*name).into(),
                reason: (*reason).into(),
            })
            .collect();
        Tier {
            name: name.into(),
            elapsed: Duration::ZERO,
            counts: Counts {
                skips,
                ..Counts::default()
            },
        }
    }

    #[test]
    fn a_listed_skip_is_expected_when_its_reason_begins_so() {
        let expected = parse("# known\n\nvm/5.10/tracing sctp_bind: no module BTF\n").unwrap();
        let good = tier("vm/5.10/tracing", &[("sctp_bind", "no module BTF on 5.10")]);
        assert_eq!(compare(&[good], &expected, true), Comparison::default());
        let other = tier("vm/5.10/tracing", &[("sctp_bind", "socket() failed")]);
        let comparison = compare(&[other], &expected, true);
        assert_eq!(
            comparison.unexpected,
            ["vm/5.10/tracing sctp_bind: socket() failed"]
        );
        assert_eq!(
            comparison.missing,
            ["vm/5.10/tracing sctp_bind: no module BTF"]
        );
    }

    #[test]
    fn a_star_is_one_word() {
        let expected = parse("vm/*/kprobe *: nothing").unwrap();
        let kprobe = tier("vm/6.1/kprobe", &[("a", "nothing here")]);
        assert_eq!(compare(&[kprobe], &expected, true), Comparison::default());
        assert!(!fits("vm/*", "vm/6.1/kprobe"));
        assert!(!fits("vm/*/kprobe", "vm/kprobe"));
    }

    #[test]
    fn a_skip_is_missing_only_if_its_tier_ran_in_full() {
        let expected = parse("host/raw_tp io_uring: not there").unwrap();
        assert_eq!(
            compare(&[tier("unit", &[])], &expected, true),
            Comparison::default()
        );
        assert_eq!(
            compare(&[tier("host/raw_tp", &[])], &expected, false),
            Comparison::default()
        );
        assert_eq!(
            compare(&[tier("host/raw_tp", &[])], &expected, true)
                .missing
                .len(),
            1
        );
    }

    #[test]
    fn names_may_be_rust_paths() {
        let expected = parse("unit host::tests::lockdown: securityfs").unwrap();
        assert_eq!(
            expected.first().map(|line| line.name.as_str()),
            Some("host::tests::lockdown")
        );
        assert!(parse("unit").is_err());
        assert!(parse("unit name without reason").is_err());
    }
}
