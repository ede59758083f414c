//! What `churn` adds to a TCP connection, beside its limit.

use std::fmt::Write as _;

use anyhow::Result;

use super::figures::Figures;
use super::guest::{Clock, Guest};
use crate::say::say;

/// Instructions that a TCP connect and close may get longer by, on the whole machine, with tracing.
const LIMIT: f64 = 2500.0;

/// What is measured.
pub(super) const WHAT: &str = "`churn` beside TCP connections over loopback, both ends on this machine, that are reset and that end in TIME_WAIT. The end of TIME_WAIT, a minute later, is not in the sum; what its program runs stands below.";

/// In the guest: a table, and what is above the limit.
///
/// # Errors
/// The guest does not come to its end.
pub(super) fn measure(guest: &Guest<'_>, backends: &[String]) -> Result<(String, Vec<String>)> {
    let mut args: Vec<String> = ["cost", "churn", "--portwatch", "/bin/portwatch"]
        .map(String::from)
        .to_vec();
    let seeing = backends.iter().filter(|backend| *backend != "raw_tp");
    for backend in seeing.clone() {
        args.extend(["--attach".to_string(), backend.clone()]);
    }
    let mut figures = Figures::default();
    let mut items = Vec::new();
    guest.run(Clock::Instructions, args, |line| {
        say(format_args!("  {}", line.replace('\t', " ")));
        if let Some(item) = item(line) {
            items.push(item);
        } else if !figures.line(line) {
            figures.failures.push(format!("not understood: {line}"));
        }
    })?;
    let seeing: Vec<&str> = seeing.map(String::as_str).collect();
    let (text, above) = table(&figures, &seeing);
    Ok((text + &itemised(&items), above))
}

/// A line of the second table: backend, operation, program, how often it runs, what a run takes.
fn item(line: &str) -> Option<[String; 5]> {
    let fields = line.strip_prefix("item\t")?.split('\t').map(String::from);
    fields.collect::<Vec<_>>().try_into().ok()
}

/// Where it goes.
fn itemised(items: &[[String; 5]]) -> String {
    if items.is_empty() {
        return String::new();
    }
    let mut text = "\nOf that what each program runs, as the kernel counts it (`bpf_stats_enabled`, whose own clock is in it): the rest is what the kernel does to call them.\n\n| backend | operation | program | times | instructions each |\n|---|---|---|---:|---:|\n".to_string();
    for [backend, mode, program, runs, instructions] in items {
        let _ = writeln!(
            text,
            "| {backend} | {mode} | `{program}` | {runs} | {instructions} |"
        );
    }
    text
}

fn table(figures: &Figures, backends: &[&str]) -> (String, Vec<String>) {
    let mut text = "| backend | operation | without | budget | measured | noise | verdict |\n|---|---|---:|---:|---:|---:|---|\n".to_string();
    let mut above = Vec::new();
    for mode in ["connect", "connect-wait"] {
        let value = |who: &str, what: &str| figures.number(who, &format!("{mode}-{what}"));
        let (Some(without), Some(noise)) = (value("nothing", "per-op"), value("nothing", "noise"))
        else {
            continue;
        };
        for backend in backends {
            let Some(added) = value(&format!("churn {backend}"), "added-per-op") else {
                continue;
            };
            let is_limited = *backend == "tracing";
            let (budget, verdict) = match (is_limited, added > LIMIT) {
                (false, _) => ("–".to_string(), ""),
                (true, false) => (format!("{LIMIT:.0}"), "met"),
                (true, true) => {
                    above.push(format!(
                        "{mode}: {added:.0} instructions, at most {LIMIT:.0}"
                    ));
                    (format!("{LIMIT:.0}"), "**exceeded**")
                }
            };
            let _ = writeln!(
                text,
                "| {backend} | {mode} | {without:.0} | {budget} | +{added:.0} | ±{noise:.0} | {verdict} |"
            );
        }
    }
    for failure in &figures.failures {
        let _ = writeln!(text, "\nNot measured: {failure}");
    }
    (text, above)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_itemised() {
        let items: Vec<_> = [
            "item\ttracing\tconnect\tchurn_put\t2.00\t150",
            "value\ta\tb\t1",
        ]
        .into_iter()
        .filter_map(item)
        .collect();
        let text = itemised(&items);
        assert!(
            text.ends_with("| tracing | connect | `churn_put` | 2.00 | 150 |\n"),
            "{text}"
        );
        assert_eq!(itemised(&[]), "");
    }

    #[test]
    fn what_is_above_the_limit_is_told() {
        let of = |added: u32| {
            let mut figures = Figures::default();
            for line in [
                "value\tnothing\tconnect-per-op\t66000".to_string(),
                "value\tnothing\tconnect-noise\t10".to_string(),
                format!("value\tchurn tracing\tconnect-added-per-op\t{added}"),
            ] {
                assert!(figures.line(&line));
            }
            table(&figures, &["tracing"])
        };
        let (text, above) = of(2_500);
        assert!(
            text.contains("| tracing | connect | 66000 | 2500 | +2500 | ±10 | met |"),
            "{text}"
        );
        assert!(above.is_empty());
        assert_eq!(of(2_501).1.len(), 1);
    }
}
