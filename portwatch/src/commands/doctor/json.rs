//! The report for programs: one object, `docs/schema/doctor-1.json`.

use portwatch_ebpf::abi::layout::Kind;
use serde::Serialize;

use super::report::{FieldReport, HookReport, Problem, Refusal, Report};
use crate::{
    event::Backend,
    host::{
        btf,
        kernel::UnprivilegedBpf,
        limits::Limit,
        lockdown::Lockdown,
        namespaces::ContainerHints,
        privilege::{
            Capability, Privileges,
            features::{self, Row},
        },
    },
};

/// The report as one line.
pub(super) fn render(report: &Report) -> String {
    // Neither maps nor fallible parts: serialising to memory cannot fail.
    let mut line = serde_json::to_string(&document(report)).unwrap_or_default();
    line.push('\n');
    line
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    portwatch: Version,
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel: Option<KernelPart<'a>>,
    backend: Backends<'a>,
    hooks: Vec<HookPart<'a>>,
    fields: Vec<FieldPart>,
    #[serde(skip_serializing_if = "Option::is_none")]
    privileges: Option<PrivilegePart>,
    capabilities: Vec<CapabilityPart>,
    seccomp_profile: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    lockdown: Option<&'static str>,
    btf: BtfPart<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memlock: Option<MemlockPart>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unprivileged_bpf: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    perf_event_paranoid: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kprobes: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tracefs: Option<&'static str>,
    container: ContainerPart<'a>,
    degraded: Vec<String>,
    problems: Vec<ProblemPart<'a>>,
}

#[derive(Serialize)]
struct Version {
    version: &'static str,
}

#[derive(Serialize)]
struct KernelPart<'a> {
    release: &'a str,
}

#[derive(Serialize)]
struct Backends<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    chosen: Option<&'static str>,
    tracing: BackendPart<'a>,
    kprobe: BackendPart<'a>,
    raw_tp: BackendPart<'a>,
}

#[derive(Serialize)]
struct BackendPart<'a> {
    possible: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

#[derive(Serialize)]
struct HookPart<'a> {
    purpose: &'static str,
    target: &'static str,
    backends: Vec<&'static str>,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    prototype: Option<&'a str>,
}

#[derive(Serialize)]
struct FieldPart {
    name: &'static str,
    path: &'static str,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bit: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u32>,
}

#[derive(Serialize)]
struct PrivilegePart {
    uid: u32,
    missing: Vec<&'static str>,
    no_new_privileges: bool,
    seccomp_filter: bool,
    initial_user_namespace: bool,
}

/// A row of the table of features, and whether this process could have it.
#[derive(Serialize)]
struct CapabilityPart {
    feature: &'static str,
    purpose: &'static str,
    capabilities: Vec<&'static str>,
    when: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    condition: Option<&'static str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    missing: &'static [&'static str],
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<bool>,
}

#[derive(Serialize)]
struct BtfPart<'a> {
    path: &'static str,
    usable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

#[derive(Serialize)]
struct MemlockPart {
    soft: Bytes,
    hard: Bytes,
    #[serde(skip_serializing_if = "Option::is_none")]
    counted: Option<bool>,
}

/// A limit: bytes, or the word.
#[derive(Serialize)]
#[serde(untagged)]
enum Bytes {
    Limited(u64),
    Unlimited(&'static str),
}

#[derive(Serialize)]
struct ContainerPart<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    runtime: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    initial_pid_namespace: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    initial_cgroup_namespace: Option<bool>,
}

#[derive(Serialize)]
struct ProblemPart<'a> {
    severity: &'static str,
    what: &'a str,
    next: &'a str,
}

