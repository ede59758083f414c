//! The closed table of what a backend need not see: the only source of differences between them.
//!
//! It must name what portwatch's own table does (the `degraded` list of the `start` line, compared in
//! every stream). A new row needs a measurement.

use std::collections::BTreeSet;

use clap::ValueEnum;

use crate::sys::proc;

/// A way into the kernel, by the name `--attach` has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Backend {
    Tracing,
    Kprobe,
    RawTp,
}

impl Backend {
    pub(crate) const ALL: [Self; 3] = [Self::Tracing, Self::Kprobe, Self::RawTp];

    /// The name in options and output.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Tracing => "tracing",
            Self::Kprobe => "kprobe",
            Self::RawTp => "raw_tp",
        }
    }
}

/// Something that a backend may not see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Feature {
    /// Binds and listens made through io_uring.
    IoUring,
    /// Calls multiplexed by socketcall(2).
    Socketcall,
    /// Ports taken by sending a datagram.
    Autobind,
    /// Binds the kernel makes for itself.
    KernelBind,
    /// `event.duration` of anything but connect.
    Duration,
    /// Who closes a socket.
    Closer,
    /// System calls that end before the socket layer's own code: seccomp, EFAULT; and listen() of a
    /// protocol that has none (EOPNOTSUPP).
    Early,
    /// connect() refused before TCP's own code: EISCONN.
    ConnectTooLate,
    /// Why a TCP connect that no connect() has made fails at once, and that it does if before its SYN.
    ConnectWithoutCall,
    /// A TCP connect() that a cgroup program refuses with the errno of a peer's answer.
    RefusedAsAnswered,
    /// accept() that fails.
    AcceptFailure,
    /// accept() that fails before TCP's own code: EMFILE.
    AcceptEarly,
    /// Ports that are free again.
    Release,
    /// Calls that return while another task is preempted inside the program (7.x).
    Preempted,
    /// That a port is given back.
    GivenBack,
}

impl Feature {
    /// portwatch's word for it, with which an entry of `degraded` begins.
    const fn word(self) -> &'static str {
        match self {
            Self::IoUring => "io-uring",
            Self::Socketcall => "socketcall",
            Self::Autobind => "autobind",
            Self::KernelBind => "kernel-sockets",
            Self::Duration => "durations",
            Self::Closer => "closers",
            Self::Early => "calls-before-socket-layer",
            Self::ConnectTooLate => "connect-on-connected-socket",
            Self::ConnectWithoutCall => "connect-without-call",
            Self::RefusedAsAnswered => "connect-refused-as-answered",
            Self::AcceptFailure => "accept-failures",
            Self::AcceptEarly => "accept-refused-early",
            Self::Release => "release",
            Self::Preempted => "preempted-calls",
            Self::GivenBack => "ports-given-back",
        }
    }
}

/// Backend, feature, why.
const TABLE: &[(Backend, Feature, &str)] = &[
    (
        Backend::RawTp,
        Feature::IoUring,
        "makes no system call of the socket family",
    ),
    (
        Backend::RawTp,
        Feature::Socketcall,
        "its arguments lie in user memory",
    ),
    (
        Backend::RawTp,
        Feature::Autobind,
        "send calls are not looked at",
    ),
    (Backend::RawTp, Feature::KernelBind, "makes no system call"),
    (
        Backend::RawTp,
        Feature::ConnectWithoutCall,
        "the return of connect() alone is looked at",
    ),
    (
        Backend::RawTp,
        Feature::RefusedAsAnswered,
        "taken for an attempt that was told when the answer came",
    ),
    (
        Backend::RawTp,
        Feature::Duration,
        "the entry of a call is not looked at",
    ),
    (
        Backend::RawTp,
        Feature::Closer,
        "close() is no call of the socket family, and an exit makes none",
    ),
    (
        Backend::RawTp,
        Feature::GivenBack,
        "no tracepoint is where a port is given back",
    ),
    (
        Backend::RawTp,
        Feature::Preempted,
        "the kernel runs a program once at a time on a CPU",
    ),
    (
        Backend::Tracing,
        Feature::Preempted,
        "the kernel runs a program once at a time on a CPU",
    ),
    (
        Backend::Tracing,
        Feature::Early,
        "ends before the socket layer's own code",
    ),
    (
        Backend::Kprobe,
        Feature::Early,
        "ends before the socket layer's own code",
    ),
    (
        Backend::Tracing,
        Feature::AcceptEarly,
        "fails before TCP's own code",
    ),
    (
        Backend::Kprobe,
        Feature::AcceptEarly,
        "fails before TCP's own code",
    ),
    (
        Backend::Kprobe,
        Feature::AcceptFailure,
        "a kretprobe on accept(), which sleeps, loses events",
    ),
    (
        Backend::RawTp,
        Feature::Release,
        "the tables of ports have no tracepoint",
    ),
    (
        Backend::Kprobe,
        Feature::ConnectTooLate,
        "a kretprobe on connect(), which sleeps, loses events",
    ),
];

