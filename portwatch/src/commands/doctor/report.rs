//! Findings to a report: which backend would run, and what to do about what is wrong. Pure.

use std::error::Error as _;

use portwatch_ebpf::abi::layout::{FIELDS, Field};

use super::findings::{Findings, Kernel};
use crate::{
    event::{Backend, Op},
    host::{
        btf::BtfError,
        fields::Fields,
        kernel::{Release, UnprivilegedBpf},
        limits::Limit,
        lockdown::{self, Lockdown},
        namespaces::{Blindness, ContainerHints},
        privilege::{
            self, Capability, Privileges,
            features::{self, When},
        },
    },
    plan::{
        self, Attach, Facts, PREFERENCE, PlanError,
        blind::{self, BlindSpot},
        hooks::{self, Hook, Need},
    },
    selection::Selection,
};

/// What doctor has to say.
#[derive(Debug)]
pub(super) struct Report {
    /// `uname -r`
    pub(super) release: Option<String>,
    /// The way in that trace would take.
    pub(super) chosen: Option<Backend>,
    /// Every way in, best first, and why it cannot be taken.
    pub(super) backends: Vec<(Backend, Result<(), Refusal>)>,
    /// The kernel's type information, or what is wrong with it.
    pub(super) btf: Result<(), String>,
    /// Every hook; none without type information.
    pub(super) hooks: Vec<HookReport>,
    /// Every field; likewise.
    pub(super) fields: Vec<FieldReport>,
    /// What this process may do.
    pub(super) privileges: Option<Privileges>,
    /// Whether a trace can be confined once it has begun.
    pub(super) confinable: bool,
    /// Kernel lockdown.
    pub(super) lockdown: Option<Lockdown>,
    /// RLIMIT_MEMLOCK, and whether this kernel counts BPF maps against it.
    pub(super) memlock: Option<(Limit, Option<bool>)>,
    /// `kernel.unprivileged_bpf_disabled`
    pub(super) unprivileged_bpf: Option<UnprivilegedBpf>,
    /// `kernel.perf_event_paranoid`
    pub(super) perf_event_paranoid: Option<i32>,
    /// Whether the kernel has kprobes.
    pub(super) kprobes: Option<bool>,
    /// Where it is mounted.
    pub(super) tracefs: Option<&'static str>,
    /// What surrounds this process.
    pub(super) container: ContainerHints,
    /// What the chosen way in does not see.
    pub(super) degraded: Vec<&'static BlindSpot>,
    /// What is wrong, the worst first.
    pub(super) problems: Vec<Problem>,
}

/// Why a way in cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// How far it got.
    pub(super) stage: Stage,
    /// Why not further.
    pub(super) reason: String,
}

/// The steps of setting a backend up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Reading the kernel's type information.
    TypeInformation,
    /// Loading a program of that kind at all.
    Probe,
    /// Finding the functions to hook.
    Hooks,
    /// Loading the programs.
    Load,
}

/// A hook on this kernel.
#[derive(Debug)]
pub(super) struct HookReport {
    /// What it is for.
    pub(super) purpose: &'static str,
    /// The function it uses, or the first that it would like to.
    pub(super) target: &'static str,
    /// The backends that have it.
    pub(super) backends: Vec<Backend>,
    /// How it stands.
    pub(super) status: HookStatus,
    /// The function's prototype on this kernel.
    pub(super) prototype: Option<String>,
}

/// How a hook stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HookStatus {
    /// The function is there and is what the programs expect.
    Found,
    /// There is no such function, and without it nothing to see.
    Absent,
    /// There is no such function, but it is needed.
    Missing,
    /// The function takes or returns something else than the programs expect.
    Changed,
}

impl HookStatus {
    /// The name in the output.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Absent => "absent",
            Self::Missing => "missing",
            Self::Changed => "changed",
        }
    }
}

/// A kernel field.
#[derive(Debug)]
pub(super) struct FieldReport {
    /// Its entry in the table.
    pub(super) field: &'static Field,
    /// Where it was found.
    pub(super) found: Option<(&'static str, u32)>,
}

impl FieldReport {
    /// The name of its status in the output.
    pub(super) const fn status(&self) -> &'static str {
        match (&self.found, self.field.required) {
            (Some(_), _) => "found",
            (None, false) => "absent",
            (None, true) => "missing",
        }
    }

    /// Where it is, or would be.
    pub(super) fn path(&self) -> &'static str {
        self.found
            .map(|(path, _)| path)
            .or_else(|| self.field.paths.first().copied())
            .unwrap_or_default()
    }
}

