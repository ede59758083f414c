#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, fmt::Write as _};

use super::{
    kernels::{self, Kernel, facts},
    *,
};

fn default_selection() -> Selection {
    only(&[Op::Bind, Op::Listen, Op::Connect, Op::Autobind])
}

fn only(events: &[Op]) -> Selection {
    Selection {
        events: events.to_vec(),
        ..Selection::default()
    }
}

/// A plan as text, one program a line.
fn shown(plan: &Plan) -> String {
    let Plan {
        backend,
        attachments,
        snapshot,
        config,
        stepped_down,
        without,
    } = plan;
    let mut text = format!("{}\n", backend.as_str());
    for (better, reason) in stepped_down {
        writeln!(text, "not {}: {reason}", better.as_str()).unwrap();
    }
    for purpose in without {
        writeln!(text, "without: {purpose}").unwrap();
    }
    for attachment in attachments {
        writeln!(text, "{}", line(attachment)).unwrap();
    }
    match snapshot {
        Snapshot::Unneeded => {}
        Snapshot::Iterator(program) => writeln!(text, "older sockets: {}", line(program)).unwrap(),
        Snapshot::Procfs(reason) => {
            writeln!(text, "older sockets: in /proc: {reason}").unwrap();
        }
    }
    writeln!(text, "{config:?}").unwrap();
    text
}

fn line(attachment: &Attachment) -> String {
    let Attachment {
        program,
        generation,
        way,
        target,
    } = attachment;
    format!("{way:?} {target} {program} ({})", generation.as_str())
}

/// Everything that a kernel can be asked for: each backend, with and without a command.
fn plans(kernel: Kernel) -> String {
    let facts = facts(kernel);
    let everything = Selection {
        descendants: true,
        ..only(&Op::ALL)
    };
    let mut text = shown(&plan(&facts, &default_selection(), Attach::Auto).unwrap());
    for backend in PREFERENCE {
        match plan(&facts, &everything, Attach::Only(backend)) {
            Ok(plan) => write!(text, "\n--attach {}", shown(&plan)).unwrap(),
            Err(error) => writeln!(text, "\n--attach {}\n{error}", backend.as_str()).unwrap(),
        }
    }
    text
}

#[test]
fn on_5_10() {
    insta::assert_snapshot!(plans(Kernel::V5_10));
}

#[test]
fn on_6_1() {
    insta::assert_snapshot!(plans(Kernel::V6_1));
}

#[test]
fn on_6_12() {
    insta::assert_snapshot!(plans(Kernel::V6_12));
}

#[test]
fn on_6_18_locked() {
    insta::assert_snapshot!(plans(Kernel::V6_18Locked));
}

#[test]
fn on_7_3() {
    insta::assert_snapshot!(plans(Kernel::V7_3));
}

fn programs_of(plan: &Plan) -> Vec<&'static str> {
    let attachments = plan.attachments.iter();
    attachments.map(|attachment| attachment.program).collect()
}

