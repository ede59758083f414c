//! What the guest's driver reports (`tests/src/cost/drive.rs`), read and put in relation.

use std::collections::BTreeMap;

/// Instructions per operation.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Ops {
    /// The whole machine, until the last line is written.
    pub(crate) total: f64,
    /// The traced process.
    pub(crate) own: f64,
    /// The tracer.
    pub(crate) tracer: f64,
}

/// What a tracer adds to an operation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Added {
    /// To the whole machine.
    pub(crate) total: f64,
    /// To the traced process.
    pub(crate) own: f64,
    /// What the tracer itself ran.
    pub(crate) tracer: f64,
    /// How far apart the two runs without a tracer were: less than that is noise.
    pub(crate) noise: f64,
}

/// All figures of a boot.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    ops: BTreeMap<(String, String), Ops>,
    values: BTreeMap<(String, String), String>,
    /// What could not be measured, and why.
    pub(crate) failures: Vec<String>,
}

impl Figures {
    /// Takes a line in; false if it is none of the driver's.
    pub(crate) fn line(&mut self, line: &str) -> bool {
        let fields: Vec<&str> = line.split('\t').collect();
        match fields.as_slice() {
            ["ops", who, mode, total, own, tracer] => {
                let (Ok(total), Ok(own), Ok(tracer)) = (total.parse(), own.parse(), tracer.parse())
                else {
                    return false;
                };
                let key = ((*who).to_string(), (*mode).to_string());
                self.ops.insert(key, Ops { total, own, tracer });
            }
            ["value", who, name, value] => {
                let key = ((*who).to_string(), (*name).to_string());
                self.values.insert(key, (*value).to_string());
            }
            ["failed", who, why] => self.failures.push(format!("{who}: {why}")),
            _ => return false,
        }
        true
    }

    fn ops(&self, who: &str, mode: &str) -> Option<Ops> {
        self.ops.get(&(who.to_string(), mode.to_string())).copied()
    }

    /// Without a tracer: the mean of before and after.
    pub(crate) fn base(&self, mode: &str) -> Option<Ops> {
        let before = self.ops("-", mode)?;
        let after = self.ops("-again", mode).unwrap_or(before);
        Some(Ops {
            total: f64::midpoint(before.total, after.total),
            own: f64::midpoint(before.own, after.own),
            tracer: 0.0,
        })
    }

    /// What `who` adds.
    pub(crate) fn added(&self, who: &str, mode: &str) -> Option<Added> {
        let (with, base) = (self.ops(who, mode)?, self.base(mode)?);
        let before = self.ops("-", mode)?.total;
        let after = self.ops("-again", mode).map_or(before, |ops| ops.total);
        Some(Added {
            total: with.total - base.total,
            own: with.own - base.own,
            tracer: with.tracer,
            noise: (before - after).abs(),
        })
    }

    /// Whose figures there are, of those that are not about operations; some more than once.
    pub(crate) fn contenders(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(|(who, _)| who.as_str())
    }

    /// A figure that is not about operations.
    pub(crate) fn value(&self, who: &str, name: &str) -> Option<&str> {
        let key = (who.to_string(), name.to_string());
        self.values.get(&key).map(String::as_str)
    }

    /// The same as a number.
    pub(crate) fn number(&self, who: &str, name: &str) -> Option<f64> {
        self.value(who, name)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn added_is_against_the_mean_of_both_runs_without() {
        let mut figures = Figures::default();
        for line in [
            "ops\t-\tbind\t100\t90\t0",
            "ops\ttracing\tbind\t205\t95\t60",
            "ops\t-again\tbind\t110\t92\t0",
            "value\ttracing\trss-kb\t7000",
            "failed\tkprobe\tStart: no",
        ] {
            assert!(figures.line(line), "{line}");
        }
        let added = figures.added("tracing", "bind").unwrap();
        assert_eq!(
            (added.total, added.own, added.tracer, added.noise),
            (100.0, 4.0, 60.0, 10.0)
        );
        assert_eq!(figures.added("tracing", "exec"), None);
        assert_eq!(figures.number("tracing", "rss-kb"), Some(7000.0));
        assert_eq!(figures.failures, ["kprobe: Start: no"]);
        assert!(!figures.line("something else") && !figures.line("ops\t-\tbind\tx\t1\t1"));
    }
}