/// Something wrong.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// How bad it is.
    pub(super) severity: Severity,
    /// What is wrong.
    pub(super) what: String,
    /// What to do next.
    pub(super) next: String,
}

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    /// trace cannot run.
    Blocks,
    /// trace runs, but sees or tells less than it could.
    Limits,
}

impl Severity {
    /// The name in the output.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Blocks => "blocks",
            Self::Limits => "limits",
        }
    }
}

/// Judges what was found.
pub(super) fn report(findings: Findings) -> Report {
    let backends: Vec<_> = PREFERENCE
        .into_iter()
        .map(|backend| (backend, verdict(&findings, backend)))
        .collect();
    let chosen = backends
        .iter()
        .find(|(_, verdict)| verdict.is_ok())
        .map(|(backend, _)| *backend);
    let mut problems = problems(&findings, &backends, chosen);
    problems.sort_by_key(|problem| problem.severity);
    let Findings {
        release,
        kernel,
        privileges,
        confinable,
        lockdown,
        memlock,
        unprivileged_bpf,
        perf_event_paranoid,
        kprobes,
        tracefs,
        container,
    } = findings;
    let counted = release.as_ref().and_then(Release::bpf_counts_as_memlock);
    let (btf, hooks, fields) = match &kernel {
        Ok(Kernel { facts, .. }) => (Ok(()), hook_reports(facts), fields(&facts.fields)),
        Err(error) => (Err(sentence(error)), Vec::new(), Vec::new()),
    };
    Report {
        release: release.map(|release| release.text),
        chosen,
        backends,
        btf,
        hooks,
        fields,
        privileges,
        confinable,
        lockdown,
        memlock: memlock.map(|limit| (limit, counted)),
        unprivileged_bpf,
        perf_event_paranoid,
        kprobes,
        tracefs,
        container,
        degraded: chosen.into_iter().flat_map(blind::of).collect(),
        problems,
    }
}

fn verdict(findings: &Findings, backend: Backend) -> Result<(), Refusal> {
    let refused = |stage, reason| Err(Refusal { stage, reason });
    let Kernel { facts, loaded } = match &findings.kernel {
        Ok(kernel) => kernel,
        Err(_) => {
            let reason = "it needs the kernel's type information (BTF)".to_owned();
            return refused(Stage::TypeInformation, reason);
        }
    };
    if let Err(reason) = facts.allows(backend) {
        return refused(Stage::Probe, reason);
    }
    // What trace wants when it is given no options.
    let selection = Selection {
        events: Op::ALL.to_vec(),
        ..Selection::default()
    };
    match plan::plan(facts, &selection, Attach::Only(backend)) {
        Err(error @ PlanError::Fields(_)) => {
            return refused(Stage::TypeInformation, error.to_string());
        }
        Err(PlanError::NoBackend(reasons)) => {
            let reasons = reasons.into_iter().map(|(_, reason)| reason);
            return refused(Stage::Hooks, reasons.collect::<Vec<_>>().join("; "));
        }
        Ok(_) => {}
    }
    match loaded.iter().find(|(tried, _)| *tried == backend) {
        Some((_, Err(reason))) => refused(Stage::Load, reason.clone()),
        _ => Ok(()),
    }
}

fn hook_reports(facts: &Facts) -> Vec<HookReport> {
    hooks::all().map(|hook| hook_report(hook, facts)).collect()
}

fn hook_report(hook: &'static Hook, facts: &Facts) -> HookReport {
    let present = hook
        .targets
        .iter()
        .find(|target| facts.prototypes.contains_key(target.name));
    let status = match (plan::resolve(hook, &facts.prototypes), present, hook.need) {
        (Ok(Some(_)), ..) => HookStatus::Found,
        (Ok(None), ..) | (Err(_), None, Need::Optional | Need::Beside(_)) => HookStatus::Absent,
        (Err(_), Some(_), _) => HookStatus::Changed,
        (Err(_), None, Need::Required) => HookStatus::Missing,
    };
    let target = present.or(hook.targets.first()).map_or("", |one| one.name);
    HookReport {
        purpose: hook.purpose,
        target,
        backends: PREFERENCE
            .into_iter()
            .filter(|&backend| !plan::programs(hook, backend).is_empty())
            .collect(),
        status,
        prototype: facts.prototypes.get(target).cloned(),
    }
}

fn fields(fields: &Fields) -> Vec<FieldReport> {
    let found = fields.paths.iter().zip(fields.words);
    FIELDS
        .iter()
        .zip(found)
        .map(|(field, (path, word))| FieldReport {
            field,
            found: path.map(|path| (path, word)),
        })
        .collect()
}

