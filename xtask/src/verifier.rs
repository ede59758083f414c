//! How much work the kernel's verifier has with each program, compared with what is on record.
//!
//! A program that grows towards the verifier's limit fails on somebody's kernel one day; here it
//! fails on the day it grows. The record is `tests/verifier.tsv`.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};

use crate::workspace;

/// What a program may grow by before somebody has to look at it, in percent.
const GROWTH: u64 = 20;

const HEAD: &str = "\
# Instructions that the verifier walked for each program; `cargo xtask test --vm` fails where one
# grows by more than 20 % or is not listed. Written by `cargo xtask bench --verifier`. Kernels before
# 5.16 do not tell.
# kernel\tbackend\tprogram\tinstructions
";

/// Backend and program.
type Key = (String, String);

/// Of one kernel.
pub(crate) type Counts = BTreeMap<Key, u64>;

/// Of all kernels, by tag.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Record(BTreeMap<String, Counts>);

/// Takes in a line of the guest: `BACKEND PROGRAM COUNT`, tabs between. False if it is none.
pub(crate) fn take(counts: &mut Counts, line: &str) -> bool {
    let fields: Vec<&str> = line.split('\t').collect();
    if let [backend, program, count] = fields.as_slice()
        && let Ok(count) = count.parse()
    {
        counts.insert(((*backend).to_string(), (*program).to_string()), count);
        return true;
    }
    false
}

/// The guest's command line.
pub(crate) fn argv(backends: &[String]) -> Vec<String> {
    let mut argv = ["/bin/portwatch-tests", "cost", "verifier"]
        .map(String::from)
        .to_vec();
    argv.extend(["--portwatch", "/bin/portwatch"].map(String::from));
    for backend in backends {
        argv.extend(["--attach".to_string(), backend.clone()]);
    }
    argv
}

fn path() -> PathBuf {
    workspace::root().join("tests/verifier.tsv")
}

impl Record {
    /// What is on record.
    ///
    /// # Errors
    /// The file cannot be read or understood.
    pub(crate) fn read() -> Result<Record> {
        let path = path();
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Record::parse(&text).map_err(|line| anyhow!("{}: not understood: {line}", path.display()))
    }

    fn parse(text: &str) -> Result<Record, String> {
        let mut record = Record::default();
        for line in text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let (tag, rest) = line.split_once('\t').ok_or(line)?;
            let counts = record.0.entry(tag.to_string()).or_default();
            if !take(counts, rest) {
                return Err(line.to_string());
            }
        }
        Ok(record)
    }

    /// Replaces what is known of one kernel.
    pub(crate) fn replace(&mut self, tag: &str, counts: Counts) {
        self.0.insert(tag.to_string(), counts);
    }

    /// Writes the file.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn write(&self) -> Result<PathBuf> {
        let path = path();
        fs::write(&path, self.render())
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    fn render(&self) -> String {
        let mut text = HEAD.to_string();
        for (tag, counts) in &self.0 {
            for ((backend, program), count) in counts {
                text.push_str(&format!("{tag}\t{backend}\t{program}\t{count}\n"));
            }
        }
        text
    }

    /// What has grown too much on that kernel, or is not on record.
    pub(crate) fn complaints(&self, tag: &str, counts: &Counts) -> Vec<(String, String)> {
        let known = self.0.get(tag);
        counts
            .iter()
            .filter_map(|(key @ (backend, program), now)| {
                let why = match known.and_then(|known| known.get(key)) {
                    None => format!("{now} instructions verified, none on record"),
                    Some(then) if now * 100 > then * (100 + GROWTH) => {
                        format!("{now} instructions verified, {then} on record")
                    }
                    Some(_) => return None,
                };
                let next = "if that is meant: cargo xtask bench --verifier";
                Some((format!("{backend}/{program}"), format!("{why}\n    {next}")))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn counts(lines: &[&str]) -> Counts {
        let mut counts = Counts::new();
        for line in lines {
            assert!(take(&mut counts, line), "{line}");
        }
        counts
    }

    #[test]
    fn growth_above_a_fifth_is_complained_about() {
        let record = Record::parse(
            "# head\n6.1\ttracing\tbind\t1000\n6.1\ttracing\tlisten\t1000\n6.12\ttracing\tnew\t1\n",
        )
        .unwrap();
        let now = counts(&[
            "tracing\tbind\t1200",
            "tracing\tlisten\t1201",
            "tracing\tnew\t1",
        ]);
        let names: Vec<_> = record
            .complaints("6.1", &now)
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, ["tracing/listen", "tracing/new"]);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut record = Record::default();
        record.replace("6.1", counts(&["kprobe\tbind\t7", "tracing\tbind\t9"]));
        record.replace("6.12", counts(&["raw_tp\tsys_exit\t11"]));
        assert_eq!(Record::parse(&record.render()), Ok(record));
        assert!(Record::parse("6.1\ttracing\tbind\n").is_err());
        assert!(!take(&mut Counts::new(), "portwatch-tests: no"));
    }

    #[test]
    fn the_record_can_be_read() {
        assert!(Record::read().unwrap().0.contains_key("6.12"));
    }
}