#[test]
fn one_kind_of_event_attaches_what_it_needs_and_no_more() {
    let facts = facts(Kernel::V6_12);
    for (backend, events, programs) in [
        (
            Backend::Tracing,
            &[Op::Listen][..],
            // Also whoever gets a port, and gives it back.
            &[
                "bind4_tracing",
                "bind6_tracing",
                "listen_tracing",
                "listen_early_tracing",
                "listen_refused_tracing",
                "state_tracing",
                "autobind_tracing",
                "listen_enter_tracing",
                "release_tracing",
            ][..],
        ),
        (
            Backend::Tracing,
            &[Op::Autobind],
            &[
                "connect_datagram_tracing",
                "autobind_tracing",
                "connect_datagram_enter_tracing",
                "autobind_enter_tracing",
            ],
        ),
        (
            Backend::Kprobe,
            &[Op::Listen],
            &[
                "bind_kprobe",
                "bind_kprobe",
                "listen_kprobe",
                "listen_early_kprobe",
                "listen_refused_kprobe",
                "state_raw",
                "autobind_kprobe",
                "bind_enter_kprobe",
                "bind_enter_kprobe",
                "listen_enter_kprobe",
                "listen_early_enter_kprobe",
                "listen_refused_enter_kprobe",
                "autobind_enter_kprobe",
                "release_kprobe",
            ],
        ),
        (
            Backend::Tracing,
            &[Op::Accept],
            &[
                "accept_failed_tracing",
                "accept_enter_tracing",
                "accepted_tracing",
            ],
        ),
        (
            Backend::Kprobe,
            &[Op::Accept],
            &["accept_enter_kprobe", "accepted_kprobe"],
        ),
        (Backend::RawTp, &[Op::Accept], &["accept_exit_raw"]),
        (
            Backend::Tracing,
            &[Op::Release],
            &[
                "held_tcp_tracing",
                "held_connect4_tracing",
                "held_connect6_tracing",
                "held_udp_tracing",
                "leave_tcp_tracing",
                "leave_wait_tracing",
                "leave_udp_tracing",
                "release_tracing",
                "accepted_tracing",
                "leave_tcp_enter_tracing",
                "leave_wait_enter_tracing",
                "leave_udp_enter_tracing",
            ],
        ),
        (
            Backend::RawTp,
            &[Op::Listen],
            &["state_raw", "sys_exit_raw"],
        ),
        (
            Backend::RawTp,
            &[Op::Connect],
            &["state_raw", "sys_exit_raw"],
        ),
    ] {
        let plan = plan(&facts, &only(events), Attach::Only(backend)).unwrap();
        assert_eq!(programs_of(&plan), programs, "{backend:?} {events:?}");
        assert_eq!(
            plan.config.ops,
            events.iter().fold(0, |bits, op| bits | 1 << number(*op))
        );
    }
}

#[test]
fn every_selection_of_events_has_a_plan_on_every_kernel_and_way_in() {
    for kernel in Kernel::ALL {
        let facts = facts(kernel);
        for bits in 1..1 << Op::ALL.len() {
            let events: Vec<Op> = Op::ALL
                .into_iter()
                .enumerate()
                .filter(|(at, _)| bits >> at & 1 == 1)
                .map(|(_, op)| op)
                .collect();
            for backend in PREFERENCE {
                let plan = plan(&facts, &only(&events), Attach::Only(backend));
                let is_seen = |op: &Op| !matches!(op, Op::Release | Op::Autobind);
                let sees_any = backend != Backend::RawTp || events.iter().any(is_seen);
                assert_eq!(plan.is_ok(), facts.allows(backend).is_ok() && sees_any);
                let Ok(plan) = plan else { continue };
                assert!(!plan.attachments.is_empty(), "{kernel:?} {backend:?}");
                // None at the same place twice; of those that are loaded for one place none twice at all.
                let places = plan.attachments.iter().map(|one| {
                    let is_for_one = !matches!(one.way, Way::KProbe | Way::KRetProbe);
                    (one.program, (!is_for_one).then_some(one.target))
                });
                let different: BTreeSet<_> = places.collect();
                assert_eq!(different.len(), plan.attachments.len());
            }
        }
    }
}

#[test]
fn returns_are_attached_before_entries() {
    for kernel in Kernel::ALL {
        for backend in PREFERENCE {
            let selection = only(&Op::ALL);
            let Ok(plan) = plan(&facts(kernel), &selection, Attach::Only(backend)) else {
                continue;
            };
            let is_entry = |one: &Attachment| matches!(one.way, Way::FEntry | Way::KProbe);
            let first = plan.attachments.iter().position(is_entry);
            let first = first.unwrap_or(plan.attachments.len());
            assert!(plan.attachments[first..].iter().all(is_entry));
            // Every function that is entered is also left, but for those of which the entry tells all.
            let alone = ["inet_release", "inet_csk_accept", "security_sock_graft"];
            let entries = plan.attachments[first..].iter();
            for entry in entries.filter(|entry| !alone.contains(&entry.target)) {
                let mut before = plan.attachments[..first].iter();
                assert!(
                    before.any(|one| one.target == entry.target),
                    "{} of {kernel:?}",
                    entry.target
                );
            }
        }
    }
}

