//! Asks the machine: a fact that cannot be had is absent, never an error.

use std::path::Path;

use clap::Parser as _;

use crate::{
    cli::{Cli, System, TraceOptions, Verb},
    event::Backend,
    facts::{self, Gathered},
    host::{
        btf::BtfError,
        kernel::{self, Release, UnprivilegedBpf},
        limits::{self, Limit},
        lockdown::Lockdown,
        namespaces::ContainerHints,
        privilege::Privileges,
        profile,
    },
    load::{self, FilterValues},
    plan::{self, Attach, Facts, PREFERENCE},
};

/// What was found out about this machine.
#[derive(Debug)]
pub(super) struct Findings {
    /// `uname -r`
    pub(super) release: Option<Release>,
    /// What the kernel's type information and the kernel itself say.
    pub(super) kernel: Result<Kernel, BtfError>,
    /// Of this process.
    pub(super) privileges: Option<Privileges>,
    /// Whether the kernel has seccomp filters and portwatch one for this architecture.
    pub(super) confinable: bool,
    /// `None`: the kernel has no lockdown, or does not tell us.
    pub(super) lockdown: Option<Lockdown>,
    /// Before it was raised.
    pub(super) memlock: Option<Limit>,
    /// `kernel.unprivileged_bpf_disabled`
    pub(super) unprivileged_bpf: Option<UnprivilegedBpf>,
    /// `kernel.perf_event_paranoid`
    pub(super) perf_event_paranoid: Option<i32>,
    /// Whether the kernel is built with kprobes that perf_event_open(2) can set.
    pub(super) kprobes: Option<bool>,
    /// Where it is mounted.
    pub(super) tracefs: Option<&'static str>,
    /// What surrounds this process.
    pub(super) container: ContainerHints,
}

/// What needs the kernel's type information.
#[derive(Debug)]
pub(super) struct Kernel {
    /// As `plan` gets them.
    pub(super) facts: Facts,
    /// Backends whose plan was carried out up to attaching, and what became of it.
    pub(super) loaded: Vec<(Backend, Result<(), String>)>,
}

/// Asks for everything. Nothing is attached, and nothing stays loaded.
pub(super) fn gather() -> Findings {
    let release = Release::read();
    let memlock = limits::memlock();
    // As trace does.
    if release.as_ref().and_then(Release::bpf_counts_as_memlock) != Some(false) {
        limits::raise_memlock();
    }
    Findings {
        release,
        kernel: facts::gather().map(|gathered| {
            let loaded = try_loading(&gathered);
            Kernel {
                facts: gathered.facts,
                loaded,
            }
        }),
        privileges: Privileges::read(),
        confinable: profile::is_available(),
        lockdown: Lockdown::read(),
        memlock,
        unprivileged_bpf: UnprivilegedBpf::read(),
        perf_event_paranoid: kernel::perf_event_paranoid(),
        kprobes: kprobes(),
        tracefs: kernel::tracefs().and_then(|path| path.to_str()),
        container: ContainerHints::read(),
    }
}

/// Not known where sysfs is hidden.
fn kprobes() -> Option<bool> {
    Path::new("/sys/bus/event_source/devices")
        .is_dir()
        .then(|| kernel::kprobe_pmu().is_some())
}

/// What trace does when it is given no options.
fn trace_options() -> Option<TraceOptions> {
    let Cli { verb, output } = Cli::try_parse_from(["portwatch", "trace"]).ok()?;
    match verb {
        Verb::Trace(args) => args.resolve(output, &System).ok(),
        _ => None,
    }
}

/// Loads the programs of every backend that has a plan, one after the other.
fn try_loading(gathered: &Gathered) -> Vec<(Backend, Result<(), String>)> {
    let Some(TraceOptions {
        selection, buffer, ..
    }) = trace_options()
    else {
        return Vec::new();
    };
    let values = FilterValues::default();
    let attempts = PREFERENCE.into_iter().filter_map(|backend| {
        let plan = plan::plan(&gathered.facts, &selection, Attach::Only(backend)).ok()?;
        let loaded = load::load(gathered, &plan, &selection, &values, buffer);
        Some((
            backend,
            loaded
                .map(drop)
                .map_err(|error| format!("{:#}", anyhow::Error::from(error))),
        ))
    });
    attempts.collect()
}
