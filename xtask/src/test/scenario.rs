//! What the scenario runner (`portwatch-tests run`) prints, and the comparison of the rules of sharing
//! a port with the kernel (`portwatch-tests rules`):
//!
//! ```text
//! ok NAME (123 ms)
//! FAILED NAME: one line why
//!     more lines, indented
//! again NAME: one line why it failed; it runs once more, and what becomes of it then follows
//!     more lines, indented
//! skip: NAME: REASON
//! note: what a person should know
//! N passed, N failed, N skipped
//! ```

use super::tier::{Counts, Failure, Skip, printable};
use crate::vm::console::End;

/// The runner's output so far.
#[derive(Debug, Default)]
pub(crate) struct Output {
    counts: Counts,
    totals: Option<String>,
    /// How one failed that runs once more.
    again: Option<Failure>,
    /// What the details that may follow belong to.
    last: Option<Label>,
}

/// The beginning of a line that details may follow.
#[derive(Debug, Clone, Copy)]
enum Label {
    Failed,
    Again,
}

impl Label {
    fn of(line: &str) -> Option<(Label, &str)> {
        let is = |label, word| line.strip_prefix(word).map(|rest| (label, rest));
        is(Label::Failed, "FAILED ").or_else(|| is(Label::Again, "again "))
    }
}

impl Output {
    /// Takes in one line. Returns it if a person should see it at once.
    pub(crate) fn line(&mut self, line: &str) -> Option<String> {
        let line = printable(line);
        let last = std::mem::take(&mut self.last);
        if line.starts_with([' ', '\t']) {
            let failure = match last? {
                Label::Failed => self.counts.failures.last_mut()?,
                Label::Again => self.again.as_mut()?,
            };
            failure.why.push('\n');
            failure.why.push_str(&line);
            self.last = last;
            return Some(line);
        }
        if line.starts_with("ok ") {
            self.counts.passed += 1;
            self.counts.unsteady.extend(self.again.take());
        } else if let Some((label, rest)) = Label::of(&line) {
            let (name, why) = rest.split_once(": ").unwrap_or((rest, "no reason given"));
            let failure = Failure {
                name: name.into(),
                why: why.into(),
            };
            self.again = match label {
                Label::Failed => {
                    self.counts.failures.push(failure);
                    None
                }
                Label::Again => Some(failure),
            };
            self.last = Some(label);
            return Some(line);
        } else if let Some(rest) = line.strip_prefix("skip: ") {
            let (name, reason) = rest.split_once(": ").unwrap_or((rest, "no reason given"));
            self.counts.skips.push(Skip {
                name: name.into(),
                reason: reason.into(),
            });
        } else if line.starts_with("note: ") {
            return Some(line);
        } else if line.contains(" passed, ") && line.ends_with(" skipped") {
            self.totals = Some(line);
        }
        None
    }

    /// The counts, once the runner has ended. A runner that broke off, or whose totals or exit
    /// status do not fit what it printed, is a failure more.
    pub(crate) fn finish(self, end: &End) -> Counts {
        let Output {
            mut counts,
            totals,
            again,
            last: _,
        } = self;
        let (failed, skipped) = (counts.failures.len(), counts.skips.len());
        let counted = format!(
            "{} passed, {failed} failed, {skipped} skipped",
            counts.passed
        );
        let expected = End::Exit(i32::from(failed > 0));
        let wrong = match (end, totals) {
            (End::Other(how), _) => Some(format!("ended by {how}")),
            (End::Exit(code), None) => {
                Some(format!("ended with exit code {code} before its totals"))
            }
            (_, Some(totals)) if totals != counted => {
                Some(format!("says {totals:?}, but printed {counted}"))
            }
            (End::Exit(code), _) if *end != expected => {
                Some(format!("exit code {code} with {failed} failed"))
            }
            _ => None,
        };
        // It did not come to run once more, or not to the end of that.
        counts.failures.extend(again);
        if let Some(why) = wrong {
            counts.failures.push(Failure {
                name: "runner".into(),
                why,
            });
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(lines: &[&str], end: End) -> Counts {
        let mut output = Output::default();
        for line in lines {
            output.line(line);
        }
        output.finish(&end)
    }

    #[test]
    fn every_kind_of_line_is_counted() {
        let counts = after(
            &[
                "ok bind_v4 (12 ms)",
                "FAILED listen_backlog: backlog 0, expected 128",
                "    {\"event\":…}",
                "skip: sctp_bind: no module BTF: 5.10",
                "1 passed, 1 failed, 1 skipped",
            ],
            End::Exit(1),
        );
        let failure = Failure {
            name: "listen_backlog".into(),
            why: "backlog 0, expected 128\n    {\"event\":…}".into(),
        };
        let skip = Skip {
            name: "sctp_bind".into(),
            reason: "no module BTF: 5.10".into(),
        };
        assert_eq!(
            counts,
            Counts {
                passed: 1,
                failures: vec![failure],
                skips: vec![skip],
                ..Counts::default()
            }
        );
    }

    #[test]
    fn what_fails_once_is_unsteady_and_what_fails_twice_fails() {
        let counts = after(
            &[
                "again a: late",
                "    {}",
                "ok a (1 ms)",
                "again b: missing",
                "    {}",
                "FAILED b: still missing",
                "again c: gone",
            ],
            End::Other("timeout".into()),
        );
        let failure = |name: &str, why: &str| Failure {
            name: name.into(),
            why: why.into(),
        };
        assert_eq!(counts.passed, 1);
        let failures = [
            failure("b", "still missing"),
            failure("c", "gone"),
            failure("runner", "ended by timeout"),
        ];
        assert_eq!(counts.failures, failures);
        assert_eq!(counts.unsteady, [failure("a", "late\n    {}")]);
    }

    #[test]
    fn notes_are_for_people() {
        let mut output = Output::default();
        let note = "note: 5000 random cases, seed 1";
        assert_eq!(output.line(note).as_deref(), Some(note));
        assert_eq!(output.line("ok a (1 ms)"), None);
        assert_eq!(output.counts, Counts::one_passed());
    }

    #[test]
    fn a_runner_that_breaks_off_fails() {
        let counts = after(&["ok a (1 ms)"], End::Exit(0));
        assert_eq!(
            counts.failures.first().map(|f| f.why.as_str()),
            Some("ended with exit code 0 before its totals")
        );
        let counts = after(&["ok a (1 ms)"], End::Other("timeout".into()));
        assert_eq!(
            counts.failures.first().map(|f| f.why.as_str()),
            Some("ended by timeout")
        );
    }

    #[test]
    fn totals_and_status_must_fit() {
        assert_eq!(
            after(
                &["ok a (1 ms)", "2 passed, 0 failed, 0 skipped"],
                End::Exit(0)
            )
            .failures
            .len(),
            1
        );
        assert_eq!(
            after(
                &["ok a (1 ms)", "1 passed, 0 failed, 0 skipped"],
                End::Exit(1)
            )
            .failures
            .len(),
            1
        );
        assert_eq!(
            after(
                &["ok a (1 ms)", "1 passed, 0 failed, 0 skipped"],
                End::Exit(0)
            )
            .failures
            .len(),
            0
        );
    }

    #[test]
    fn failures_are_shown_as_they_come() {
        let mut output = Output::default();
        assert_eq!(output.line("ok a (1 ms)"), None);
        assert_eq!(
            output.line("FAILED b: why").as_deref(),
            Some("FAILED b: why")
        );
        assert_eq!(output.line("  detail").as_deref(), Some("  detail"));
        assert_eq!(output.line("skip: c: no"), None);
        assert_eq!(output.line("  nobody's detail"), None);
    }
}