/// Collects problems of one severity.
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, severity: Severity, what: impl Into<String>, next: impl Into<String>) {
        self.0.push(Problem {
            severity,
            what: what.into(),
            next: next.into(),
        });
    }
}

const REPORT_IT: &str = "report it, with what portwatch doctor -v prints";

fn problems(
    findings: &Findings,
    backends: &[(Backend, Result<(), Refusal>)],
    chosen: Option<Backend>,
) -> Vec<Problem> {
    let mut problems = Problems(Vec::new());
    // What is in the way of everything counts as a cause only while nothing works.
    let severity = if chosen.is_some() {
        Severity::Limits
    } else {
        Severity::Blocks
    };
    let mut cause_known = false;
    if let Some(privileges) = findings.privileges.filter(|_| chosen.is_none()) {
        for obstacle in privileges.obstacles() {
            problems.add(severity, obstacle.what, obstacle.next);
            cause_known = true;
        }
    }
    match &findings.kernel {
        Err(error) => {
            problems.add(Severity::Blocks, sentence(error), error.next_step());
            return problems.0;
        }
        Ok(Kernel { facts, .. }) if !facts.fields.missing.is_empty() => {
            let what = PlanError::Fields(facts.fields.missing.clone()).to_string();
            problems.add(Severity::Blocks, what, REPORT_IT);
            cause_known = true;
        }
        Ok(_) => {}
    }
    if findings.lockdown == Some(Lockdown::Confidentiality) {
        problems.add(severity, lockdown::NO_READING, lockdown::UNLOCK);
        cause_known = true;
    }
    memlock(findings, severity, &mut problems);
    if !cause_known {
        for (backend, verdict) in backends {
            if Some(*backend) == chosen {
                break;
            }
            if let Err(refusal) = verdict {
                let what = format!("{}: {}", backend.as_str(), refusal.reason);
                problems.add(severity, what, way_round(*backend, refusal, findings));
            }
        }
    }
    container(&findings.container, &mut problems);
    if let Some(privileges) = findings.privileges.filter(|_| chosen.is_some()) {
        less_than_root(&privileges, &mut problems);
    }
    problems.0
}

/// What to do so that a backend works.
fn way_round(backend: Backend, refusal: &Refusal, findings: &Findings) -> String {
    match (refusal.stage, backend) {
        (Stage::TypeInformation | Stage::Hooks, _) => REPORT_IT.to_owned(),
        (Stage::Load, _) => format!(
            "report it, with what portwatch trace --attach {} -vv prints",
            backend.as_str()
        ),
        (Stage::Probe, Backend::Kprobe) if findings.kprobes == Some(false) => {
            "boot a kernel with CONFIG_KPROBE_EVENTS=y, as distributions build theirs".to_owned()
        }
        (Stage::Probe, _) => "boot a kernel that permits them, as distributions' own do, or lift \
                              what forbids them here: a security module or the host of this machine"
            .to_owned(),
    }
}

fn memlock(findings: &Findings, severity: Severity, problems: &mut Problems) {
    let counted = findings
        .release
        .as_ref()
        .and_then(Release::bpf_counts_as_memlock);
    let may_raise = findings
        .privileges
        .is_some_and(|own| own.effective.allows(Capability::SysResource));
    let Some(Limit {
        hard: Some(bytes), ..
    }) = findings.memlock
    else {
        return;
    };
    if counted == Some(true) && !may_raise {
        problems.add(
            severity,
            format!(
                "this kernel counts what portwatch allocates as locked memory, of which only {bytes} \
                 bytes are allowed, and CAP_SYS_RESOURCE is missing to raise that"
            ),
            "raise the limit (ulimit -l unlimited, or LimitMEMLOCK=infinity in a systemd unit), or \
             give trace a smaller --buffer",
        );
    }
}

fn container(container: &ContainerHints, problems: &mut Problems) {
    for Blindness { what, next } in container.blindness() {
        problems.add(Severity::Limits, what, next);
    }
}

/// Capabilities that are not needed to trace, but to say everything about what is traced.
fn less_than_root(privileges: &Privileges, problems: &mut Problems) {
    for row in features::TABLE {
        if row.when != When::Running {
            continue;
        }
        let lacking = privileges.effective.lacking(row.capabilities);
        if !lacking.is_empty() {
            problems.add(
                Severity::Limits,
                format!(
                    "{} missing, which {}",
                    privilege::names(&lacking),
                    row.purpose
                ),
                "run portwatch as root, or grant it this capability",
            );
        }
    }
}

/// An error with its cause, as one sentence.
fn sentence(error: &BtfError) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
