//! Facts and wishes to a plan: which way into the kernel, which programs on which functions, and what
//! will not be seen. Pure: no I/O, no kernel.

pub mod blind;
pub mod churn;
pub mod generation;
pub mod hooks;
#[cfg(test)]
pub(crate) mod kernels;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use portwatch_ebpf::abi::{
    config::{Config, detail, family, filter, protocol},
    record::op,
};
use thiserror::Error;

use crate::{
    event::{Backend, Family, Op, Transport},
    host::fields::Fields,
    selection::Selection,
};
use generation::{Cast, Generation};
use hooks::{DESCRIPTORS, Hook, Need, Program, Target, Way, When};

/// What is known about the kernel before anything is attached.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Offsets of kernel fields.
    pub fields: Fields,
    /// Prototypes of the functions and tracepoints of [`hooks::all`] this kernel has, by name.
    pub prototypes: BTreeMap<&'static str, String>,
    /// Whether tracing programs may be loaded, or why not.
    pub tracing: Result<(), String>,
    /// Whether kprobe programs may be loaded and attached, or why not.
    pub kprobe: Result<(), String>,
    /// Whether raw tracepoint programs may be loaded, or why not.
    pub raw_tp: Result<(), String>,
    /// Whether iterators over descriptors may be loaded, or why not.
    pub iterator: Result<(), String>,
    /// Bits of `portwatch_ebpf::abi::config::helper`.
    pub helpers: u32,
    /// Whether programs may call bpf_loop() (5.17).
    pub loops: bool,
    /// How programs may load words from addresses, if they may.
    pub cast: Option<Cast>,
    /// Whether the kernel has [`hooks::MPTCP_CONNECT`].
    pub mptcp_connects: bool,
    /// Whether the kernel preempts what runs in it, programs included.
    pub preempts: bool,
}

impl Facts {
    /// Whether programs of a backend may be loaded.
    ///
    /// # Errors
    /// The reason why not.
    pub fn allows(&self, backend: Backend) -> Result<(), String> {
        match backend {
            Backend::Tracing => self.tracing.clone(),
            Backend::Kprobe => self.kprobe.clone(),
            Backend::RawTp => self.raw_tp.clone(),
        }
    }

    /// Notes that a way in does not work after all.
    pub fn refuse(&mut self, backend: Backend, reason: String) {
        let fact = match backend {
            Backend::Tracing => &mut self.tracing,
            Backend::Kprobe => &mut self.kprobe,
            Backend::RawTp => &mut self.raw_tp,
        };
        *fact = Err(reason);
    }
}

/// Which way in the user wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attach {
    /// The best that works.
    #[default]
    Auto,
    /// This one or none.
    Only(Backend),
}

/// One program to load and attach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Name in the object.
    pub program: &'static str,
    /// For which kernels.
    pub generation: Generation,
    /// How.
    pub way: Way,
    /// Kernel function or tracepoint.
    pub target: &'static str,
}

/// How the sockets are found that are older than the trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Snapshot {
    /// Not at all: no call is told that another socket may be in the way of.
    Unneeded,
    /// By this iterator over the descriptors of all processes.
    Iterator(Attachment),
    /// By the descriptors in `/proc`; why not by the iterator.
    Procfs(String),
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The way in.
    pub backend: Backend,
    /// Programs in the order they are attached.
    pub attachments: Vec<Attachment>,
    /// How older sockets are found, once these are attached.
    pub snapshot: Snapshot,
    /// Read-only data of the programs.
    pub config: Config,
    /// Why the better ways in were not taken.
    pub stepped_down: Vec<(Backend, String)>,
    /// Hooks without a function on this kernel, by purpose.
    pub without: Vec<&'static str>,
}

impl Plan {
    /// Every program that is loaded: those that are attached, and the iterator.
    pub fn programs(&self) -> impl Iterator<Item = Attachment> {
        let iterator = match &self.snapshot {
            Snapshot::Iterator(program) => Some(*program),
            Snapshot::Unneeded | Snapshot::Procfs(_) => None,
        };
        self.attachments.iter().copied().chain(iterator)
    }
}

