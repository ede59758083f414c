//! What each way into the kernel cannot see: a closed table. A new row needs a measurement.

use std::fmt;

use crate::event::{Backend, Op};

/// One blind spot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlindSpot {
    /// Where.
    pub backend: Backend,
    /// A word for it that scripts can rely on.
    pub feature: &'static str,
    /// What is not seen, and why.
    pub reason: &'static str,
}

impl fmt::Display for BlindSpot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.feature, self.reason)
    }
}

/// The kernel does not start a program that is running already on that CPU (kernel/bpf/trampoline.c
/// `__bpf_prog_enter_recur`, kernel/trace/bpf_trace.c `__bpf_trace_run`).
const PREEMPTED: &str = "on kernels that preempt in the kernel (7.x, preempt=full), calls that return while another \
                         task is preempted inside the program on that CPU; counted as lost";

/// The kernel sets `sk_err` before it changes the state, where portwatch reads it, and before 6.10 wakes
/// the program in between (`tcp_v4_err`, `tcp_write_err`; since then `tcp_done_with_error`). SO_ERROR takes
/// it without the socket's lock. Measured in two runs of all scenarios: once on 5.10 (tracing) and once
/// on 7.3 (kprobe) a connect() to a neighbour that does not answer, EHOSTUNREACH to its program, was told
/// as unknown.
const READ_EARLY: &str = "the errno of a non-blocking TCP connect() whose program reads it with SO_ERROR on another CPU in the \
                          instant before the kernel closes the socket (timeouts, unreachable hosts); told as unknown";

/// The functions hooked run once there is a descriptor to return, and come after the security module
/// (net/socket.c, `do_accept`). kprobe has both rows: in the first are those that it would not see either if
/// its returns could be relied on.
const ACCEPT_EARLY: &str =
    "accept() that fails before TCP looks at it: no descriptor left (EMFILE), refused by policy";

/// The table, in the order it is shown.
pub const BLIND_SPOTS: &[BlindSpot] = &[
    BlindSpot {
        backend: Backend::Tracing,
        feature: "calls-before-socket-layer",
        reason: "calls that end before the socket layer: EFAULT, seccomp",
    },
    BlindSpot {
        backend: Backend::Tracing,
        feature: "sctp-beyond-bind",
        reason: "SCTP listen and connect",
    },
    // Measured on 7.3, whose default is lazy preemption: a run of all scenarios on 2 CPUs, one of which
    // has hundreds of processes bind at once, lost 4 events, and the kernel counted them. kprobe, whose
    // kprobes run with preemption off (its tracepoint for the outcomes of connect does not), lost none.
    BlindSpot {
        backend: Backend::Tracing,
        feature: "preempted-calls",
        reason: PREEMPTED,
    },
    BlindSpot {
        backend: Backend::Tracing,
        feature: "error-read-early",
        reason: READ_EARLY,
    },
    BlindSpot {
        backend: Backend::Tracing,
        feature: "accept-refused-early",
        reason: ACCEPT_EARLY,
    },
    BlindSpot {
        backend: Backend::Kprobe,
        feature: "calls-before-socket-layer",
        reason: "calls that end before the socket layer: EFAULT, seccomp",
    },
    BlindSpot {
        backend: Backend::Kprobe,
        feature: "sctp-beyond-bind",
        reason: "SCTP listen and connect",
    },
    BlindSpot {
        backend: Backend::Kprobe,
        feature: "connect-on-connected-socket",
        reason: "TCP connect() refused before TCP's own code (EISCONN, EINVAL): the function around it \
                 sleeps, and kretprobes on it lose most returns",
    },
    BlindSpot {
        backend: Backend::Kprobe,
        feature: "error-read-early",
        reason: READ_EARLY,
    },
    BlindSpot {
        backend: Backend::Kprobe,
        feature: "accept-refused-early",
        reason: ACCEPT_EARLY,
    },
    BlindSpot {
        backend: Backend::Kprobe,
        feature: "accept-failures",
        reason: "accept() that fails: the function sleeps, and kretprobes on it lose most returns",
    },
    BlindSpot {
        backend: Backend::RawTp,
        feature: "io-uring",
        reason: "bind, listen and accept through io_uring",
    },
    BlindSpot {
        backend: Backend::RawTp,
        feature: "socketcall",
        reason: "32-bit programs that use socketcall()",
    },
    AUTOBINDS,
    BlindSpot {
        backend: Backend::RawTp,
        feature: "kernel-sockets",
        reason: "binds and accepts by the kernel itself: no system call returns from them",
    },
    // Measured on 5.10 to 7.3 (scenarios way_fastopen_fails_at_once, way_io_uring_connect_fails_at_once):
    // ENETUNREACH is not told, EADDRNOTAVAIL as unknown.
    BlindSpot {
        backend: Backend::RawTp,
        feature: "connect-without-call",
        reason: "why a TCP connect through io_uring or by a send (MSG_FASTOPEN) fails at once; before its SYN \
                 is due, that it does",
    },
    // Measured on 6.1 to 7.3 (scenario policy_cgroup_connect_as_if_answered): no event.
    BlindSpot {
        backend: Backend::RawTp,
        feature: "connect-refused-as-answered",
        reason: "a TCP connect() that a cgroup program refuses with an errno of answers (ECONNREFUSED)",
    },
    BlindSpot {
        backend: Backend::RawTp,
        feature: "durations",
        reason: "how long a call took, TCP connect excepted",
    },
    BlindSpot {
        backend: Backend::RawTp,
        feature: "closers",
        reason: "who left a TIME_WAIT, and who was just closing a socket",
    },
    BlindSpot {
        backend: Backend::RawTp,
        feature: "ports-given-back",
        reason: "that an automatic port is given back or parked in TIME_WAIT, so which are held, and how long \
                 connect() searched for one (churn)",
    },
    // Measured on 7.3: 8 processes on 2 CPUs bound 300 times, 11 were missed, and the kernel counted
    // 370 skipped runs of the program, most of them for calls that are none of ours.
    BlindSpot {
        backend: Backend::RawTp,
        feature: "preempted-calls",
        reason: PREEMPTED,
    },
    BlindSpot {
        backend: Backend::RawTp,
        feature: "error-read-early",
        reason: READ_EARLY,
    },
    RELEASES,
];