#[test]
fn a_changed_prototype_is_an_error_that_names_the_function() {
    let mut facts = facts(Kernel::V6_12);
    let changed = "int (struct sock *, struct sockaddr *, int, u32)";
    facts.prototypes.insert("inet_bind_sk", changed.to_owned());
    let error = plan(&facts, &default_selection(), Attach::Only(Backend::Tracing)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "tracing: inet_bind_sk has another prototype on this kernel: int (struct sock *, struct \
         sockaddr *, int, u32), expected int (struct sock *, struct sockaddr *, int) or int (struct \
         sock *, struct sockaddr_unsized *, int)"
    );
    // Nor is it passed over in favour of the older function, which MPTCP does not call.
    assert!(plan(&facts, &only(&[Op::Bind]), Attach::Only(Backend::Kprobe)).is_err());
    // Where it is not needed, it does not matter; and another way in may not need it.
    assert!(plan(&facts, &only(&[Op::Listen]), Attach::Only(Backend::Tracing)).is_ok());
    let plan = plan(&facts, &default_selection(), Attach::Auto).unwrap();
    assert_eq!(plan.backend, Backend::RawTp);
    let reasons: Vec<_> = plan
        .stepped_down
        .iter()
        .map(|(backend, _)| *backend)
        .collect();
    assert_eq!(reasons, [Backend::Tracing, Backend::Kprobe]);
}

#[test]
fn a_changed_prototype_of_an_optional_function_is_an_error_too() {
    let mut facts = facts(Kernel::V6_12);
    let changed = "void (struct socket *)".to_owned();
    facts.prototypes.insert("security_socket_bind", changed);
    let error = plan(&facts, &default_selection(), Attach::Only(Backend::Tracing)).unwrap_err();
    assert!(
        error.to_string().contains("security_socket_bind"),
        "{error}"
    );
}

#[test]
fn a_required_function_that_is_missing_is_an_error_that_names_what_was_looked_for() {
    let mut facts = facts(Kernel::V6_1);
    facts.prototypes.remove("inet_listen");
    let error = plan(&facts, &default_selection(), Attach::Only(Backend::Kprobe)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "kprobe: this kernel has no function for the hook \"listen\" (__inet_listen_sk, inet_listen)"
    );
}

#[test]
fn an_optional_function_that_is_missing_is_told() {
    let mut facts = facts(Kernel::V6_12);
    // Without IPv6 and without security modules.
    for name in ["inet6_bind_sk", "inet6_bind", "security_socket_bind"] {
        facts.prototypes.remove(name);
    }
    let plan = plan(&facts, &only(&[Op::Bind]), Attach::Auto).unwrap();
    assert_eq!(plan.backend, Backend::Tracing);
    assert_eq!(
        plan.without,
        ["bind, IPv6", "bind refused by a security module"]
    );
    assert_eq!(
        programs_of(&plan),
        [
            "bind4_tracing",
            "state_tracing",
            "autobind_tracing",
            "bind4_enter_tracing",
            "release_tracing"
        ]
    );
}

#[test]
fn older_sockets_are_found_by_the_iterator_whatever_the_way_in() {
    for kernel in Kernel::ALL {
        let facts = facts(kernel);
        for backend in PREFERENCE {
            let Ok(plan) = plan(&facts, &default_selection(), Attach::Only(backend)) else {
                continue;
            };
            let Snapshot::Iterator(program) = plan.snapshot else {
                panic!("{kernel:?} {backend:?}: {:?}", plan.snapshot);
            };
            assert_eq!(program.target, DESCRIPTORS.name);
            assert_eq!(program.generation, Generation::of(&facts));
            // It is loaded with the others, and attached by nobody.
            assert!(plan.programs().any(|one| one == program));
            assert!(!plan.attachments.contains(&program));
        }
    }
}

#[test]
fn older_sockets_are_found_in_proc_where_there_is_no_iterator_that_we_know() {
    let reason = |facts: &Facts| match snapshot(facts, &default_selection()) {
        Snapshot::Procfs(reason) => reason,
        other => panic!("{other:?}"),
    };
    let mut facts = facts(Kernel::V6_12);
    let changed = "int (struct bpf_iter_meta *, struct file *)".to_owned();
    facts.prototypes.insert(DESCRIPTORS.name, changed);
    assert!(reason(&facts).starts_with("bpf_iter_task_file has another prototype"));
    facts.prototypes.remove(DESCRIPTORS.name);
    assert_eq!(
        reason(&facts),
        "the kernel has no iterator over descriptors"
    );
    facts.iterator = Err("the kernel does not permit iterators".to_owned());
    assert_eq!(reason(&facts), "the kernel does not permit iterators");
}