/// Why there is no plan.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PlanError {
    /// Offsets that every backend needs are not known.
    #[error("this kernel's type information lacks what portwatch reads: {}", .0.join(", "))]
    Fields(Vec<&'static str>),
    /// No way in works.
    #[error("{}", reasons(.0))]
    NoBackend(Vec<(Backend, String)>),
}

fn reasons(list: &[(Backend, String)]) -> String {
    list.iter()
        .map(|(backend, reason)| format!("{}: {reason}", backend.as_str()))
        .collect::<Vec<_>>()
        .join("; ")
}

/// From best to last resort.
pub const PREFERENCE: [Backend; 3] = [Backend::Tracing, Backend::Kprobe, Backend::RawTp];

/// Makes the plan.
///
/// # Errors
/// When a needed field is missing, or no wanted way in works; with the reason of each.
pub fn plan(facts: &Facts, selection: &Selection, attach: Attach) -> Result<Plan, PlanError> {
    choose(
        facts,
        selection,
        attach,
        snapshot(facts, selection),
        |hook| needed(hook, selection),
    )
}

/// The best way in for which everything fits; `uses`: whether a hook is needed, and for what.
fn choose(
    facts: &Facts,
    selection: &Selection,
    attach: Attach,
    snapshot: Snapshot,
    uses: impl Fn(&Hook) -> Option<Use>,
) -> Result<Plan, PlanError> {
    if !facts.fields.missing.is_empty() {
        return Err(PlanError::Fields(facts.fields.missing.clone()));
    }
    let wanted: &[Backend] = match &attach {
        Attach::Auto => &PREFERENCE,
        Attach::Only(backend) => std::slice::from_ref(backend),
    };
    let mut stepped_down = Vec::new();
    for &backend in wanted {
        match facts
            .allows(backend)
            .and_then(|()| blind::sees_any(backend, &selection.events))
            .and_then(|()| attachments(facts, selection, backend, &uses))
        {
            Ok((attachments, without)) => {
                let config = config(facts, selection, &attachments);
                return Ok(Plan {
                    backend,
                    attachments,
                    snapshot,
                    config,
                    stepped_down,
                    without,
                });
            }
            Err(reason) => stepped_down.push((backend, reason)),
        }
    }
    Err(PlanError::NoBackend(stepped_down))
}

/// Programs of a hook for a backend.
#[must_use]
pub fn programs(hook: &Hook, backend: Backend) -> &'static [Program] {
    match backend {
        Backend::Tracing => hook.tracing,
        Backend::Kprobe => hook.kprobe,
        Backend::RawTp => hook.raw_tp,
    }
}

/// What a selection needs a hook for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// To tell of events.
    Events,
    /// To note who gets a port, and nothing else.
    Owners,
}

/// Whether a selection needs a hook, and for what.
#[must_use]
pub fn needed(hook: &Hook, selection: &Selection) -> Option<Use> {
    let wanted = match hook.when {
        When::Ops(ops) | When::OpsAndOwners(ops) | When::OpsAndNotes(ops) => any_of(selection, ops),
        When::Descendants => selection.descendants,
        When::Churn => false,
    };
    if wanted {
        return Some(Use::Events);
    }
    let for_owners = match hook.when {
        When::OpsAndOwners(_) => any_of(selection, &OWNED),
        When::OpsAndNotes(_) => any_of(selection, &NOTED),
        When::Ops(_) | When::Descendants | When::Churn => false,
    };
    for_owners.then_some(Use::Owners)
}

/// What may be refused because of another socket.
const OWNED: [Op; 2] = [Op::Bind, Op::Listen];

/// What names somebody who had a port before.
const NOTED: [Op; 3] = [Op::Bind, Op::Listen, Op::Release];

fn any_of(selection: &Selection, ops: &[Op]) -> bool {
    ops.iter().any(|op| selection.events.contains(op))
}

