//! How many instructions the verifier walked for each program (`verified_insns` of `struct
//! bpf_prog_info`, kernel 5.16 and later), as `portwatch trace -vv` and `churn -vv` tell it.
//!
//! Lines: `BACKEND PROGRAM COUNT`, tabs between.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::degraded::Backend;

/// What is watched: by default, what there is only if it is asked for, and the programs of `churn`. Of a program that
/// more than one of them loads the larger number counts: what the configuration rules out is not walked.
const WATCHES: [&[&str]; 3] = [
    &["trace", "-vv", "--duration", "1ms"],
    &[
        "trace",
        "-vv",
        "--duration",
        "1ms",
        "-e",
        "bind,listen,connect,autobind,accept,release",
    ],
    &["churn", "-vv", "--once", "--interval", "1s"],
];

/// Starts portwatch with each backend, for each of these, and prints what it loaded.
pub(super) fn run(portwatch: &Path, backends: &[Backend]) -> Result<()> {
    let wanted = if backends.is_empty() {
        &Backend::ALL
    } else {
        backends
    };
    for backend in wanted {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for (place, watch) in WATCHES.into_iter().enumerate() {
            let output = Command::new(portwatch)
                .args(watch)
                .args(["--attach", backend.as_str()])
                .stdin(Stdio::null())
                .output()
                .with_context(|| format!("cannot start {}", portwatch.display()))?;
            let notes = String::from_utf8_lossy(&output.stderr);
            // Not possible on this kernel.
            if place == 0 && backends.is_empty() && output.status.code() == Some(3) {
                break;
            }
            if !output.status.success() {
                bail!(
                    "{} {}: {}: {}",
                    watch.join(" "),
                    backend.as_str(),
                    output.status,
                    notes.trim()
                );
            }
            for (program, count) in notes.lines().filter_map(parse) {
                let most = counts.entry(program.to_owned()).or_default();
                *most = count.max(*most);
            }
        }
        for (program, count) in counts {
            println!("{}\t{program}\t{count}", backend.as_str());
        }
    }
    Ok(())
}

/// `portwatch: bind4_tracing: 1234 instructions verified`
fn parse(note: &str) -> Option<(&str, u64)> {
    let rest = note.strip_prefix("portwatch: ")?;
    let (program, count) = rest
        .strip_suffix(" instructions verified")?
        .split_once(": ")?;
    Some((program, count.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_about_programs_are_told_from_others() {
        assert_eq!(
            parse("portwatch: bind4_tracing: 1234 instructions verified"),
            Some(("bind4_tracing", 1234))
        );
        assert_eq!(parse("portwatch: not tracing: no BTF"), None);
    }
}
