//! The kernel functions that are hooked, what each is for, and the prototypes the programs rely on.
//!
//! A prototype is written as `Btf::prototype` shows it (`const` left out). It is compared with the
//! running kernel's before anything is attached: the return value of an fexit program *is* an
//! argument index, so a changed prototype would read garbage.

use crate::event::Op;

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// Trampoline at the entry.
    FEntry,
    /// Trampoline at the return.
    FExit,
    /// Tracepoint with typed arguments.
    BtfTracepoint,
    /// Breakpoint at the entry.
    KProbe,
    /// Replaced return address.
    KRetProbe,
    /// Tracepoint with plain arguments.
    RawTracepoint,
    /// Run for each item of a list when its file is read.
    Iterator,
}

/// A kernel function or tracepoint that a hook can use.
#[derive(Debug)]
pub struct Target {
    /// Name.
    pub name: &'static str,
    /// Prototypes that mean the same to the programs.
    pub prototypes: &'static [&'static str],
}

/// A program of the object and how it is attached.
#[derive(Clone, Copy, Debug)]
pub struct Program(pub &'static str, pub Way);

/// When a hook is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// If one of these is wanted.
    Ops(&'static [Op]),
    /// If one of these is wanted; and where a bind or listen can be told as refused, to note who gets a
    /// port: a filter must not change what a conflict names.
    OpsAndOwners(&'static [Op]),
    /// If one of these is wanted; and where something names who has closed a socket.
    OpsAndNotes(&'static [Op]),
    /// If a command and its descendants are followed.
    Descendants,
    /// For `churn`, which needs no other but those of a command.
    Churn,
}

/// What it means when a kernel has none of the targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// portwatch cannot do its work.
    Required,
    /// There is nothing to see either: the kernel lacks what the function belongs to.
    Optional,
    /// It is needed only beside this function; without it another hook sees the same.
    Beside(&'static str),
}

/// One hook.
#[derive(Debug)]
pub struct Hook {
    /// What it is for, in a few words.
    pub purpose: &'static str,
    /// Functions, the first that exists is taken.
    pub targets: &'static [Target],
    /// When it is attached.
    pub when: When,
    /// What its absence means.
    pub need: Need,
    /// Programs of the tracing backend that tell how long a call took, and nothing else.
    pub timing: &'static [Program],
    /// Programs of the tracing backend that only note who gets a port. They are short, so that hardly one
    /// is skipped where the kernel preempts programs: then it skips others of the same kind on that CPU.
    pub noting: &'static [Program],
    /// Programs of the tracing backend.
    pub tracing: &'static [Program],
    /// Programs of the kprobe backend. One may be of several hooks: it is loaded once, and attached to the function of
    /// each. (A program of the tracing backend is loaded for one function.)
    pub kprobe: &'static [Program],
    /// Programs of the raw tracepoint backend.
    pub raw_tp: &'static [Program],
}

use Way::{BtfTracepoint, FEntry, FExit, KProbe, KRetProbe, RawTracepoint};

/// What a call asks for by an address, a backlog or a datagram.
const CALLS: &[Op] = &[Op::Bind, Op::Listen, Op::Connect, Op::Autobind];

/// `struct sockaddr` became `struct sockaddr_unsized` in 7.x.
pub(super) const BIND_SK: &[&str] = &[
    "int (struct sock *, struct sockaddr *, int)",
    "int (struct sock *, struct sockaddr_unsized *, int)",
];
pub(super) const BIND_SOCKET: &[&str] = &[
    "int (struct socket *, struct sockaddr *, int)",
    "int (struct socket *, struct sockaddr_unsized *, int)",
];

/// Where the kernel has this function, connect() of an MPTCP socket passes `__inet_stream_connect` as
/// any other ("mptcp: factor out mptcp_connect()", 6.1). Not hooked.
pub const MPTCP_CONNECT: &str = "mptcp_connect";

/// The kernel's iterator over the descriptors of all processes, by which sockets and their processes are
/// found where iterators may be loaded (5.8; kernel/bpf/task_iter.c). Not a hook: it runs when it is read.
pub const DESCRIPTORS: Target = Target {
    name: "bpf_iter_task_file",
    prototypes: &["int (struct bpf_iter_meta *, struct task_struct *, u32, struct file *)"],
};

/// The hooks of every verb.
pub fn all() -> impl Iterator<Item = &'static Hook> {
    HOOKS.iter().chain(super::churn::HOOKS)
}

/// Hooks of what tells events one by one. Which functions see what was measured on 5.10, 6.1, 6.12 and 7.3.
pub const HOOKS: &[Hook] = &[
    Hook {
        purpose: "bind, IPv4",
        // MPTCP binds its inner socket through inet_bind_sk, not inet_bind, since 6.6
        // (net/mptcp/protocol.c, mptcp_bind).
        targets: &[
            Target {
                name: "inet_bind_sk",
                prototypes: BIND_SK,
            },
            Target {
                name: "inet_bind",
                prototypes: BIND_SOCKET,
            },
        ],
        when: When::OpsAndOwners(&[Op::Bind]),
        need: Need::Required,
        timing: &[Program("bind4_enter_tracing", FEntry)],
        noting: &[Program("taken4_tracing", FExit)],
        tracing: &[Program("bind4_tracing", FExit)],
        kprobe: &[
            Program("bind_enter_kprobe", KProbe),
            Program("bind_kprobe", KRetProbe),
        ],
        raw_tp: &[],
    },
    Hook {
        purpose: "bind, IPv6",
        targets: &[
            Target {
                name: "inet6_bind_sk",
                prototypes: BIND_SK,
            },
            Target {
                name: "inet6_bind",
                prototypes: BIND_SOCKET,
            },
        ],
        when: When::OpsAndOwners(&[Op::Bind]),
        need: Need::Optional,
        timing: &[Program("bind6_enter_tracing", FEntry)],
        noting: &[Program("taken6_tracing", FExit)],
        tracing: &[Program("bind6_tracing", FExit)],
        kprobe: &[
            Program("bind_enter_kprobe", KProbe),
            Program("bind_kprobe", KRetProbe),
        ],
        raw_tp: &[],
    },
    Hook {
        purpose: "bind refused by a security module",
        targets: &[Target {
            name: "security_socket_bind",
            prototypes: BIND_SOCKET,
        }],
        when: When::Ops(&[Op::Bind]),
        need: Need::Optional,
        timing: &[],
        noting: &[],
        tracing: &[Program("bind_refused_tracing", FExit)],
        kprobe: &[
            Program("bind_refused_enter_kprobe", KProbe),
            Program("bind_refused_kprobe", KRetProbe),
        ],
        raw_tp: &[],
    },
    Hook {
        purpose: "listen",
        targets: &[
            Target {
                name: "__inet_listen_sk",
                prototypes: &["int (struct sock *, int)"],
            },
            Target {
                name: "inet_listen",
                prototypes: &["int (struct socket *, int)"],
            },
        ],
        when: When::Ops(&[Op::Listen]),
        need: Need::Required,
        timing: &[Program("listen_enter_tracing", FEntry)],
        noting: &[],
        tracing: &[Program("listen_tracing", FExit)],
        kprobe: &[
            Program("listen_enter_kprobe", KProbe),
            Program("listen_kprobe", KRetProbe),
        ],
        raw_tp: &[],
    },
    Hook {
        purpose: "listen on a socket in use",
        // inet_listen refuses these before it calls __inet_listen_sk (net/ipv4/af_inet.c).
        targets: &[Target {
            name: "inet_listen",
            prototypes: &["int (struct socket *, int)"],
        }],
        when: When::Ops(&[Op::Listen]),
        need: Need::Beside("__inet_listen_sk"),
        timing: &[],
        noting: &[],
        tracing: &[Program("listen_early_tracing", FExit)],
        kprobe: &[
            Program("listen_early_enter_kprobe", KProbe),
            Program("listen_early_kprobe", KRetProbe),
        ],
        raw_tp: &[],
    },
    Hook {
        purpose: "listen refused by a security module",
        targets: &[Target {
            name: "security_socket_listen",
            prototypes: &["int (struct socket *, int)"],
        }],
        when: When::Ops(&[Op::Listen]),
        need: Need::Optional,
        timing: &[],
        noting: &[],
        tracing: &[Program("listen_refused_tracing", FExit)],
        kprobe: &[
            Program("listen_refused_enter_kprobe", KProbe),
            Program("listen_refused_kprobe", KRetProbe),
        ],
        raw_tp: &[],
    },
    Hook {
        purpose: "TCP connect: begin and outcome",
        targets: &[Target {
            name: "inet_sock_set_state",
            prototypes: &[
                "void (struct sock *, int, int)",
                "int (struct sock *, int, int)",
            ],
        }],
        when: When::OpsAndOwners(&[Op::Connect]),
        need: Need::Required,
        timing: &[],
        noting: &[],
        tracing: &[Program("state_tracing", BtfTracepoint)],
        kprobe: &[Program("state_raw", RawTracepoint)],
        raw_tp: &[Program("state_raw", RawTracepoint)],
    },
    Hook {
        purpose: "TCP connect: result of the call",
        targets: &[Target {
            name: "__inet_stream_connect",
            prototypes: &[
                "int (struct socket *, struct sockaddr *, int, int, int)",
                "int (struct socket *, struct sockaddr_unsized *, int, int, int)",
            ],
        }],
        when: When::Ops(&[Op::Connect]),
        need: Need::Required,
        timing: &[],
        noting: &[],
        tracing: &[
            Program("connect_stream_enter_tracing", FEntry),
            Program("connect_stream_tracing", FExit),
        ],
        // It sleeps: a kretprobe would lose most of its returns.
        kprobe: &[],
        raw_tp: &[],
    },
    Hook {
        purpose: "TCP connect over IPv4: result of the call",
        targets: &[Target {
            name: "tcp_v4_connect",
            prototypes: BIND_SK,
        }],
        when: When::Ops(&[Op::Connect]),
        need: Need::Required,
        timing: &[],
        noting: &[],
        tracing: &[],
        kprobe: &[
            Program("connect4_enter_kprobe", KProbe),
            Program("connect4_kprobe", KRetProbe),
        ],
        raw_tp: &[],
    },
    Hook {
        purpose: "TCP connect over IPv6: result of the call",
        targets: &[Target {
            name: "tcp_v6_connect",
            prototypes: BIND_SK,
        }],
        when: When::Ops(&[Op::Connect]),
        need: Need::Optional,
        timing: &[],
        noting: &[],
        tracing: &[],
        kprobe: &[
            Program("connect6_enter_kprobe", KProbe),
            Program("connect6_kprobe", KRetProbe),
        ],
        raw_tp: &[],
    },
    Hook {
        purpose: "TCP connect over IPv4 refused by a cgroup program",
        targets: &[Target {
            name: "tcp_v4_pre_connect",
            prototypes: BIND_SK,
        }],
        when: When::Ops(&[Op::Connect]),
        need: Need::Optional,
        timing: &[],
        noting: &[],
        tracing: &[],
        kprobe: &[
            Program("pre_connect_enter_kprobe", KProbe),
            Program("pre_connect_kprobe", KRetProbe),
        ],
        raw_tp: &[],
    },
    Hook {
        purpose: "TCP connect over IPv6 refused by a cgroup program",
        targets: &[Target {
            name: "tcp_v6_pre_connect",
            prototypes: BIND_SK,
        }],
        when: When::Ops(&[Op::Connect]),
        need: Need::Optional,
        timing: &[],
        noting: &[],
        tracing: &[],
        kprobe: &[
            Program("pre_connect_enter_kprobe", KProbe),
            Program("pre_connect_kprobe", KRetProbe),
        ],
        raw_tp: &[],
    },
    Hook {
        purpose: "UDP connect",
        targets: &[Target {
            name: "inet_dgram_connect",
            prototypes: &[
                "int (struct socket *, struct sockaddr *, int, int)",
                "int (struct socket *, struct sockaddr_unsized *, int, int)",
            ],
        }],
        // Autobind needs it to tell a port taken by connect() from one taken by a send.
        when: When::Ops(&[Op::Connect, Op::Autobind]),
        need: Need::Required,
        timing: &[],
        noting: &[],
        tracing: &[
            Program("connect_datagram_enter_tracing", FEntry),
            Program("connect_datagram_tracing", FExit),
        ],
        kprobe: &[
            Program("connect_datagram_enter_kprobe", KProbe),
            Program("connect_datagram_kprobe", KRetProbe),
        ],
        raw_tp: &[],
    },
    Hook {
        purpose: "connect refused by a security module",
        targets: &[Target {
            name: "security_socket_connect",
            prototypes: BIND_SOCKET,
        }],
        when: When::Ops(&[Op::Connect]),
        need: Need::Optional,
        timing: &[],
        noting: &[],
        tracing: &[Program("connect_refused_tracing", FExit)],
        kprobe: &[
            Program("connect_refused_enter_kprobe", KProbe),
            Program("connect_refused_kprobe", KRetProbe),
        ],
        raw_tp: &[],
    },
    Hook {
        purpose: "ports taken by sending a datagram",
        targets: &[Target {
            name: "inet_autobind",
            prototypes: &["int (struct sock *)"],
        }],
        when: When::OpsAndOwners(&[Op::Autobind]),
        need: Need::Required,
        timing: &[Program("autobind_enter_tracing", FEntry)],
        noting: &[],
        tracing: &[Program("autobind_tracing", FExit)],
        kprobe: &[
            Program("autobind_enter_kprobe", KProbe),
            Program("autobind_kprobe", KRetProbe),
        ],
        raw_tp: &[],
    },
    Hook {
        purpose: "who closes a socket",
        // Of all families, and of MPTCP (net/ipv4/af_inet.c; inet6_release ends in it).
        targets: &[Target {
            name: "inet_release",
            prototypes: &["int (struct socket *)"],
        }],
        when: When::OpsAndNotes(&[]),
        need: Need::Required,
        timing: &[],
        noting: &[],
        tracing: &[Program("release_tracing", FEntry)],
        kprobe: &[Program("release_kprobe", KProbe)],
        raw_tp: &[],
    },
    Hook {
        purpose: "accept: begin and failures",
        targets: &[Target {
            name: "inet_csk_accept",
            // Since 6.10 its arguments have a struct.
            prototypes: &[
                "struct sock * (struct sock *, int, int *, bool)",
                "struct sock * (struct sock *, struct proto_accept_arg *)",
            ],
        }],
        when: When::Ops(&[Op::Accept]),
        need: Need::Required,
        timing: &[Program("accept_enter_tracing", FEntry)],
        noting: &[],
        tracing: &[Program("accept_failed_tracing", FExit)],
        // It sleeps: a kretprobe would lose most of its returns.
        kprobe: &[Program("accept_enter_kprobe", KProbe)],
        raw_tp: &[],
    },
    Hook {
        purpose: "accept",
        // The end of sock_graft() (include/net/sock.h), by which the connection gets the struct socket of
        // the process that accepts it, after that has slept. Of MPTCP the outer one.
        targets: &[Target {
            name: "security_sock_graft",
            prototypes: &["void (struct sock *, struct socket *)"],
        }],
        // A connection that its peer resets is named by who has accepted it.
        when: When::Ops(&[Op::Accept, Op::Release]),
        need: Need::Required,
        timing: &[],
        noting: &[],
        tracing: &[Program("accepted_tracing", FEntry)],
        kprobe: &[Program("accepted_kprobe", KProbe)],
        raw_tp: &[],
    },
    Hook {
        purpose: "TCP ports that bind() and listen() take",
        targets: &[Target {
            name: "inet_csk_get_port",
            prototypes: &["int (struct sock *, short unsigned int)"],
        }],
        when: When::Ops(&[Op::Release]),
        need: Need::Required,
        timing: &[],
        noting: &[],
        tracing: &[Program("held_tcp_tracing", FExit)],
        kprobe: &[
            Program("held_tcp_enter_kprobe", KProbe),
            Program("held_tcp_kprobe", KRetProbe),
        ],
        raw_tp: &[],
    },
    Hook {
        purpose: "TCP ports that connect() takes over IPv4",
        targets: &[Target {
            name: "inet_hash_connect",
            prototypes: &["int (struct inet_timewait_death_row *, struct sock *)"],
        }],
        when: When::Ops(&[Op::Release]),
        need: Need::Required,
        timing: &[],
        noting: &[],
        tracing: &[Program("held_connect4_tracing", FExit)],
        kprobe: &[
            Program("held_connect4_enter_kprobe", KProbe),
            Program("held_connect4_kprobe", KRetProbe),
        ],
        raw_tp: &[],
    },
    Hook {
        purpose: "TCP ports that connect() takes over IPv6",
        targets: &[Target {
            name: "inet6_hash_connect",
            prototypes: &["int (struct inet_timewait_death_row *, struct sock *)"],
        }],
        when: When::Ops(&[Op::Release]),
        need: Need::Optional,
        timing: &[],
        noting: &[],
        tracing: &[Program("held_connect6_tracing", FExit)],
        kprobe: &[
            Program("held_connect6_enter_kprobe", KProbe),
            Program("held_connect6_kprobe", KRetProbe),
        ],
        raw_tp: &[],
    },
    Hook {
        purpose: "UDP ports that are taken",
        // Of both families.
        targets: &[Target {
            name: "udp_lib_get_port",
            prototypes: &["int (struct sock *, short unsigned int, unsigned int)"],
        }],
        when: When::Ops(&[Op::Release]),
        need: Need::Required,
        timing: &[],
        noting: &[],
        tracing: &[Program("held_udp_tracing", FExit)],
        kprobe: &[
            Program("held_udp_enter_kprobe", KProbe),
            Program("held_udp_kprobe", KRetProbe),
        ],
        raw_tp: &[],
    },
    Hook {
        purpose: "TCP sockets that give their port back",
        targets: &[Target {
            name: "inet_put_port",
            prototypes: &["void (struct sock *)"],
        }],
        when: When::Ops(&[Op::Release]),
        need: Need::Required,
        timing: &[],
        noting: &[],
        tracing: &[
            Program("leave_tcp_enter_tracing", FEntry),
            Program("leave_tcp_tracing", FExit),
        ],
        kprobe: &[
            Program("leave_tcp_enter_kprobe", KProbe),
            Program("leave_tcp_kprobe", KRetProbe),
        ],
        raw_tp: &[],
    },
    Hook {
        purpose: "ends of TIME_WAIT",
        targets: &[Target {
            name: "inet_twsk_kill",
            prototypes: &["void (struct inet_timewait_sock *)"],
        }],
        when: When::Ops(&[Op::Release]),
        need: Need::Required,
        timing: &[],
        noting: &[],
        tracing: &[
            Program("leave_wait_enter_tracing", FEntry),
            Program("leave_wait_tracing", FExit),
        ],
        kprobe: &[
            Program("leave_wait_enter_kprobe", KProbe),
            Program("leave_wait_kprobe", KRetProbe),
        ],
        raw_tp: &[],
    },
    Hook {
        purpose: "UDP sockets that give their port back",
        // Of both families.
        targets: &[Target {
            name: "udp_lib_unhash",
            prototypes: &["void (struct sock *)"],
        }],
        when: When::Ops(&[Op::Release]),
        need: Need::Required,
        timing: &[],
        noting: &[],
        tracing: &[
            Program("leave_udp_enter_tracing", FEntry),
            Program("leave_udp_tracing", FExit),
        ],
        kprobe: &[
            Program("leave_udp_enter_kprobe", KProbe),
            Program("leave_udp_kprobe", KRetProbe),
        ],
        raw_tp: &[],
    },
    Hook {
        purpose: "results of accept calls",
        targets: &[Target {
            name: "sys_exit",
            prototypes: &[
                "void (struct pt_regs *, long int)",
                "int (struct pt_regs *, long int)",
            ],
        }],
        when: When::Ops(&[Op::Accept]),
        need: Need::Required,
        timing: &[],
        noting: &[],
        tracing: &[],
        kprobe: &[],
        raw_tp: &[Program("accept_exit_raw", RawTracepoint)],
    },
    Hook {
        purpose: "results of bind, listen and connect calls",
        targets: &[Target {
            name: "sys_exit",
            prototypes: &[
                "void (struct pt_regs *, long int)",
                "int (struct pt_regs *, long int)",
            ],
        }],
        when: When::Ops(CALLS),
        need: Need::Required,
        timing: &[],
        noting: &[],
        tracing: &[],
        kprobe: &[],
        raw_tp: &[Program("sys_exit_raw", RawTracepoint)],
    },
    Hook {
        purpose: "children of the command",
        targets: &[Target {
            name: "sched_process_fork",
            prototypes: &[
                "void (struct task_struct *, struct task_struct *)",
                "int (struct task_struct *, struct task_struct *)",
            ],
        }],
        when: When::Descendants,
        need: Need::Required,
        timing: &[],
        noting: &[],
        tracing: &[Program("fork_tracing", BtfTracepoint)],
        kprobe: &[Program("fork_raw", RawTracepoint)],
        raw_tp: &[Program("fork_raw", RawTracepoint)],
    },
    Hook {
        purpose: "ends of the command's children",
        targets: &[Target {
            name: "sched_process_free",
            prototypes: &["void (struct task_struct *)", "int (struct task_struct *)"],
        }],
        when: When::Descendants,
        need: Need::Required,
        timing: &[],
        noting: &[],
        tracing: &[Program("free_tracing", BtfTracepoint)],
        kprobe: &[Program("free_raw", RawTracepoint)],
        raw_tp: &[Program("free_raw", RawTracepoint)],
    },
];