#[test]
fn older_sockets_do_not_matter_where_none_can_be_in_the_way() {
    let facts = facts(Kernel::V6_12);
    let needed = |ops: &[Op]| snapshot(&facts, &only(ops)) != Snapshot::Unneeded;
    assert!(!needed(&[Op::Connect, Op::Autobind]));
    assert!(needed(&[Op::Bind]) && needed(&[Op::Listen, Op::Connect]));
}

#[test]
fn a_missing_field_is_named_whatever_the_way_in() {
    let mut facts = facts(Kernel::V7_3);
    facts.fields = kernels::fields(&["sk_uid", "bucket_owners", "net_inum"]);
    for attach in [Attach::Auto, Attach::Only(Backend::RawTp)] {
        let error = plan(&facts, &default_selection(), attach).unwrap_err();
        assert_eq!(
            error.to_string(),
            "this kernel's type information lacks what portwatch reads: sk_uid, net_inum"
        );
    }
}

#[test]
fn no_way_in_gives_the_reason_of_each() {
    let mut facts = facts(Kernel::V6_18Locked);
    facts.refuse(Backend::RawTp, "the verifier is in a bad mood".to_owned());
    let error = plan(&facts, &default_selection(), Attach::Auto).unwrap_err();
    assert_eq!(
        error.to_string(),
        "tracing: the kernel does not permit tracing programs (fentry, fexit); kprobe: the kernel \
         is built without kprobes; raw_tp: the verifier is in a bad mood"
    );
}

#[test]
fn a_refused_way_in_leads_to_the_next() {
    let mut facts = facts(Kernel::V6_12);
    for expected in PREFERENCE {
        let plan = plan(&facts, &default_selection(), Attach::Auto).unwrap();
        assert_eq!(plan.backend, expected);
        facts.refuse(expected, "no".to_owned());
    }
}

#[test]
fn what_text_does_not_show_is_not_collected_unless_a_filter_needs_it() {
    let facts = facts(Kernel::V6_12);
    let brief = |selection: Selection| {
        let selection = Selection {
            brief: true,
            ..selection
        };
        plan(&facts, &selection, Attach::Auto).unwrap()
    };
    let whole = plan(&facts, &default_selection(), Attach::Auto).unwrap();
    assert_eq!(whole.config.details, detail::ALL);
    assert!(programs_of(&whole).contains(&"bind4_enter_tracing"));
    let text = brief(default_selection());
    assert_eq!(text.config.details, 0);
    assert!(!programs_of(&text).contains(&"bind4_enter_tracing"));
    // It tells a call that goes on from one that begins, not only the time.
    assert!(programs_of(&text).contains(&"connect_stream_enter_tracing"));
    let by_user = brief(Selection {
        uids: vec![33],
        ..default_selection()
    });
    assert_eq!(by_user.config.details, detail::USER);
    let by_container = brief(Selection {
        containers: vec!["abc".to_owned()],
        ..default_selection()
    });
    assert_eq!(by_container.config.details, detail::CGROUP);
}