/// How older sockets are found: by the iterator if it may be loaded, whatever the way in.
#[must_use]
pub fn snapshot(facts: &Facts, selection: &Selection) -> Snapshot {
    if !any_of(selection, &OWNED) {
        return Snapshot::Unneeded;
    }
    iterator(facts).map_or_else(Snapshot::Procfs, Snapshot::Iterator)
}

/// The iterator over descriptors.
///
/// # Errors
/// Why it cannot be used.
pub fn iterator(facts: &Facts) -> Result<Attachment, String> {
    facts.iterator.clone()?;
    let target = known(&DESCRIPTORS, &facts.prototypes)?;
    Ok(Attachment {
        program: "descriptors",
        generation: Generation::of(facts),
        way: Way::Iterator,
        target: target.ok_or("the kernel has no iterator over descriptors")?,
    })
}

/// The function, if this kernel has it.
///
/// # Errors
/// When it has another prototype than the programs know.
fn known(
    target: &Target,
    prototypes: &BTreeMap<&'static str, String>,
) -> Result<Option<&'static str>, String> {
    match prototypes.get(target.name) {
        None => Ok(None),
        Some(found) if target.prototypes.contains(&found.as_str()) => Ok(Some(target.name)),
        Some(found) => Err(format!(
            "{} has another prototype on this kernel: {found}, expected {}",
            target.name,
            target.prototypes.join(" or ")
        )),
    }
}

/// The function a hook uses on this kernel.
///
/// # Errors
/// When the kernel has the function with a prototype the programs do not know, or has none of them
/// although one is required.
pub fn resolve(
    hook: &'static Hook,
    prototypes: &BTreeMap<&'static str, String>,
) -> Result<Option<&'static str>, String> {
    if let Need::Beside(other) = hook.need
        && !prototypes.contains_key(other)
    {
        return Ok(None);
    }
    for target in hook.targets {
        if let Some(name) = known(target, prototypes)? {
            return Ok(Some(name));
        }
    }
    match hook.need {
        Need::Optional | Need::Beside(_) => Ok(None),
        Need::Required => Err(format!(
            "this kernel has no function for the hook \"{}\" ({})",
            hook.purpose,
            hook.targets
                .iter()
                .map(|target| target.name)
                .collect::<Vec<_>>()
                .join(", ")
        )),
    }
}

