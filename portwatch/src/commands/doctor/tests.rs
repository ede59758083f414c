#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::LazyLock;

use jsonschema::Validator;
use proptest::prelude::*;
use serde_json::Value;

use super::{
    findings::{self, Findings, Kernel as Probed},
    json,
    report::{self, HookStatus, Report, Severity, Stage},
    text::{self, Look},
};
use crate::{
    event::Backend,
    host::{
        btf::BtfError,
        kernel::{Release, UnprivilegedBpf},
        limits::Limit,
        lockdown::Lockdown,
        namespaces::ContainerHints,
        privilege::{CapabilitySet, Privileges},
    },
    plan::{
        PREFERENCE,
        kernels::{self, Kernel},
    },
    sink::schema,
};

const ALL: CapabilitySet = CapabilitySet(0x1ff_ffff_ffff);

fn root() -> Privileges {
    Privileges {
        uid: 0,
        effective: ALL,
        permitted: ALL,
        bounding: ALL,
        no_new_privileges: false,
        seccomp_filter: false,
        initial_user_namespace: true,
    }
}

fn machine(release: &str, kernel: Kernel) -> Findings {
    let facts = kernels::facts(kernel);
    let loaded = PREFERENCE
        .into_iter()
        .filter(|&backend| facts.allows(backend).is_ok())
        .map(|backend| (backend, Ok(())))
        .collect();
    Findings {
        release: Some(Release::parse(release)),
        kernel: Ok(Probed { facts, loaded }),
        privileges: Some(root()),
        confinable: true,
        lockdown: Some(Lockdown::None),
        memlock: Some(Limit {
            soft: Some(8_388_608),
            hard: Some(8_388_608),
        }),
        unprivileged_bpf: Some(UnprivilegedBpf::Disabled),
        perf_event_paranoid: Some(2),
        kprobes: Some(true),
        tracefs: Some("/sys/kernel/tracing"),
        container: ContainerHints {
            runtime: None,
            initial_pid_namespace: Some(true),
            initial_cgroup_namespace: Some(true),
        },
    }
}

fn all_fine() -> Findings {
    machine("6.12.95+deb12-cloud-amd64", Kernel::V6_12)
}

/// Raw tracepoints and nothing else.
fn locked() -> Findings {
    Findings {
        lockdown: Some(Lockdown::Integrity),
        kprobes: Some(false),
        tracefs: None,
        container: ContainerHints {
            runtime: Some("docker".to_owned()),
            ..all_fine().container
        },
        ..machine("6.18.44", Kernel::V6_18Locked)
    }
}

fn no_root() -> Findings {
    let mut findings = all_fine();
    findings.privileges = Some(Privileges {
        uid: 1000,
        effective: CapabilitySet(0),
        permitted: CapabilitySet(0),
        ..root()
    });
    findings.lockdown = None;
    let Probed { facts, loaded } = findings.kernel.as_mut().unwrap();
    loaded.clear();
    for backend in PREFERENCE {
        let reason = format!("the kernel does not permit {} programs", backend.as_str());
        facts.refuse(backend, reason);
    }
    findings
}

fn no_btf() -> Findings {
    Findings {
        kernel: Err(BtfError::Absent {
            path: "/sys/kernel/btf/vmlinux".to_owned(),
        }),
        ..all_fine()
    }
}

fn changed_prototype() -> Findings {
    let mut findings = all_fine();
    let Probed { facts, loaded } = findings.kernel.as_mut().unwrap();
    facts.prototypes.insert(
        "inet_bind_sk",
        "int (struct sock *, struct sockaddr *, int, \x1b[2Ju32)".to_owned(),
    );
    facts.prototypes.remove("security_socket_bind");
    loaded.retain(|(backend, _)| *backend == Backend::RawTp);
    findings
}

