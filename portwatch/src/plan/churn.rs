//! The plan of `churn`: hooks of its own, beside none of the others'.

use super::{
    Attach, Attachment, Facts, Plan, PlanError, Snapshot, Use, choose,
    generation::Generation,
    hooks::{
        Hook, Need, Program, Target, Way,
        Way::{FEntry, FExit, KProbe, KRetProbe, RawTracepoint},
        When,
    },
    known,
};
use crate::selection::Selection;

/// The socket is the second argument; the tables before it are of no use.
const HASH_CONNECT: &[&str] = &["int (struct inet_timewait_death_row *, struct sock *)"];

const BIND_SK: &[&str] = super::hooks::BIND_SK;
const BIND_SOCKET: &[&str] = super::hooks::BIND_SOCKET;

/// What a socket keeps after it is closed goes to a table by a function that since 6.10 starts its timer too
/// (net/ipv4/inet_timewait_sock.c, 4d2ef5b5d7b0).
const HASHDANCE_SCHEDULE: &[&str] =
    &["void (struct inet_timewait_sock *, struct sock *, struct inet_hashinfo *, int)"];
const HASHDANCE: &[&str] =
    &["void (struct inet_timewait_sock *, struct sock *, struct inet_hashinfo *)"];

const fn hook(purpose: &'static str, need: Need, targets: &'static [Target]) -> Hook {
    Hook {
        purpose,
        targets,
        when: When::Churn,
        need,
        timing: &[],
        noting: &[],
        tracing: &[],
        kprobe: &[],
        raw_tp: &[],
    }
}

/// The hooks. Which functions see what was measured on 5.10, 6.1, 6.12 and 7.3.
pub const HOOKS: &[Hook] = &[
    Hook {
        tracing: &[
            Program("churn_search4_tracing", FEntry),
            Program("churn_connect4_tracing", FExit),
        ],
        kprobe: &[
            Program("churn_connect4_enter_kprobe", KProbe),
            Program("churn_connect4_kprobe", KRetProbe),
        ],
        ..hook(
            "ports taken by connect, IPv4",
            Need::Required,
            &[Target {
                name: "inet_hash_connect",
                prototypes: HASH_CONNECT,
            }],
        )
    },
    Hook {
        tracing: &[
            Program("churn_search6_tracing", FEntry),
            Program("churn_connect6_tracing", FExit),
        ],
        kprobe: &[
            Program("churn_connect6_enter_kprobe", KProbe),
            Program("churn_connect6_kprobe", KRetProbe),
        ],
        ..hook(
            "ports taken by connect, IPv6",
            Need::Optional,
            &[Target {
                name: "inet6_hash_connect",
                prototypes: HASH_CONNECT,
            }],
        )
    },
    Hook {
        tracing: &[Program("churn_listen_tracing", FExit)],
        kprobe: &[
            Program("churn_listen_enter_kprobe", KProbe),
            Program("churn_listen_kprobe", KRetProbe),
        ],
        ..hook(
            "ports taken by listen",
            Need::Required,
            &[Target {
                name: "inet_csk_get_port",
                prototypes: &["int (struct sock *, short unsigned int)"],
            }],
        )
    },
    Hook {
        tracing: &[Program("churn_bind4_tracing", FExit)],
        kprobe: &[
            Program("churn_bind_enter_kprobe", KProbe),
            Program("churn_bind_kprobe", KRetProbe),
        ],
        ..hook(
            "ports taken by bind, IPv4",
            Need::Required,
            &[
                Target {
                    name: "inet_bind_sk",
                    prototypes: BIND_SK,
                },
                Target {
                    name: "inet_bind",
                    prototypes: BIND_SOCKET,
                },
            ],
        )
    },
    Hook {
        tracing: &[Program("churn_bind6_tracing", FExit)],
        kprobe: &[
            Program("churn_bind_enter_kprobe", KProbe),
            Program("churn_bind_kprobe", KRetProbe),
        ],
        ..hook(
            "ports taken by bind, IPv6",
            Need::Optional,
            &[
                Target {
                    name: "inet6_bind_sk",
                    prototypes: BIND_SK,
                },
                Target {
                    name: "inet6_bind",
                    prototypes: BIND_SOCKET,
                },
            ],
        )
    },
    Hook {
        tracing: &[Program("churn_autobind_tracing", FExit)],
        kprobe: &[
            Program("churn_autobind_enter_kprobe", KProbe),
            Program("churn_autobind_kprobe", KRetProbe),
        ],
        ..hook(
            "ports taken by UDP connect and send",
            Need::Required,
            &[Target {
                name: "inet_autobind",
                prototypes: &["int (struct sock *)"],
            }],
        )
    },
    Hook {
        tracing: &[Program("churn_put_tracing", FEntry)],
        kprobe: &[Program("churn_put_kprobe", KProbe)],
        ..hook(
            "TCP ports given back",
            Need::Required,
            &[Target {
                name: "inet_put_port",
                prototypes: &["void (struct sock *)"],
            }],
        )
    },
    Hook {
        tracing: &[Program("churn_unhash_tracing", FEntry)],
        kprobe: &[Program("churn_unhash_kprobe", KProbe)],
        ..hook(
            "UDP ports given back",
            Need::Required,
            &[Target {
                name: "udp_lib_unhash",
                prototypes: &["void (struct sock *)"],
            }],
        )
    },
    Hook {
        tracing: &[Program("churn_wait_tracing", FEntry)],
        kprobe: &[Program("churn_wait_kprobe", KProbe)],
        ..hook(
            "connections that enter TIME_WAIT",
            Need::Required,
            &[
                Target {
                    name: "inet_twsk_hashdance_schedule",
                    prototypes: HASHDANCE_SCHEDULE,
                },
                Target {
                    name: "inet_twsk_hashdance",
                    prototypes: HASHDANCE,
                },
            ],
        )
    },
    Hook {
        tracing: &[Program("churn_waited_tracing", FEntry)],
        kprobe: &[Program("churn_waited_kprobe", KProbe)],
        ..hook(
            "connections that leave TIME_WAIT",
            Need::Required,
            &[Target {
                name: "inet_twsk_kill",
                prototypes: &["void (struct inet_timewait_sock *)"],
            }],
        )
    },
    Hook {
        raw_tp: &[Program("churn_sys_exit_raw", RawTracepoint)],
        ..hook(
            "results of bind and listen calls",
            Need::Required,
            &[Target {
                name: "sys_exit",
                prototypes: &[
                    "void (struct pt_regs *, long int)",
                    "int (struct pt_regs *, long int)",
                ],
            }],
        )
    },
    Hook {
        raw_tp: &[Program("churn_state_raw", RawTracepoint)],
        ..hook(
            "states of TCP sockets",
            Need::Required,
            &[Target {
                name: "inet_sock_set_state",
                prototypes: &[
                    "void (struct sock *, int, int)",
                    "int (struct sock *, int, int)",
                ],
            }],
        )
    },
];

