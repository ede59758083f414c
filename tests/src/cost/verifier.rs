//! How much work the verifier had with each program.
//!
//! `verified_insns` of `/proc/PID/fdinfo/FD` (kernel/bpf/syscall.c, bpf_prog_show_fdinfo; 5.16 and
//! later) of the programs that a running portwatch holds. Lines: `BACKEND PROGRAM COUNT`, tabs between.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result};

use super::contender::{Contender, Output};
use crate::{degraded::Backend, sys::bpf};

/// Starts portwatch once for each backend and prints what it loaded.
pub(super) fn run(portwatch: &Path, backends: &[Backend]) -> Result<()> {
    for backend in backends {
        let command = format!(
            "x={} trace --attach {}",
            portwatch.display(),
            backend.as_str()
        );
        let contender: Contender = command.parse().map_err(anyhow::Error::msg)?;
        let mut tracer = contender.start(Output::Null, &[])?;
        tracer.attached()?;
        for (name, count) in counts(tracer.pid())? {
            println!("{}\t{name}\t{count}", backend.as_str());
        }
        tracer.stop()?;
    }
    Ok(())
}

/// Program names, as the kernel keeps them (15 bytes), and the verifier's count; the larger one
/// where two names are cut to the same.
fn counts(pid: u32) -> Result<BTreeMap<String, u64>> {
    let mut counts = BTreeMap::new();
    let folder = format!("/proc/{pid}/fdinfo");
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {folder}"))? {
        // A descriptor may be closed in the meantime.
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .and_then(|rest| rest.trim().parse::<u64>().ok())
        };
        if let (Some(id), Some(count)) = (field("prog_id"), field("verified_insns"))
            && text.contains("prog_type:")
        {
            let name = bpf::program_name(u32::try_from(id)?)?;
            let known = counts.entry(name).or_insert(0);
            *known = count.max(*known);
        }
    }
    Ok(counts)
}