fn verifier_says_no() -> Findings {
    let mut findings = machine("5.10.0-46-cloud-amd64", Kernel::V5_10);
    findings.privileges = Some(Privileges {
        // Without CAP_SYS_RESOURCE (24).
        effective: CapabilitySet(ALL.0 & !(1 << 24)),
        ..root()
    });
    let Probed { loaded, .. } = findings.kernel.as_mut().unwrap();
    loaded[0].1 = Err(
        "cannot load the hook \"bind4_tracing\" (fexit inet_bind): Permission denied (os error 13)"
            .to_owned(),
    );
    findings
}

const LOOK: Look = Look {
    width: 80,
    color: false,
    quiet: false,
    verbose: false,
};

/// As printed, but for the version, which snapshots should outlive.
fn text_of(findings: Findings) -> String {
    shown(findings, LOOK)
}

fn shown(findings: Findings, look: Look) -> String {
    text::render(&report::report(findings), look).replace(env!("CARGO_PKG_VERSION"), "VERSION")
}

#[test]
fn where_all_is_fine() {
    insta::assert_snapshot!(text_of(all_fine()));
}

#[test]
fn where_only_raw_tracepoints_are_permitted() {
    insta::assert_snapshot!(text_of(locked()));
}

#[test]
fn without_root() {
    insta::assert_snapshot!(text_of(no_root()));
}

#[test]
fn without_btf() {
    insta::assert_snapshot!(text_of(no_btf()));
}

#[test]
fn where_a_prototype_changed() {
    insta::assert_snapshot!(text_of(changed_prototype()));
}

#[test]
fn where_the_verifier_refuses_and_memory_is_short() {
    insta::assert_snapshot!(text_of(verifier_says_no()));
}

#[test]
fn with_every_hook_and_field() {
    let look = Look {
        verbose: true,
        ..LOOK
    };
    insta::assert_snapshot!(shown(locked(), look));
}

#[test]
fn as_json() {
    let mut document: Value =
        serde_json::from_str(&json::render(&report::report(changed_prototype()))).unwrap();
    document["portwatch"]["version"] = "0.0.0".into();
    // The table of fields is long and stands in one place; three of them show the shape.
    document["fields"].as_array_mut().unwrap().retain(|field| {
        ["skc_num", "skc_reuse", "udp_hslot_size", "bucket_owners"]
            .iter()
            .any(|name| field["name"] == *name)
    });
    insta::assert_json_snapshot!(document);
}

#[test]
fn quiet_shows_problems_only() {
    let look = Look {
        quiet: true,
        ..LOOK
    };
    assert_eq!(text::render(&report::report(all_fine()), look), "");
    let text = text::render(&report::report(no_root()), look);
    assert_eq!(
        text,
        "What is in the way\n  - CAP_BPF and CAP_PERFMON missing\n    → run it with sudo\n"
    );
}

#[test]
fn colours_are_there_only_on_demand_and_take_no_columns() {
    let report = report::report(locked());
    let look = Look {
        color: true,
        ..LOOK
    };
    let painted = text::render(&report, look);
    assert!(painted.contains("\x1b[32mtrace works here, through raw_tp\x1b[0m"));
    let plain = anstream::adapter::strip_str(&painted).to_string();
    assert_eq!(plain, text::render(&report, LOOK));
}

#[test]
fn the_verdict_is_that_of_the_best_way_that_gets_through_every_stage() {
    for (findings, chosen, stages) in [
        (all_fine(), Some(Backend::Tracing), vec![]),
        (
            locked(),
            Some(Backend::RawTp),
            vec![Stage::Probe, Stage::Probe],
        ),
        (no_root(), None, vec![Stage::Probe; 3]),
        (no_btf(), None, vec![Stage::TypeInformation; 3]),
        (
            changed_prototype(),
            Some(Backend::RawTp),
            vec![Stage::Hooks, Stage::Hooks],
        ),
        (verifier_says_no(), Some(Backend::Kprobe), vec![Stage::Load]),
    ] {
        let report = report::report(findings);
        assert_eq!(report.chosen, chosen);
        let refusals = report.backends.iter().filter_map(|(_, verdict)| {
            let refusal = verdict.as_ref().err()?;
            Some(refusal.stage)
        });
        assert_eq!(refusals.collect::<Vec<_>>(), stages);
        // Whoever cannot trace is told why; and nothing blocks those who can.
        let blocked = report
            .problems
            .iter()
            .any(|problem| problem.severity == Severity::Blocks);
        assert_eq!(blocked, chosen.is_none());
        assert_eq!(report.degraded.is_empty(), chosen.is_none());
    }
}

