//! What a recording costs on this machine: events a second, memory, the time of a report, bytes an event.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::figures::Figures;
use super::report;
use crate::exec::output;
use crate::privilege;
use crate::say::say;

/// What the section is about.
pub(super) const WHAT: &str = "A recorder that keeps everything, of binds at 50,000 a second for a minute; a report on \
     10,000,000 events of all kinds, median of 3; what an event of each kind takes in the file, with all that \
     belongs to it (\"process\": a connect of a process of its own).";

/// A figure, and what it may be.
struct Row {
    what: &'static str,
    who: &'static str,
    name: &'static str,
    /// At least, or at most.
    limit: Option<Limit>,
    unit: f64,
    suffix: &'static str,
}

enum Limit {
    Least(f64),
    Most(f64),
}

const ROWS: &[Row] = &[
    Row {
        what: "events recorded",
        who: "record",
        name: "events",
        limit: Some(Limit::Least(2_990_000.0)),
        unit: 1.0,
        suffix: "",
    },
    Row {
        what: "events lost",
        who: "record",
        name: "lost",
        limit: Some(Limit::Most(0.0)),
        unit: 1.0,
        suffix: "",
    },
    Row {
        what: "memory at most, the ring included",
        who: "record",
        name: "rss-peak-kb",
        limit: Some(Limit::Most(50.0)),
        unit: 1e6 / 1024.0,
        suffix: " MB",
    },
    Row {
        what: "report on 10,000,000 events",
        who: "report",
        name: "median-ms",
        limit: Some(Limit::Most(10.0)),
        unit: 1e3,
        suffix: " s",
    },
    bytes("bind"),
    bytes("listen"),
    bytes("connect"),
    bytes("connect-refused"),
    bytes("process"),
    bytes("conflict"),
];

const fn bytes(kind: &'static str) -> Row {
    Row {
        what: kind,
        who: "bytes",
        name: kind,
        limit: None,
        unit: 1.0,
        suffix: " bytes",
    }
}

/// Measures, as root.
///
/// # Errors
/// It cannot be measured.
pub(super) fn measure(tests: &Path, portwatch: &Path) -> Result<Figures> {
    let mut command = privilege::as_root(tests)?;
    command
        .args(["cost", "recording", "--portwatch"])
        .arg(portwatch);
    let mut figures = Figures::default();
    for line in output(&mut command)?.lines() {
        say(format_args!("  {}", line.replace('\t', " ")));
        if !figures.line(line) {
            bail!("not understood: {line}");
        }
    }
    Ok(figures)
}

/// The table, in Markdown, and what is beyond its limit.
///
/// # Errors
/// A figure is missing.
pub(super) fn table(figures: &Figures) -> Result<(String, Vec<String>)> {
    let mut text = String::from("| what | limit | measured | verdict |\n|---|---:|---:|---|\n");
    let mut beyond = Vec::new();
    for row in ROWS {
        let Row {
            what,
            who,
            name,
            limit,
            unit,
            suffix,
        } = row;
        let figure = figures.number(who, name);
        let figure = figure.with_context(|| format!("no figure of {what}"))? / unit;
        let (limit, verdict) = match limit {
            None => ("–".to_string(), ""),
            Some(Limit::Least(least)) => (
                format!("≥ {}{suffix}", report::number(*least)),
                if figure >= *least {
                    "met"
                } else {
                    "**missed**"
                },
            ),
            Some(Limit::Most(most)) => (
                format!("≤ {}{suffix}", report::number(*most)),
                if figure <= *most { "met" } else { "**missed**" },
            ),
        };
        let figure = report::number(figure);
        if verdict.starts_with('*') {
            beyond.push(format!("{what}: {figure}{suffix}, {limit} wanted"));
        }
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| {what} | {limit} | {figure}{suffix} | {verdict} |");
    }
    Ok((text, beyond))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]

    use super::*;

    #[test]
    fn limits_hold_from_either_side() {
        let figures = |lost: u32| {
            let mut figures = Figures::default();
            for row in ROWS {
                let value = match row.name {
                    "events" => 3_000_000,
                    "lost" => lost,
                    "rss-peak-kb" => 40_000,
                    "median-ms" => 4_000,
                    _ => 41,
                };
                let line = format!("value\t{}\t{}\t{value}", row.who, row.name);
                assert!(figures.line(&line));
            }
            figures
        };
        let (text, beyond) = table(&figures(0)).unwrap();
        assert!(beyond.is_empty(), "{text}");
        let (text, beyond) = table(&figures(7)).unwrap();
        assert_eq!(beyond.len(), 1);
        assert!(text.contains("**missed**"), "{text}");
        assert!(table(&Figures::default()).is_err());
    }
}
