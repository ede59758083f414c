//! Starts beside many sockets that are there already: when portwatch is ready, and what it takes to
//! know who has which. Natively, where the limits hold, and in the guest.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::budget::{Row, Source, Verdict};
use super::figures::Figures;
use super::guest::{Clock, Guest};
use super::report;
use crate::exec::output;
use crate::privilege;
use crate::say::say;

/// Sockets: few, to compare with, and many.
const SOCKETS: [&str; 2] = ["100", "100000"];

/// From being attached to the first line with the name of a holder.
const READY: Row = Row {
    what: "ready",
    who: "",
    source: Source::Value("ready-us"),
    limit: Some(2000.0),
    unit: 1e3,
    suffix: " ms",
};

/// At any time, the ring and everything else included.
const PEAK: Row = Row {
    what: "memory at most",
    who: "",
    source: Source::Value("rss-peak-kb"),
    limit: Some(100.0),
    unit: 1e6 / 1024.0,
    suffix: " MB",
};

/// What was measured at one place.
pub(super) struct Place {
    name: String,
    /// Whether the limits hold there.
    limited: bool,
    figures: Figures,
    labels: Vec<String>,
}

impl Place {
    /// On this machine, by the way in that portwatch takes here.
    ///
    /// # Errors
    /// It cannot be measured.
    pub(super) fn native(tests: &Path, portwatch: &Path) -> Result<Place> {
        // By the iterator, if it may be loaded here; and as where it may not.
        let trace = format!("{} trace", portwatch.display());
        let without = format!("{} helper without-iterator {trace}", tests.display());
        let mut command = privilege::as_root(tests)?;
        command.args(args(&[
            format!("auto={trace}"),
            format!("in /proc={without}"),
        ]));
        let text = output(&mut command)?;
        let mut figures = Figures::default();
        for line in text.lines() {
            say(format_args!("  {}", line.replace('\t', " ")));
            if !figures.line(line) {
                bail!("not understood: {line}");
            }
        }
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Ok(Place {
            name: format!("natively, {}", kernel.trim()),
            limited: true,
            figures,
            labels: vec!["auto".into(), "in /proc".into()],
        })
    }

    /// In the guest, by each way in.
    ///
    /// # Errors
    /// The guest does not come to its end.
    pub(super) fn guest(guest: &Guest<'_>, backends: &[String]) -> Result<Place> {
        let contenders: Vec<String> = backends
            .iter()
            .map(|backend| format!("{backend}=/bin/portwatch trace --attach {backend}"))
            .collect();
        Ok(Place {
            name: format!("emulated, {}", guest.kernel.release),
            limited: false,
            figures: guest.drive(Clock::Wall, args(&contenders).split_off(2))?,
            labels: backends.to_vec(),
        })
    }
}

/// The driver's command line.
fn args(contenders: &[String]) -> Vec<String> {
    let mut args = ["cost", "drive", "--phase", "older"]
        .map(String::from)
        .to_vec();
    for sockets in SOCKETS {
        args.extend(["--sockets".to_string(), sockets.to_string()]);
    }
    for contender in contenders {
        args.extend(["--contender".to_string(), contender.clone()]);
    }
    args
}

/// The table, in Markdown, and what is above its limit.
///
/// # Errors
/// A figure is missing.
pub(super) fn table(places: &[Place]) -> Result<(String, Vec<String>)> {
    let mut text = String::from(
        "| where | way in | sockets | ready | memory without the ring | memory at most | verdict | older sockets |\n\
         |---|---|---:|---:|---:|---:|---|---|\n",
    );
    let mut above = Vec::new();
    for Place {
        name,
        limited,
        figures,
        labels,
    } in places
    {
        if let Some(failure) = figures.failures.first() {
            bail!("{name}: {failure}");
        }
        for label in labels {
            for sockets in SOCKETS {
                let figure = |row: &Row| {
                    let Source::Value(value) = row.source else {
                        bail!("{}: not a value", row.what);
                    };
                    let figure = figures.number(label, &format!("{sockets}-{value}"));
                    Ok(figure.with_context(|| format!("{name}, {label}: no {value}"))? / row.unit)
                };
                let (ready, peak) = (figure(&READY)?, figure(&PEAK)?);
                let own = figure(&Row {
                    source: Source::Value("rss-without-ring-kb"),
                    ..PEAK
                })?;
                let mut verdict = "";
                if *limited {
                    verdict = "met";
                    for (row, figure) in [(READY, ready), (PEAK, peak)] {
                        if let Verdict::Exceeded(by) = row.verdict((figure, 0.0)) {
                            verdict = "**exceeded**";
                            above.push(format!(
                                "{name}, {sockets} sockets: {}: {}{} too much",
                                row.what,
                                report::number(by),
                                row.suffix
                            ));
                        }
                    }
                }
                let note = figures.value(label, &format!("{sockets}-note"));
                // Writing to a String cannot fail.
                let _ = writeln!(
                    text,
                    "| {name} | {label} | {sockets} | {} ms | {} MB | {} MB | {verdict} | {} |",
                    report::number(ready),
                    report::number(own),
                    report::number(peak),
                    note.unwrap_or("–"),
                );
            }
        }
    }
    Ok((text, above))
}

/// What stands above the table.
pub(super) const WHAT: &str = "Sockets in 100 processes, a third each listening, bound by TCP only, and bound by UDP. Ready: from the \
     `start` line, which is written when the hooks are attached, to the line of a bind that was refused at \
     that moment, with the name of the holder. Limits, natively: 2,000 ms and 100 MB.";

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn place(limited: bool, ready: u32, peak: u32) -> Place {
        let mut figures = Figures::default();
        for sockets in SOCKETS {
            for line in [
                format!("value\tauto\t{sockets}-ready-us\t{ready}"),
                format!("value\tauto\t{sockets}-rss-without-ring-kb\t7000"),
                format!("value\tauto\t{sockets}-rss-peak-kb\t{peak}"),
                format!("value\tauto\t{sockets}-note\tby magic"),
            ] {
                assert!(figures.line(&line), "{line}");
            }
        }
        Place {
            name: "here".into(),
            limited,
            figures,
            labels: vec!["auto".into()],
        }
    }

    #[test]
    fn limits_hold_where_they_hold() {
        let (text, above) = table(&[place(true, 1_900_000, 90_000)]).unwrap();
        assert!(above.is_empty());
        let row = "| here | auto | 100000 | 1,900 ms | 7.2 MB | 92.2 MB | met | by magic |";
        assert!(text.contains(row), "{row}\nis not in\n{text}");
        let (_, above) = table(&[place(true, 2_500_000, 120_000)]).unwrap();
        assert_eq!(above.len(), 4);
        assert_eq!(above[0], "here, 100 sockets: ready: 500 ms too much");
        let (text, above) = table(&[place(false, 2_500_000, 120_000)]).unwrap();
        assert!(above.is_empty() && !text.contains("met"));
        let mut missing = place(true, 1, 1);
        missing.labels = vec!["tracing".into()];
        assert!(table(&[missing]).is_err());
    }
}
