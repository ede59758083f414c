//! What `cargo test -- --show-output` prints, for all test executables one after the other.

use super::tier::{Counts, Failure, Skip};

/// Where in the output of one executable we are.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum Section {
    #[default]
    Results,
    /// What the tests that passed wrote.
    Successes,
    /// What those that failed wrote.
    Failures,
}

/// The output so far.
#[derive(Debug, Default)]
pub(crate) struct Output {
    counts: Counts,
    section: Section,
    test: String,
    /// Tests of the executable at hand that passed by saying that they cannot run.
    excused: u32,
}

impl Output {
    /// Takes in one line. Returns whether a person should see it.
    pub(crate) fn line(&mut self, line: &str) -> bool {
        match line {
            "successes:" => self.section = Section::Successes,
            "failures:" => self.section = Section::Failures,
            _ if line.starts_with("test result: ") => {
                self.section = Section::Results;
                self.counts.passed += field(line, " passed")
                    .unwrap_or(0)
                    .saturating_sub(self.excused);
                self.excused = 0;
                return true;
            }
            _ => return self.inside(line),
        }
        self.section != Section::Successes
    }

    fn inside(&mut self, line: &str) -> bool {
        if let Some(test) = line
            .strip_prefix("---- ")
            .and_then(|rest| rest.strip_suffix(" stdout ----"))
        {
            self.test = test.to_string();
        }
        match self.section {
            Section::Failures => true,
            Section::Successes => {
                let skipped = self.counts.skips.last().map(|skip| skip.name.as_str());
                if let Some(reason) = line.strip_prefix("skip: ")
                    && skipped != Some(&self.test)
                {
                    self.counts.skips.push(Skip {
                        name: self.test.clone(),
                        reason: reason.to_string(),
                    });
                    self.excused += 1;
                }
                false
            }
            Section::Results => {
                let Some((name, result)) = line
                    .strip_prefix("test ")
                    .and_then(|rest| rest.rsplit_once(" ... "))
                else {
                    return true;
                };
                if result == "FAILED" {
                    self.counts.failures.push(Failure {
                        name: name.to_string(),
                        why: "see its output above".into(),
                    });
                } else if let Some(why) = result.strip_prefix("ignored") {
                    let reason = why.trim_start_matches([',', ' ']);
                    let reason = if reason.is_empty() { "ignored" } else { reason };
                    self.counts.skips.push(Skip {
                        name: name.to_string(),
                        reason: reason.to_string(),
                    });
                }
                result != "ok"
            }
        }
    }

    /// The counts, once cargo has ended. A failure that no test accounts for (it does not compile, a
    /// test killed its process) is one more.
    pub(crate) fn finish(self, success: bool) -> Counts {
        let mut counts = self.counts;
        if !success && counts.failures.is_empty() {
            counts.failures.push(Failure {
                name: "cargo test".into(),
                why: "failed; its output above says why".into(),
            });
        }
        counts
    }
}

/// The number before `noun` in `test result: ok. 3 passed; 0 failed; …`.
fn field(line: &str, noun: &str) -> Option<u32> {
    let (before, _) = line.split_once(noun)?;
    before.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
running 4 tests
test decode::short ... ok
test host::lockdown ... ok
test slow ... ignored, takes an hour
test wrong ... FAILED

successes:

---- host::lockdown stdout ----
skip: securityfs is not mounted
skip: said twice

successes:
    decode::short
    host::lockdown

failures:

---- wrong stdout ----
thread panicked

failures:
    wrong

test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s

running 1 test
test other ... ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

    #[test]
    fn every_executable_is_counted() {
        let mut output = Output::default();
        for line in OUTPUT.lines() {
            output.line(line);
        }
        let counts = output.finish(false);
        assert_eq!(counts.passed, 2);
        assert_eq!(
            counts
                .failures
                .iter()
                .map(|f| f.name.as_str())
                .collect::<Vec<_>>(),
            ["wrong"]
        );
        let skips: Vec<_> = counts
            .skips
            .iter()
            .map(|skip| (skip.name.as_str(), skip.reason.as_str()))
            .collect();
        assert_eq!(
            skips,
            [
                ("slow", "takes an hour"),
                ("host::lockdown", "securityfs is not mounted")
            ]
        );
    }

    #[test]
    fn what_failed_is_shown_and_what_passed_is_not() {
        let mut output = Output::default();
        let shown: Vec<&str> = OUTPUT.lines().filter(|line| output.line(line)).collect();
        assert!(shown.contains(&"thread panicked"));
        assert!(!shown.contains(&"skip: securityfs is not mounted"));
        assert!(!shown.contains(&"test other ... ok"));
    }

    #[test]
    fn a_build_that_fails_is_a_failure() {
        assert_eq!(Output::default().finish(false).failures.len(), 1);
        assert_eq!(Output::default().finish(true), Counts::default());
    }
}
