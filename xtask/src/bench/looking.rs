//! How long a look at 20,000 sockets takes, beside ss on the same ones: natively, without the iterator over
//! descriptors, and in the guest, with it.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::figures::Figures;
use super::guest::{Clock, Guest};
use super::report;
use crate::exec::output;
use crate::privilege;
use crate::say::say;
use crate::vm::neighbours::Neighbours;

/// What the section is about.
pub(super) const WHAT: &str = "A look at 20,000 listeners in 100 processes, output into a pipe, medians of 11 \
     runs that take turns; the share is of the time that ss takes on the same machine.";

/// A look of ours, the one it is compared with, and the share of its time that it may take: natively, and by
/// iterator.
struct Pair {
    label: &'static str,
    own: &'static str,
    peer: &'static str,
    /// What is typed behind ss.
    peer_args: &'static str,
    limits: [f64; 2],
}

const PAIRS: [Pair; 2] = [
    Pair {
        label: "portwatch list",
        own: "list -tulnp",
        peer: "ss -tulnp",
        peer_args: "-tulnp",
        limits: [0.8, 0.4],
    },
    Pair {
        label: "portwatch who PORT",
        own: "who -n {port}",
        peer: "ss -Htulnp sport PORT",
        peer_args: "-Htulnp ( sport = :{port} )",
        limits: [0.5, 0.3],
    },
];

/// What was measured at one place.
pub(super) struct Place {
    name: String,
    /// Which of the limits hold there.
    limit: usize,
    figures: Figures,
}

impl Place {
    /// On this machine, as where the iterator may not be loaded.
    ///
    /// # Errors
    /// It cannot be measured.
    pub(super) fn native(tests: &Path, portwatch: &Path, neighbours: &Neighbours) -> Result<Place> {
        let mut command = privilege::as_root(tests)?;
        // Once for all runs: it takes longer than they do.
        command.args(["helper", "without-iterator"]).arg(tests);
        command.args(args(
            &portwatch.display().to_string(),
            &neighbours.command("ss")?,
        ));
        let mut figures = Figures::default();
        for line in output(&mut command)?.lines() {
            take(&mut figures, line);
        }
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split(' ').next().unwrap_or_default();
        Ok(Place {
            name: format!("natively, {}, load average {load}", release.trim()),
            limit: 0,
            figures,
        })
    }

    /// In the guest.
    ///
    /// # Errors
    /// The guest does not come to its end.
    pub(super) fn guest(guest: &Guest<'_>) -> Result<Place> {
        let mut figures = Figures::default();
        guest.run(
            Clock::Wall,
            args("/bin/portwatch", &Neighbours::guest_command("ss")),
            |line| {
                take(&mut figures, line);
            },
        )?;
        Ok(Place {
            name: format!("emulated, {}", guest.kernel.release),
            limit: 1,
            figures,
        })
    }
}

fn take(figures: &mut Figures, line: &str) {
    say(format_args!("  {}", line.replace('\t', " ")));
    if !figures.line(line) {
        figures.failures.push(format!("not understood: {line}"));
    }
}

/// The driver's command line, with the portwatch and the ss that are to be started.
fn args(portwatch: &str, ss: &str) -> Vec<String> {
    let mut args = ["cost", "looking"].map(String::from).to_vec();
    for pair in &PAIRS {
        for contender in [
            format!("{}={portwatch} {}", pair.label, pair.own),
            format!("{}={ss} {}", pair.peer, pair.peer_args),
        ] {
            args.extend(["--contender".to_string(), contender]);
        }
    }
    args
}

/// The table, in Markdown, and what is above its limit.
///
/// # Errors
/// A figure is missing.
pub(super) fn table(places: &[Place]) -> Result<(String, Vec<String>)> {
    let mut text = String::from(
        "| where | look | ms | beside | ms | share | at most | verdict |\n|---|---|---:|---|---:|---:|---:|---|\n",
    );
    let mut above = Vec::new();
    for Place {
        name,
        limit,
        figures,
    } in places
    {
        if let Some(failure) = figures.failures.first() {
            bail!("{name}: {failure}");
        }
        for pair in &PAIRS {
            let time = |label: &str| {
                let time = figures.number(label, "look-median-us");
                Ok::<f64, anyhow::Error>(
                    time.with_context(|| format!("{name}: no time of {label}"))? / 1000.0,
                )
            };
            let (own, other) = (time(pair.label)?, time(pair.peer)?);
            let (share, most) = (own / other, pair.limits[*limit]);
            let verdict = if share > most {
                above.push(format!("{name}: {}: {share:.2} of ss", pair.label));
                "**exceeded**"
            } else {
                "met"
            };
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "| {name} | {} | {} | {} | {} | {share:.2} | {most} | {verdict} |",
                pair.label,
                report::number(own),
                pair.peer,
                report::number(other),
            );
        }
    }
    Ok((text, above))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]

    use super::*;

    #[test]
    fn the_share_decides_by_the_limit_of_the_place() {
        let place = |limit| {
            let mut figures = Figures::default();
            for (label, time) in [
                ("portwatch list", 50_000),
                ("ss -tulnp", 100_000),
                ("portwatch who PORT", 10_000),
                ("ss -Htulnp sport PORT", 100_000),
            ] {
                take(
                    &mut figures,
                    &format!("value\t{label}\tlook-median-us\t{time}"),
                );
            }
            Place {
                name: "here".into(),
                limit,
                figures,
            }
        };
        let (text, above) = table(&[place(0)]).unwrap();
        assert!(
            above.is_empty() && text.contains("| 0.50 | 0.8 | met |"),
            "{text}"
        );
        let (text, above) = table(&[place(1)]).unwrap();
        assert_eq!(above, ["here: portwatch list: 0.50 of ss"]);
        assert!(text.contains("| 0.50 | 0.4 | **exceeded** |"), "{text}");
        assert!(text.contains("| 0.10 | 0.3 | met |"), "{text}");
        let nothing = Place {
            figures: Figures::default(),
            ..place(0)
        };
        assert!(table(&[nothing]).is_err());
    }
}