/// Words that portwatch has and no scenario needs: backend, word.
const UNTESTED: &[(Backend, &str)] = &[
    (Backend::Tracing, "sctp-beyond-bind"),
    (Backend::Kprobe, "sctp-beyond-bind"),
    // A race that cannot be had for certain; scenarios wait until it is over.
    (Backend::Tracing, "error-read-early"),
    (Backend::Kprobe, "error-read-early"),
    (Backend::RawTp, "error-read-early"),
];

/// What is wrong with the `degraded` list of a `start` line: portwatch and this table have to name
/// the same blind spots.
pub(crate) fn compare(backend: &str, degraded: &[&str]) -> Vec<String> {
    let words: BTreeSet<_> = degraded
        .iter()
        .map(|entry| entry.split_once(": ").map_or(*entry, |(word, _)| word))
        .collect();
    let expected: BTreeSet<_> = TABLE
        .iter()
        .map(|(row, feature, _)| (*row, feature.word()))
        .chain(UNTESTED.iter().copied())
        .filter(|(row, _)| row.as_str() == backend)
        .map(|(_, word)| word)
        .collect();
    let missing = expected
        .difference(&words)
        .map(|word| format!("`degraded` of {backend} lacks {word}"));
    let surplus = words
        .difference(&expected)
        .map(|word| format!("`degraded` of {backend} has {word}, which no scenario knows"));
    missing.chain(surplus).collect()
}

/// Why a backend may miss something; `None` where it must not.
pub(crate) fn may_miss(backend: Backend, feature: Feature) -> Option<&'static str> {
    TABLE
        .iter()
        .find(|(row, what, _)| (*row, *what) == (backend, feature))
        .map(|(_, _, why)| *why)
}

/// Whether programs of this backend can be preempted on this kernel, so that it loses calls under load
/// and counts them: since 7.x, but for kprobes, which run with preemption off.
pub(crate) fn preempts(backend: Backend) -> bool {
    backend != Backend::Kprobe && kernel().is_some_and(|version| version >= (7, 0))
}

/// Whether this backend loses calls that several processes make at once, and counts them. Beside those that are
/// preempted: before 6.1 a kretprobe follows as many calls at once as there are CPUs, and a call that is
/// preempted, or waits for its socket, is one of them (measured: two of 60 at once on 5.10, ten on 6.1). And how a
/// TCP connection ends a raw tracepoint tells beside the kprobes too, which 7.x preempts (seen once: a refused connect()
/// without a line).
pub(crate) fn may_lose(backend: Backend) -> bool {
    let few_returns =
        backend == Backend::Kprobe && kernel().is_some_and(|version| version < (6, 1));
    few_returns || preempts(Backend::RawTp)
}

/// The running kernel's version.
fn kernel() -> Option<(u32, u32)> {
    let release = proc::kernel_release().ok()?;
    proc::version_of(&release)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fast_backends_see_whatever_reaches_the_socket_layer() {
        for backend in [Backend::Tracing, Backend::Kprobe] {
            for feature in [
                Feature::IoUring,
                Feature::Socketcall,
                Feature::Autobind,
                Feature::KernelBind,
                Feature::Duration,
                Feature::Closer,
                Feature::Release,
            ] {
                assert_eq!(may_miss(backend, feature), None, "{backend:?} {feature:?}");
            }
        }
    }

    #[test]
    fn no_row_stands_twice() {
        for (index, (backend, feature, _)) in TABLE.iter().enumerate() {
            assert!(
                !TABLE[..index]
                    .iter()
                    .any(|(b, f, _)| (b, f) == (backend, feature)),
                "{backend:?} {feature:?}"
            );
        }
    }
    #[test]
    fn a_list_that_differs_is_told() {
        let right = [
            "calls-before-socket-layer: EBADF",
            "sctp-beyond-bind: SCTP listen",
            "preempted-calls: while another task",
            "error-read-early: the errno",
            "accept-refused-early: EMFILE",
        ];
        let [first, second, third, fourth, fifth] = right;
        assert_eq!(compare("tracing", &right), [""; 0]);
        assert_eq!(compare("tracing", &right[1..]).len(), 1);
        assert_eq!(compare("kprobe", &right).len(), 3);
        assert_eq!(
            compare("tracing", &["new", first, second, third, fourth, fifth]).len(),
            1
        );
    }
}