/// The kernel's iterator over the TCP sockets of a network namespace (net/ipv4/tcp_ipv4.c).
pub const CONNECTIONS: Target = Target {
    name: "bpf_iter_tcp",
    prototypes: &["int (struct bpf_iter_meta *, struct sock_common *, uid_t)"],
};

/// Makes the plan; `descendants`: of a command alone.
///
/// # Errors
/// When a needed field is missing, or no wanted way in works; with the reason of each.
pub fn plan(facts: &Facts, descendants: bool, attach: Attach) -> Result<Plan, PlanError> {
    let selection = Selection {
        descendants,
        brief: true,
        ..Selection::default()
    };
    choose(facts, &selection, attach, Snapshot::Unneeded, |hook| {
        let wanted = match hook.when {
            When::Churn => true,
            When::Descendants => descendants,
            When::Ops(_) | When::OpsAndOwners(_) | When::OpsAndNotes(_) => false,
        };
        wanted.then_some(Use::Events)
    })
}

/// The iterators by which ports are found that are held already: over descriptors, and over connections.
///
/// # Errors
/// Why they cannot be used.
pub fn iterators(facts: &Facts) -> Result<[Attachment; 2], String> {
    let mut descriptors = super::iterator(facts)?;
    descriptors.program = "churn_descriptors";
    let target = known(&CONNECTIONS, &facts.prototypes)?;
    Ok([
        descriptors,
        Attachment {
            program: "churn_connections",
            generation: Generation::of(facts),
            way: Way::Iterator,
            target: target.ok_or("the kernel has no iterator over TCP sockets")?,
        },
    ])
}
