//! From a refused bind() to the line that names the holder, beside its limit.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::figures::Figures;
use super::guest::{Clock, Guest};
use crate::exec::output;
use crate::privilege;
use crate::say::say;

/// At most this from the failure to the line, ms: with 20,000 sockets in 100 processes.
const LIMIT: f64 = 50.0;

/// What is measured in one place.
struct Place {
    name: String,
    figures: Figures,
}

/// In the guest, and here where we are root: a section of `docs/cost.md`.
///
/// # Errors
/// Something does not come to its end.
pub(super) fn measure(guest: &Guest<'_>, backends: &[String]) -> Result<String> {
    let args = |portwatch: &str, backends: &[String]| {
        let mut args: Vec<String> = ["cost", "naming", "--portwatch", portwatch]
            .map(String::from)
            .to_vec();
        for backend in backends {
            args.extend(["--attach".to_string(), backend.clone()]);
        }
        args
    };
    let mut places = Vec::new();
    if privilege::is_root() {
        let portwatch = guest
            .programs
            .iter()
            .find(|(inside, _)| inside == "/bin/portwatch")
            .map(|(_, file)| file.display().to_string())
            .context("no portwatch")?;
        let here = output(
            Command::new(guest.tests)
                .args(["backends", "--portwatch"])
                .arg(&portwatch),
        )?;
        let here: Vec<String> = here.lines().map(String::from).collect();
        let text = output(Command::new(guest.tests).args(args(&portwatch, &here)))?;
        let release = read("/proc/sys/kernel/osrelease");
        let load = read("/proc/loadavg");
        let load = load.split(' ').next().unwrap_or_default();
        places.push(Place {
            name: format!("this machine, kernel {release}, load average {load}"),
            figures: figures(text.lines()),
        });
    } else {
        say("not root: not measured on this machine");
    }
    let mut lines = Vec::new();
    guest.run(Clock::Wall, args("/bin/portwatch", backends), |line| {
        say(format_args!("  {}", line.replace('\t', " ")));
        lines.push(line.to_string());
    })?;
    places.push(Place {
        name: format!("guest, kernel {}", guest.kernel.release),
        figures: figures(lines.iter().map(String::as_str)),
    });
    Ok(table(&places))
}

fn read(path: impl AsRef<Path>) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.trim().to_string()
}

fn figures<'a>(lines: impl Iterator<Item = &'a str>) -> Figures {
    let mut figures = Figures::default();
    for line in lines {
        if !figures.line(line) {
            figures.failures.push(format!("not understood: {line}"));
        }
    }
    figures
}

fn table(places: &[Place]) -> String {
    let mut text = format!(
        "From the refused bind() to its line in a pipe, with the holder's name; 20,000 listeners in 100 processes, of which a half was there before the trace. At most {LIMIT} ms.\n\n\
         | where | backend and output | holder | median, ms | p99 | worst of 200 | a sleeper woken late by | not named | verdict |\n|---|---|---|---:|---:|---:|---:|---:|---|\n"
    );
    for Place { name, figures } in places {
        let who: BTreeSet<&str> = figures.contenders().collect();
        for who in who {
            for age in ["older", "newer"] {
                let value = |what: &str| figures.number(who, &format!("naming-{age}-{what}"));
                let time = |what: &str| value(&format!("{what}-us")).map(|time| time / 1000.0);
                let (Some(median), Some(p99), Some(worst), Some(late), Some(unnamed)) = (
                    time("median"),
                    time("p99"),
                    time("worst"),
                    time("late"),
                    value("unnamed"),
                ) else {
                    continue;
                };
                let verdict = if unnamed > 0.0 || worst > LIMIT + late {
                    "**exceeded**"
                } else if worst > LIMIT {
                    "unclear: the machine was late"
                } else {
                    "met"
                };
                let _ = writeln!(
                    text,
                    "| {name} | {who} | {age} than the trace | {median:.1} | {p99:.1} | {worst:.1} | {late:.1} | {unnamed:.0} | {verdict} |"
                );
            }
        }
        for failure in &figures.failures {
            let _ = writeln!(text, "\nNot measured on {name}: {failure}\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_late_or_unnamed_is_told() {
        let lines = |worst: u32, unnamed: u32| {
            format!(
                "value\traw_tp text\tnaming-older-median-us\t6400\n\
                 value\traw_tp text\tnaming-older-p99-us\t9000\n\
                 value\traw_tp text\tnaming-older-worst-us\t{worst}\n\
                 value\traw_tp text\tnaming-older-late-us\t3000\n\
                 value\traw_tp text\tnaming-older-unnamed\t{unnamed}"
            )
        };
        for (worst, unnamed, verdict) in [
            (50_000, 0, "| met |"),
            (52_999, 0, "| unclear: the machine was late |"),
            (53_001, 0, "| **exceeded** |"),
            (9_000, 1, "| **exceeded** |"),
        ] {
            let place = Place {
                name: "here".into(),
                figures: figures(lines(worst, unnamed).lines()),
            };
            let text = table(&[place]);
            assert!(text.contains(verdict), "{text}");
            assert!(text.contains("| here | raw_tp text | older than the trace | 6.4 | 9.0 |"));
        }
    }
}
