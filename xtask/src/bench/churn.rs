//! What `churn` adds to a TCP connection, beside its limit.

use std::fmt::Write as _;

use anyhow::Result;

use super::figures::Figures;
use super::guest::{Clock, Guest};
use crate::say::say;

/// Instructions that a TCP connect and close may get longer by, on the whole machine, with tracing.
const LIMIT: f64 = 2500.0;

/// What is measured.
pub(super) const WHAT: &str = "`churn` beside TCP connections over loopback, both ends on this machine, that are reset and that end in TIME_WAIT. What the program runs that hooks the end of TIME_WAIT, a minute after close(), has a column of its own, by the kernel's own account (its clock is in it, the call is not), and counts too.";

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
    let mut items: Vec<[String; 5]> = Vec::new();
    guest.run(Clock::Instructions, args, |line| {
        say(format_args!("  {}", line.replace('\t', " ")));
        if let Some(item) = item(line) {
            items.push(item);
        } else if !figures.line(line) {
            figures.failures.push(format!("not understood: {line}"));
        }
    })?;
    let seeing: Vec<&str> = seeing.map(String::as_str).collect();
    let (text, above) = table(&figures, &items, &seeing);
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

/// The operation that leaves a TIME_WAIT.
const WAITING: &str = "connect-wait";

/// The program at the end of TIME_WAIT, as the kernel shortens its name.
const END_OF_WAITING: &str = "churn_waited_";

/// What it runs for an operation: nothing where nothing waits, `None` where it should have run and has not.
fn end_of_waiting(items: &[[String; 5]], backend: &str, mode: &str) -> Option<f64> {
    if mode != WAITING {
        return Some(0.0);
    }
    items
        .iter()
        .filter(|[of, during, program, ..]| {
            of == backend && during == mode && program.starts_with(END_OF_WAITING)
        })
        .find_map(|[.., runs, each]| Some(runs.parse::<f64>().ok()? * each.parse::<f64>().ok()?))
}

fn table(figures: &Figures, items: &[[String; 5]], backends: &[&str]) -> (String, Vec<String>) {
    let mut text = "| backend | operation | without | budget | measured | end of TIME_WAIT | noise | verdict |\n|---|---|---:|---:|---:|---:|---:|---|\n".to_string();
    let mut above = Vec::new();
    for mode in ["connect", WAITING] {
        let value = |who: &str, what: &str| figures.number(who, &format!("{mode}-{what}"));
        let (Some(without), Some(noise)) = (value("nothing", "per-op"), value("nothing", "noise"))
        else {
            continue;
        };
        for backend in backends {
            let Some(added) = value(&format!("churn {backend}"), "added-per-op") else {
                continue;
            };
            let Some(end) = end_of_waiting(items, backend, mode) else {
                above.push(format!(
                    "{mode}: {backend}: the end of TIME_WAIT was not seen"
                ));
                continue;
            };
            let all = added + end;
            let is_limited = *backend == "tracing";
            let (budget, verdict) = match (is_limited, all > LIMIT) {
                (false, _) => ("–".to_string(), ""),
                (true, false) => (format!("{LIMIT:.0}"), "met"),
                (true, true) => {
                    above.push(format!("{mode}: {all:.0} instructions, at most {LIMIT:.0}"));
                    (format!("{LIMIT:.0}"), "**exceeded**")
                }
            };
            let _ = writeln!(
                text,
                "| {backend} | {mode} | {without:.0} | {budget} | +{added:.0} | +{end:.0} | ±{noise:.0} | {verdict} |"
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
                "value\tchurn tracing\tconnect-added-per-op\t1500".to_string(),
                "value\tnothing\tconnect-wait-per-op\t86000".to_string(),
                "value\tnothing\tconnect-wait-noise\t10".to_string(),
                format!("value\tchurn tracing\tconnect-wait-added-per-op\t{added}"),
            ] {
                assert!(figures.line(&line));
            }
            let items: Vec<_> = [
                "item\ttracing\tconnect\tchurn_put_traci\t2.00\t200",
                "item\ttracing\tconnect-wait\tchurn_waited_tr\t1.00\t300",
                "item\ttracing\tconnect-wait\tchurn_wait_trac\t1.00\t200",
                "item\tkprobe\tconnect-wait\tchurn_waited_kp\t1.00\t400",
            ]
            .into_iter()
            .filter_map(item)
            .collect();
            (
                table(&figures, &items, &["tracing"]),
                table(&figures, &[], &["tracing"]),
            )
        };
        let of = |added| {
            let (with, without) = of(added);
            assert_eq!(
                without.1,
                ["connect-wait: tracing: the end of TIME_WAIT was not seen"]
            );
            with
        };
        let (text, above) = of(2_200);
        assert!(
            text.contains("| tracing | connect-wait | 86000 | 2500 | +2200 | +300 | ±10 | met |"),
            "{text}"
        );
        assert!(
            text.contains("| tracing | connect | 66000 | 2500 | +1500 | +0 | ±10 | met |"),
            "{text}"
        );
        assert!(above.is_empty());
        assert_eq!(
            of(2_201).1,
            ["connect-wait: 2501 instructions, at most 2500"]
        );
    }
}
