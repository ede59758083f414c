//! What it costs to attach programs that do nothing, one by one, where portwatch attaches its own: no start goes below.

use std::ffi::CString;

use anyhow::{Context as _, Result, bail};
use portwatch::{
    event::{self, Op},
    facts,
    host::kernel,
    plan::{self, Attach, Attachment, hooks::Way},
    selection::Selection,
};

use super::clock;
use crate::{
    degraded::Backend,
    sys::bpf::program::{NOTHING, Program, at, attach, attach_probe, kind},
};

/// Loads and attaches those of `portwatch trace -o json`, and lets go of them again: what this process has run for the
/// former, and how many they were. Of finding out where they go nothing counts.
pub(super) fn alone(backend: Backend) -> Result<(u64, usize)> {
    let gathered = facts::prepare().context("cannot read the kernel's types")?;
    let selection = Selection {
        events: Op::USUAL.to_vec(),
        ..Selection::default()
    };
    let backend = match backend {
        Backend::Tracing => event::Backend::Tracing,
        Backend::Kprobe => event::Backend::Kprobe,
        Backend::RawTp => event::Backend::RawTp,
    };
    let plan = plan::plan(&gathered.facts, &selection, Attach::Only(backend))?;
    let probes = kernel::kprobe_pmu();
    let since = clock::of(std::process::id())?;
    let mut attached = Vec::new();
    for attachment in &plan.attachments {
        let target = gathered.ids.get(attachment.target).copied();
        attached.push(
            nothing(attachment, target, probes)
                .with_context(|| format!("{} at {}", attachment.program, attachment.target))?,
        );
    }
    Ok((clock::of(std::process::id())? - since, attached.len()))
}

/// Attaches a program that does nothing where that one goes.
fn nothing(
    Attachment { way, target, .. }: &Attachment,
    id: Option<u32>,
    probes: Option<u32>,
) -> Result<(std::os::fd::OwnedFd, std::os::fd::OwnedFd)> {
    let name = CString::new(*target)?;
    let (kind, at) = match way {
        Way::FEntry => (kind::TRACING, at::ENTRY),
        Way::FExit => (kind::TRACING, at::RETURN),
        Way::BtfTracepoint => (kind::TRACING, at::TRACEPOINT),
        Way::KProbe | Way::KRetProbe => (kind::KPROBE, 0),
        Way::RawTracepoint => (kind::RAW_TRACEPOINT, 0),
        Way::Iterator => bail!("an iterator is attached to nothing"),
    };
    let program = Program {
        kind,
        at,
        target: match kind {
            kind::TRACING => id.context("not in the kernel's types")?,
            _ => 0,
        },
        code: &NOTHING,
        ..Program::default()
    }
    .load()
    .context("cannot load")?;
    let link = match way {
        Way::KProbe | Way::KRetProbe => {
            let probes = probes.context("no kprobes")?;
            attach_probe(&program, &name, *way == Way::KRetProbe, probes)
        }
        Way::RawTracepoint => attach(&program, Some(&name)),
        _ => attach(&program, None),
    }
    .context("cannot attach")?;
    Ok((program, link))
}
