//! The kernels of the matrix as facts, for tests: the functions in their type information and what
//! they let us load were measured, the fields that one lacks are those its sources lack.

use std::collections::BTreeMap;

use portwatch_ebpf::abi::{
    config::helper,
    layout::{ABSENT, FIELDS},
};

use super::{Cast, Facts};
use crate::host::fields::Fields;

/// A kernel of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kernel {
    /// Debian 11's.
    V5_10,
    /// Debian 12's.
    V6_1,
    /// Debian 12's backport.
    V6_12,
    /// A minimal kernel that lets nothing but raw tracepoints in.
    V6_18Locked,
    /// Debian 13's backport.
    V7_3,
}

impl Kernel {
    pub(crate) const ALL: [Self; 5] = [
        Self::V5_10,
        Self::V6_1,
        Self::V6_12,
        Self::V6_18Locked,
        Self::V7_3,
    ];
}

/// What facts::gather() would find there.
pub(crate) fn facts(kernel: Kernel) -> Facts {
    let locked = kernel == Kernel::V6_18Locked;
    let newer_helpers = helper::TASK_BTF | helper::ANCESTOR_CGROUP | helper::TASK_PT_REGS;
    Facts {
        fields: fields(absent(kernel)),
        prototypes: prototypes(kernel),
        tracing: if locked {
            Err("the kernel does not permit tracing programs (fentry, fexit)".to_owned())
        } else {
            Ok(())
        },
        kprobe: if locked {
            Err("the kernel is built without kprobes".to_owned())
        } else {
            Ok(())
        },
        raw_tp: Ok(()),
        // The locked one refuses trampolines, of which an iterator needs none.
        iterator: Ok(()),
        helpers: match kernel {
            Kernel::V5_10 => 0,
            Kernel::V6_18Locked => newer_helpers,
            _ => newer_helpers | helper::SOCKET_COOKIE,
        },
        loops: kernel != Kernel::V5_10,
        cast: matches!(kernel, Kernel::V6_12 | Kernel::V6_18Locked | Kernel::V7_3).then_some(
            Cast {
                function: 1,
                word: 1,
            },
        ),
        mptcp_connects: kernel != Kernel::V5_10,
        preempts: kernel == Kernel::V7_3,
    }
}

/// All fields but these. Where they lie matters to nobody who has no such kernel.
pub(crate) fn fields(absent: &[&'static str]) -> Fields {
    let mut fields = Fields {
        words: [ABSENT; FIELDS.len()],
        missing: Vec::new(),
        absent: Vec::new(),
        paths: [None; FIELDS.len()],
    };
    for (at, field) in FIELDS.iter().enumerate() {
        if !absent.contains(&field.name) {
            fields.words[at] = 8;
            fields.paths[at] = field.paths.first().copied();
        } else if field.required {
            fields.missing.push(field.name);
        } else {
            fields.absent.push(field.name);
        }
    }
    fields
}

fn absent(kernel: Kernel) -> &'static [&'static str] {
    match kernel {
        Kernel::V5_10 => &[
            "inet_port_range",
            "accept_arg_err",
            "tcp_is_mptcp",
            "net_udp_table",
            "bucket_bhash2",
            "bucket2_bhash_node",
            "bucket2_owners",
        ],
        Kernel::V6_1 => &[
            "accept_arg_err",
            "net_udp_table",
            "bucket_bhash2",
            "bucket2_bhash_node",
        ],
        Kernel::V6_12 | Kernel::V6_18Locked => &["bucket_owners"],
        Kernel::V7_3 => &["bucket_owners", "proto_udp_table"],
    }
}

fn prototypes(kernel: Kernel) -> BTreeMap<&'static str, String> {
    // The type of the address changed its name in 7.x.
    let address = if kernel == Kernel::V7_3 {
        "struct sockaddr_unsized *"
    } else {
        "struct sockaddr *"
    };
    let sk = format!("int (struct sock *, {address}, int)");
    let socket = format!("int (struct socket *, {address}, int)");
    let backlog = "int (struct socket *, int)";
    let mut list = vec![
        ("inet_bind", socket.clone()),
        ("inet6_bind", socket.clone()),
        ("security_socket_bind", socket.clone()),
        ("inet_listen", backlog.to_owned()),
        ("security_socket_listen", backlog.to_owned()),
        (
            "inet_sock_set_state",
            "void (struct sock *, int, int)".to_owned(),
        ),
        (
            "__inet_stream_connect",
            format!("int (struct socket *, {address}, int, int, int)"),
        ),
        ("tcp_v4_connect", sk.clone()),
        ("tcp_v6_connect", sk.clone()),
        ("tcp_v4_pre_connect", sk.clone()),
        ("tcp_v6_pre_connect", sk.clone()),
        (
            "inet_dgram_connect",
            format!("int (struct socket *, {address}, int, int)"),
        ),
        ("security_socket_connect", socket),
        ("inet_autobind", "int (struct sock *)".to_owned()),
        ("inet_release", "int (struct socket *)".to_owned()),
        (
            "inet_csk_accept",
            if kernel >= Kernel::V6_12 {
                "struct sock * (struct sock *, struct proto_accept_arg *)".to_owned()
            } else {
                "struct sock * (struct sock *, int, int *, bool)".to_owned()
            },
        ),
        (
            "security_sock_graft",
            "void (struct sock *, struct socket *)".to_owned(),
        ),
        (
            "udp_lib_get_port",
            "int (struct sock *, short unsigned int, unsigned int)".to_owned(),
        ),
        ("sys_exit", "void (struct pt_regs *, long int)".to_owned()),
        (
            "sched_process_fork",
            "void (struct task_struct *, struct task_struct *)".to_owned(),
        ),
        (
            "sched_process_free",
            "void (struct task_struct *)".to_owned(),
        ),
        (
            "inet_hash_connect",
            "int (struct inet_timewait_death_row *, struct sock *)".to_owned(),
        ),
        (
            "inet6_hash_connect",
            "int (struct inet_timewait_death_row *, struct sock *)".to_owned(),
        ),
        (
            "inet_csk_get_port",
            "int (struct sock *, short unsigned int)".to_owned(),
        ),
        ("inet_put_port", "void (struct sock *)".to_owned()),
        ("udp_lib_unhash", "void (struct sock *)".to_owned()),
        (
            "inet_twsk_kill",
            "void (struct inet_timewait_sock *)".to_owned(),
        ),
        (
            "bpf_iter_tcp",
            "int (struct bpf_iter_meta *, struct sock_common *, uid_t)".to_owned(),
        ),
        (
            "bpf_iter_task_file",
            "int (struct bpf_iter_meta *, struct task_struct *, u32, struct file *)".to_owned(),
        ),
    ];
    let hashdance = "struct inet_timewait_sock *, struct sock *, struct inet_hashinfo *";
    list.push(if kernel >= Kernel::V6_12 {
        (
            "inet_twsk_hashdance_schedule",
            format!("void ({hashdance}, int)"),
        )
    } else {
        ("inet_twsk_hashdance", format!("void ({hashdance})"))
    });
    // Split off from the functions above in 6.6 or so.
    if kernel >= Kernel::V6_12 {
        list.extend([
            ("inet_bind_sk", sk.clone()),
            ("inet6_bind_sk", sk),
            ("__inet_listen_sk", "int (struct sock *, int)".to_owned()),
        ]);
    }
    list.into_iter().collect()
}