#[test]
fn a_missing_field_blocks_and_is_named() {
    let mut findings = all_fine();
    findings.kernel.as_mut().unwrap().facts.fields = kernels::fields(&["net_inum"]);
    let report = report::report(findings);
    assert_eq!(report.chosen, None);
    assert!(report.problems[0].what.contains("net_inum"), "{report:?}");
    assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
}

#[test]
fn confidentiality_explains_why_nothing_works() {
    let mut findings = no_root();
    findings.privileges = Some(root());
    findings.lockdown = Some(Lockdown::Confidentiality);
    let report = report::report(findings);
    let what: Vec<_> = report.problems.iter().map(|one| &one.what).collect();
    assert_eq!(what.len(), 1, "{what:?}");
    assert!(what[0].contains("locked down"), "{what:?}");
}

#[test]
fn namespaces_of_ones_own_limit_what_is_told() {
    let mut findings = all_fine();
    findings.container = ContainerHints {
        runtime: Some("podman".to_owned()),
        initial_pid_namespace: Some(false),
        initial_cgroup_namespace: Some(false),
    };
    let report = report::report(findings);
    let next: String = report
        .problems
        .iter()
        .map(|one| one.next.as_str())
        .collect();
    assert!(next.contains("--pid=host") && next.contains("--cgroupns=host"));
}

#[test]
fn bpf_without_the_rest_of_root_names_what_will_be_missing() {
    let mut findings = all_fine();
    findings.privileges = Some(Privileges {
        uid: 1000,
        // CAP_BPF and CAP_PERFMON.
        effective: CapabilitySet(1 << 39 | 1 << 38),
        ..root()
    });
    let report = report::report(findings);
    assert_eq!(report.chosen, Some(Backend::Tracing));
    let names = [
        "CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH missing",
        "CAP_DAC_READ_SEARCH missing",
        "CAP_SYS_ADMIN and CAP_SYS_PTRACE missing",
        "CAP_NET_ADMIN and CAP_SYS_ADMIN missing",
        // For sockets of others, and for NAT.
        "CAP_NET_ADMIN missing",
        "CAP_NET_ADMIN missing",
    ];
    assert_eq!(report.problems.len(), names.len());
    for (problem, name) in report.problems.iter().zip(names) {
        assert!(problem.what.starts_with(name), "{problem:?}");
    }
}

#[test]
fn a_hook_with_a_function_nobody_knows_is_absent_or_missing() {
    let mut findings = all_fine();
    let prototypes = &mut findings.kernel.as_mut().unwrap().facts.prototypes;
    for name in ["tcp_v6_connect", "__inet_listen_sk", "inet_listen"] {
        prototypes.remove(name);
    }
    let report = report::report(findings);
    let status = |purpose: &str| {
        let mut hooks = report.hooks.iter();
        hooks.find(|hook| hook.purpose == purpose).unwrap().status
    };
    assert_eq!(
        status("TCP connect over IPv6: result of the call"),
        HookStatus::Absent
    );
    assert_eq!(status("listen"), HookStatus::Missing);
    assert_eq!(status("bind, IPv4"), HookStatus::Found);
}

static PUBLISHED: LazyLock<[Validator; 2]> = LazyLock::new(|| {
    let text = include_str!("../../../../docs/schema/doctor-1.json");
    let published: Value = serde_json::from_str(text).unwrap();
    assert!(jsonschema::draft202012::meta::is_valid(&published));
    let mut strict = published.clone();
    schema::close(&mut strict);
    [&published, &strict].map(schema::validator)
});