fn document(report: &Report) -> Document<'_> {
    let Report {
        release,
        chosen,
        backends,
        btf,
        hooks,
        fields,
        privileges,
        confinable,
        lockdown,
        memlock,
        unprivileged_bpf,
        perf_event_paranoid,
        kprobes,
        tracefs,
        container,
        degraded,
        problems,
    } = report;
    Document {
        schema: "portwatch/1",
        portwatch: Version {
            version: env!("CARGO_PKG_VERSION"),
        },
        kernel: release.as_deref().map(|release| KernelPart { release }),
        backend: Backends {
            chosen: chosen.map(Backend::as_str),
            tracing: backend(backends, Backend::Tracing),
            kprobe: backend(backends, Backend::Kprobe),
            raw_tp: backend(backends, Backend::RawTp),
        },
        hooks: hooks.iter().map(hook).collect(),
        fields: fields.iter().map(field).collect(),
        privileges: privileges.as_ref().map(privilege),
        capabilities: features::TABLE
            .iter()
            .map(|row| capability(row, privileges.as_ref()))
            .collect(),
        seccomp_profile: *confinable,
        lockdown: lockdown.map(Lockdown::as_str),
        btf: BtfPart {
            path: btf::VMLINUX,
            usable: btf.is_ok(),
            reason: btf.as_ref().err().map(String::as_str),
        },
        memlock: memlock
            .as_ref()
            .map(|(Limit { soft, hard }, counted)| MemlockPart {
                soft: bytes(*soft),
                hard: bytes(*hard),
                counted: *counted,
            }),
        unprivileged_bpf: unprivileged_bpf.map(|switch| match switch {
            UnprivilegedBpf::Allowed => "allowed",
            UnprivilegedBpf::Disabled => "disabled",
            UnprivilegedBpf::DisabledForGood => "disabled_for_good",
        }),
        perf_event_paranoid: *perf_event_paranoid,
        kprobes: *kprobes,
        tracefs: *tracefs,
        container: container_part(container),
        degraded: degraded.iter().map(ToString::to_string).collect(),
        problems: problems.iter().map(problem).collect(),
    }
}

fn backend(backends: &[(Backend, Result<(), Refusal>)], wanted: Backend) -> BackendPart<'_> {
    let reason = backends
        .iter()
        .find(|(backend, _)| *backend == wanted)
        .and_then(|(_, verdict)| verdict.as_ref().err())
        .map(|refusal| refusal.reason.as_str());
    BackendPart {
        possible: reason.is_none(),
        reason,
    }
}

fn hook(hook: &HookReport) -> HookPart<'_> {
    let HookReport {
        purpose,
        target,
        backends,
        status,
        prototype,
    } = hook;
    HookPart {
        purpose,
        target,
        backends: backends.iter().map(|backend| backend.as_str()).collect(),
        status: status.as_str(),
        prototype: prototype.as_deref(),
    }
}

fn field(report: &FieldReport) -> FieldPart {
    let number = report.found.map(|(_, number)| number);
    let (offset, bit, size) = match report.field.kind {
        Kind::Offset(_) | Kind::Place => (number, None, None),
        Kind::Bits(_) => (None, number, None),
        Kind::Size => (None, None, number),
    };
    FieldPart {
        name: report.field.name,
        path: report.path(),
        status: report.status(),
        offset,
        bit,
        size,
    }
}

fn privilege(privileges: &Privileges) -> PrivilegePart {
    let Privileges {
        uid,
        effective,
        permitted: _, // what counts is what is in force
        bounding: _,  // its part in a failure stands among the problems
        no_new_privileges,
        seccomp_filter,
        initial_user_namespace,
    } = privileges;
    PrivilegePart {
        uid: *uid,
        missing: effective
            .lacking(&Capability::ALL)
            .iter()
            .map(|capability| capability.as_str())
            .collect(),
        no_new_privileges: *no_new_privileges,
        seccomp_filter: *seccomp_filter,
        initial_user_namespace: *initial_user_namespace,
    }
}

fn capability(row: &Row, privileges: Option<&Privileges>) -> CapabilityPart {
    let Row {
        feature: _, // the name stands for it
        name,
        capabilities,
        when,
        missing,
        purpose,
    } = row;
    CapabilityPart {
        feature: name,
        purpose,
        capabilities: capabilities.iter().map(|one| one.as_str()).collect(),
        when: when.as_str(),
        condition: when.condition(),
        missing,
        held: privileges.map(|own| own.effective.lacking(capabilities).is_empty()),
    }
}

fn bytes(limit: Option<u64>) -> Bytes {
    limit.map_or(Bytes::Unlimited("unlimited"), Bytes::Limited)
}

fn container_part(container: &ContainerHints) -> ContainerPart<'_> {
    let ContainerHints {
        runtime,
        initial_pid_namespace,
        initial_cgroup_namespace,
    } = container;
    ContainerPart {
        runtime: runtime.as_deref(),
        initial_pid_namespace: *initial_pid_namespace,
        initial_cgroup_namespace: *initial_cgroup_namespace,
    }
}

fn problem(problem: &Problem) -> ProblemPart<'_> {
    let Problem {
        severity,
        what,
        next,
    } = problem;
    ProblemPart {
        severity: severity.as_str(),
        what,
        next,
    }
}