/// Events that a way in shows none of.
const UNSEEN: &[(Op, &BlindSpot)] = &[(Op::Release, &RELEASES), (Op::Autobind, &AUTOBINDS)];

/// The tables of ports have no tracepoint.
const RELEASES: BlindSpot = BlindSpot {
    backend: Backend::RawTp,
    feature: "release",
    reason: "ports that are free again",
};

/// No system call asks for them.
const AUTOBINDS: BlindSpot = BlindSpot {
    backend: Backend::RawTp,
    feature: "autobind",
    reason: "UDP ports taken by sendto() and the like",
};

/// Which of these events a way in shows none of, and what that is in words.
pub fn unseen(backend: Backend, events: &[Op]) -> Vec<(Op, &'static str)> {
    UNSEEN
        .iter()
        .filter(|(op, spot)| spot.backend == backend && events.contains(op))
        .map(|(op, spot)| (*op, spot.reason))
        .collect()
}

/// Whether a way in shows any of these events.
///
/// # Errors
/// Why it shows none.
pub fn sees_any(backend: Backend, events: &[Op]) -> Result<(), String> {
    let unseen = unseen(backend, events);
    if unseen.len() < events.len() || events.is_empty() {
        return Ok(());
    }
    let what: Vec<&str> = unseen.iter().map(|(_, reason)| *reason).collect();
    Err(format!("it cannot see {}", what.join(", nor ")))
}

/// The rows of one backend.
pub fn of(backend: Backend) -> impl Iterator<Item = &'static BlindSpot> {
    BLIND_SPOTS
        .iter()
        .filter(move |spot| spot.backend == backend)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::plan::PREFERENCE;

    const README: &str = include_str!("../../../README.md");

    /// Rows of the README's table: all of it but what every backend sees.
    fn shown() -> Vec<&'static str> {
        let rows = README
            .lines()
            .skip_while(|line| *line != "| | tracing | kprobe | raw_tp |")
            .skip(2)
            .take_while(|line| line.starts_with('|'));
        rows.filter(|row| !row.ends_with("| yes | yes | yes |"))
            .collect()
    }

    /// A row for each reason, in the order of the table.
    fn expected() -> Vec<String> {
        let mut reasons: Vec<&str> = BLIND_SPOTS.iter().map(|spot| spot.reason).collect();
        let mut seen = HashSet::new();
        reasons.retain(|reason| seen.insert(*reason));
        let row = |reason: &str| {
            let cells = PREFERENCE.map(|backend| {
                if of(backend).any(|spot| spot.reason == reason) {
                    "no"
                } else {
                    "yes"
                }
            });
            format!("| {reason} | {} |", cells.join(" | "))
        };
        reasons.into_iter().map(row).collect()
    }

    #[test]
    fn the_readme_shows_this_table_word_for_word() {
        let expected = expected();
        assert!(!expected.is_empty());
        assert_eq!(
            shown(),
            expected,
            "README.md, \"Kernels and backends\", should have these rows:\n{}",
            expected.join("\n")
        );
    }

    #[test]
    fn a_feature_stands_once_for_a_backend_and_has_one_reason() {
        for (index, spot) in BLIND_SPOTS.iter().enumerate() {
            for earlier in &BLIND_SPOTS[..index] {
                if earlier.feature == spot.feature {
                    assert_ne!(earlier.backend, spot.backend, "{}", spot.feature);
                    assert_eq!(earlier.reason, spot.reason, "{}", spot.feature);
                }
            }
        }
    }
}
