//! How many instructions the verifier walked for each program (`verified_insns` of `struct
//! bpf_prog_info`, kernel 5.16 and later), as `portwatch trace -vv` tells it.
//!
//! Lines: `BACKEND PROGRAM COUNT`, tabs between.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::degraded::Backend;

/// Starts portwatch once for each backend and prints what it loaded.
pub(super) fn run(portwatch: &Path, backends: &[Backend]) -> Result<()> {
    let wanted = if backends.is_empty() {
        &Backend::ALL
    } else {
        backends
    };
    for backend in wanted {
        let output = Command::new(portwatch)
            .args(["trace", "-vv", "--duration", "1ms", "--attach"])
            .arg(backend.as_str())
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot start {}", portwatch.display()))?;
        let notes = String::from_utf8_lossy(&output.stderr);
        // Not possible on this kernel.
        if backends.is_empty() && output.status.code() == Some(3) {
            continue;
        }
        if !output.status.success() {
            bail!("{}: {}: {}", backend.as_str(), output.status, notes.trim());
        }
        for (program, count) in notes.lines().filter_map(parse) {
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