#[test]
fn what_the_kernel_can_decide_is_handed_to_it() {
    let facts = facts(Kernel::V6_12);
    let config = |selection: Selection| plan(&facts, &selection, Attach::Auto).unwrap().config;
    let all = config(default_selection());
    assert_eq!(
        all.protocols,
        protocol::TCP | protocol::UDP | protocol::OTHER
    );
    assert_eq!(all.families, family::V4 | family::V6);
    assert_eq!((all.filters, all.failed_only), (0, 0));
    let narrow = config(Selection {
        transports: vec![Transport::Udp],
        families: vec![Family::Ipv6],
        ports: vec![80..=90],
        peer_ports: vec![443..=443],
        pids: vec![1],
        uids: vec![0],
        netns: vec![7],
        cgroups: vec!["/x".to_owned()],
        descendants: true,
        failed: true,
        ..default_selection()
    });
    assert_eq!(narrow.protocols, protocol::UDP);
    assert_eq!(narrow.families, family::V6);
    assert_eq!(narrow.failed_only, 1);
    assert_eq!(
        narrow.filters,
        filter::PORT
            | filter::PEER_PORT
            | filter::PID
            | filter::UID
            | filter::NETNS
            | filter::CGROUP
            | filter::DESCENDANTS
    );
    assert_eq!((narrow.only_pid, narrow.only_netns), (1, 7));
    let several = config(Selection {
        pids: vec![1, 2],
        netns: vec![7, 8],
        ..default_selection()
    });
    // These stand in the maps.
    assert_eq!((several.only_pid, several.only_netns), (0, 0));
    assert_eq!(several.filters, filter::PID | filter::NETNS);
    // Names and containers are for user space; conflicts are failures first of all.
    let named = config(Selection {
        comms: vec!["nginx".to_owned()],
        containers: vec!["abc".to_owned()],
        conflicts: true,
        ..default_selection()
    });
    assert_eq!((named.filters, named.failed_only), (0, 1));
}

#[test]
fn the_programs_are_told_which_argument_they_get() {
    for (kernel, takes_socket) in [
        (Kernel::V5_10, 1),
        (Kernel::V6_1, 1),
        (Kernel::V6_12, 0),
        (Kernel::V7_3, 0),
    ] {
        let plan = plan(&facts(kernel), &default_selection(), Attach::Auto).unwrap();
        assert_eq!(plan.config.bind_takes_socket, takes_socket, "{kernel:?}");
        assert_eq!(plan.config.listen_takes_socket, takes_socket, "{kernel:?}");
    }
}

#[test]
fn every_hook_is_used_and_every_blind_spot_told_once() {
    for hook in hooks::all() {
        assert!(
            PREFERENCE
                .into_iter()
                .any(|backend| !programs(hook, backend).is_empty()),
            "{}",
            hook.purpose
        );
        assert!(!hook.targets.is_empty(), "{}", hook.purpose);
    }
    for backend in PREFERENCE {
        let mut features: Vec<_> = blind::of(backend).map(|spot| spot.feature).collect();
        assert!(!features.is_empty());
        features.sort_unstable();
        let len = features.len();
        features.dedup();
        assert_eq!(features.len(), len);
    }
}

/// The plan of `churn` by a way in, with the programs in a line each.
fn of_churn(kernel: Kernel, backend: Backend) -> String {
    let plan = churn::plan(&facts(kernel), false, Attach::Only(backend)).unwrap();
    shown(&plan)
}

#[test]
fn churn_has_hooks_of_its_own_and_no_other_verb_has_them() {
    insta::assert_snapshot!(
        "churn",
        PREFERENCE
            .map(|backend| of_churn(Kernel::V6_12, backend))
            .join("\n")
    );
    for kernel in [Kernel::V5_10, Kernel::V6_1, Kernel::V6_12, Kernel::V7_3] {
        let names =
            |plan: &Plan| -> Vec<_> { plan.attachments.iter().map(|one| one.program).collect() };
        let own = churn::plan(&facts(kernel), false, Attach::Auto).unwrap();
        assert_eq!(own.backend, Backend::Tracing);
        assert!(names(&own).iter().all(|name| name.starts_with("churn_")));
        assert!(names(&own).contains(&"churn_waited_tracing"), "{kernel:?}");
        let others = plan(&facts(kernel), &default_selection(), Attach::Auto).unwrap();
        assert!(!names(&others).iter().any(|name| name.starts_with("churn_")));
        let followed = churn::plan(&facts(kernel), true, Attach::Auto).unwrap();
        assert!(names(&followed).contains(&"fork_tracing"), "{kernel:?}");
        assert!(churn::iterators(&facts(kernel)).is_ok());
    }
    let mut without = facts(Kernel::V6_12);
    without.prototypes.remove("bpf_iter_tcp");
    assert!(churn::iterators(&without).is_err_and(|why| why.contains("over TCP sockets")));
}