type Attachments = (Vec<Attachment>, Vec<&'static str>);

fn attachments(
    facts: &Facts,
    selection: &Selection,
    backend: Backend,
    uses: &impl Fn(&Hook) -> Option<Use>,
) -> Result<Attachments, String> {
    let generation = Generation::of(facts);
    let mut list = Vec::new();
    let mut without = Vec::new();
    for hook in hooks::all() {
        let mut programs = programs(hook, backend).to_vec();
        let Some(purpose) = uses(hook).filter(|_| !programs.is_empty()) else {
            continue;
        };
        if backend == Backend::Tracing && !selection.brief && purpose == Use::Events {
            programs.extend(hook.timing);
        }
        if backend == Backend::Tracing && facts.preempts && any_of(selection, &OWNED) {
            programs.extend(hook.noting);
        }
        let target = match resolve(hook, &facts.prototypes) {
            // An owner that was not noted is found by its socket's inode.
            Err(_) if purpose == Use::Owners => continue,
            target => target?,
        };
        match target {
            Some(target) => {
                list.extend(
                    programs
                        .into_iter()
                        .map(|Program(program, way)| Attachment {
                            program,
                            generation,
                            way,
                            target,
                        }),
                );
            }
            None if hook.need == Need::Optional && purpose == Use::Events => {
                without.push(hook.purpose);
            }
            None => {}
        }
    }
    // Returns and outcomes are picked up before the first entry can be: what was entered before the
    // trace is then never half known.
    list.sort_by_key(|attachment| matches!(attachment.way, Way::FEntry | Way::KProbe));
    Ok((list, without))
}

/// What the iterator is told where there are no hooks beside it.
#[must_use]
pub fn lone_config(facts: &Facts) -> Config {
    config(facts, &Selection::default(), &[])
}

fn config(facts: &Facts, selection: &Selection, attachments: &[Attachment]) -> Config {
    let uses = |name: &str| u32::from(attachments.iter().any(|one| one.target == name));
    Config {
        ops: selection
            .events
            .iter()
            .fold(0, |bits, op| bits | 1 << number(*op)),
        protocols: protocols(&selection.transports),
        families: families(&selection.families),
        filters: filters(selection),
        only_pid: only(&selection.pids),
        only_netns: only(&selection.netns),
        failed_only: u32::from(selection.failed || selection.conflicts),
        helpers: facts.helpers,
        word_type: facts.cast.map_or(0, |cast| cast.word),
        bind_takes_socket: uses("inet_bind"),
        // The hook for sockets in use takes inet_listen too, beside the other.
        listen_takes_socket: u32::from(uses("__inet_listen_sk") == 0),
        connect_returns_by_syscall: uses("sys_exit"),
        mptcp_connects: u32::from(facts.mptcp_connects),
        details: details(selection),
        rows: 0,
        hold_buckets: 0,
        diagnostics: 0,
    }
}

/// The one that is wanted, without a look at a table; 0 where they are none or several.
fn only(wanted: &[u32]) -> u32 {
    match wanted {
        [only] => *only,
        _ => 0,
    }
}

/// The number of an operation in the records.
#[must_use]
pub const fn number(operation: Op) -> u8 {
    match operation {
        Op::Bind => op::BIND,
        Op::Listen => op::LISTEN,
        Op::Connect => op::CONNECT,
        Op::Autobind => op::AUTOBIND,
        Op::Accept => op::ACCEPT,
        Op::Release => op::RELEASE,
    }
}

/// What text does not show is collected for filters that decide by it, in user space too.
fn details(selection: &Selection) -> u32 {
    if !selection.brief {
        return detail::ALL;
    }
    let mut bits = 0;
    if !selection.uids.is_empty() {
        bits |= detail::USER;
    }
    if !selection.cgroups.is_empty() || !selection.containers.is_empty() {
        bits |= detail::CGROUP;
    }
    bits
}

fn protocols(transports: &[Transport]) -> u32 {
    if transports.is_empty() {
        return protocol::TCP | protocol::UDP | protocol::OTHER;
    }
    transports.iter().fold(0, |bits, transport| {
        bits | match transport {
            Transport::Tcp => protocol::TCP,
            Transport::Udp | Transport::UdpLite => protocol::UDP,
            Transport::Sctp | Transport::Dccp => protocol::OTHER,
        }
    })
}

fn families(wanted: &[Family]) -> u32 {
    if wanted.is_empty() {
        return family::V4 | family::V6;
    }
    wanted.iter().fold(0, |bits, one| {
        bits | match one {
            Family::Ipv4 => family::V4,
            Family::Ipv6 => family::V6,
        }
    })
}

fn filters(selection: &Selection) -> u32 {
    let Selection {
        ports,
        peer_ports,
        pids,
        uids,
        netns,
        cgroups,
        descendants,
        // Decided in user space, or handed over as constants above.
        comms: _,
        containers: _,
        transports: _,
        families: _,
        events: _,
        failed: _,
        conflicts: _,
        brief: _,
    } = selection;
    let mut bits = 0;
    for (active, bit) in [
        (!ports.is_empty(), filter::PORT),
        (!peer_ports.is_empty(), filter::PEER_PORT),
        (!pids.is_empty(), filter::PID),
        (!uids.is_empty(), filter::UID),
        (!netns.is_empty(), filter::NETNS),
        (!cgroups.is_empty(), filter::CGROUP),
        (*descendants, filter::DESCENDANTS),
    ] {
        if active {
            bits |= bit;
        }
    }
    bits
}