/// What is wrong with the JSON of a report, by the published schema and by its strict reading.
fn mistakes(report: &Report) -> Vec<String> {
    let line = json::render(report);
    assert_eq!(line.matches('\n').count(), 1, "one line");
    let document: Value = serde_json::from_str(&line).unwrap();
    let validators = PUBLISHED.iter();
    validators
        .flat_map(|validator| validator.iter_errors(&document))
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

#[test]
fn the_json_is_what_the_schema_says() {
    for findings in [
        all_fine(),
        locked(),
        no_root(),
        no_btf(),
        changed_prototype(),
        verifier_says_no(),
    ] {
        assert_eq!(mistakes(&report::report(findings)), [""; 0]);
    }
}

#[test]
fn the_schema_refuses_what_we_never_say() {
    let document: Value = serde_json::from_str(&json::render(&report::report(all_fine()))).unwrap();
    for (pointer, wrong) in [
        ("/schema", Value::from("portwatch/2")),
        ("/backend/chosen", Value::from("ptrace")),
        ("/backend/tracing/possible", Value::from(1)),
        ("/hooks/0/status", Value::from("ok")),
        ("/fields/0/offset", Value::from(-1)),
        ("/lockdown", Value::Null),
        ("/memlock/soft", Value::from("infinity")),
        ("/privileges/missing", Value::from("CAP_BPF")),
    ] {
        let mut document = document.clone();
        *document.pointer_mut(pointer).unwrap() = wrong;
        assert!(!PUBLISHED[0].is_valid(&document), "{pointer}");
    }
}

#[test]
fn this_machine_has_a_report() {
    let report = report::report(findings::gather());
    assert_eq!(mistakes(&report), [""; 0]);
    let text = text::render(&report, LOOK);
    assert_eq!(text.contains("trace works here"), report.chosen.is_some());
    assert_eq!(report.problems.is_empty(), !text.contains('→'));
}

fn any_findings() -> impl Strategy<Value = Findings> {
    let machine = prop_oneof![Just(0usize), Just(1), Just(2), Just(3), Just(4), Just(5)];
    (
        machine,
        any::<u64>(),
        any::<[bool; 4]>(),
        proptest::option::of("\\PC{0,40}|[\\x00-\\x1f]{0,9}"),
        proptest::option::of(any::<(Option<u64>, Option<u64>)>()),
    )
        .prop_map(|(machine, effective, bits, text, limit)| {
            let makers = [
                all_fine,
                locked,
                no_root,
                no_btf,
                changed_prototype,
                verifier_says_no,
            ];
            let mut findings = makers[machine]();
            findings.privileges = Some(Privileges {
                effective: CapabilitySet(effective),
                no_new_privileges: bits[0],
                seccomp_filter: bits[1],
                initial_user_namespace: bits[2],
                ..root()
            });
            if bits[3] {
                findings.lockdown = Some(Lockdown::Confidentiality);
                findings.privileges = findings.privileges.filter(|_| bits[2]);
            }
            findings.release = text.as_deref().map(Release::parse);
            findings.container.runtime = text.filter(|text| !text.is_empty());
            findings.memlock = limit.map(|(soft, hard)| Limit { soft, hard });
            findings
        })
}

proptest! {
    #[test]
    fn any_machine_has_a_report_that_fits_and_harms_nobody(findings in any_findings()) {
        let report = report::report(findings);
        prop_assert_eq!(mistakes(&report), [""; 0]);
        for verbose in [false, true] {
            let text = text::render(&report, Look { verbose, ..LOOK });
            prop_assert!(!text.chars().any(|one| one.is_control() && one != '\n'), "{:?}", text);
            for line in text.lines() {
                // A word that is too long for a line is not broken, so that it can be copied.
                let words = line.split_whitespace().count();
                let width = unicode_width::UnicodeWidthStr::width(line);
                prop_assert!(width <= 80 || words <= 2 || line.starts_with("portwatch"), "{}", line);
            }
        }
        prop_assert_eq!(
            report.chosen.is_none(),
            report.problems.iter().any(|problem| problem.severity == Severity::Blocks)
        );
    }
}
