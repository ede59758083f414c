//! The closed table of what a backend need not see: the only source of differences between them.
//!
//! It mirrors portwatch's own table (the `degraded` list of the `start` line). A new row needs a
//! measurement.

use clap::ValueEnum;

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
    /// Calls made through io_uring.
    IoUring,
    /// Calls multiplexed by socketcall(2).
    Socketcall,
    /// Ports taken by sending a datagram.
    Autobind,
    /// Binds the kernel makes for itself.
    KernelBind,
    /// `event.via`
    Via,
    /// `event.duration` of anything but connect.
    Duration,
    /// System calls that end before the socket layer's own code: seccomp, EFAULT.
    Early,
    /// What no backend can name a socket for: EBADF, ENOTSOCK.
    NoSocket,
    /// listen() of a protocol that has none (EOPNOTSUPP).
    NoListen,
    /// SCTP's listen and connect.
    SctpBeyondBind,
    /// connect() refused before TCP's own code: EISCONN.
    ConnectTooLate,
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
    (Backend::RawTp, Feature::Via, "a system call is all it sees"),
    (
        Backend::RawTp,
        Feature::Duration,
        "the entry of a call is not looked at",
    ),
    (
        Backend::RawTp,
        Feature::NoSocket,
        "there is no socket to tell of",
    ),
    (
        Backend::RawTp,
        Feature::NoListen,
        "the protocol has no listen",
    ),
    (
        Backend::RawTp,
        Feature::SctpBeyondBind,
        "ends before the socket layer's own code",
    ),
    (
        Backend::Tracing,
        Feature::Early,
        "ends before the socket layer's own code",
    ),
    (
        Backend::Tracing,
        Feature::NoSocket,
        "ends before the socket layer's own code",
    ),
    (
        Backend::Tracing,
        Feature::NoListen,
        "ends before the socket layer's own code",
    ),
    (
        Backend::Tracing,
        Feature::SctpBeyondBind,
        "its functions lie in a module",
    ),
    (
        Backend::Kprobe,
        Feature::Early,
        "ends before the socket layer's own code",
    ),
    (
        Backend::Kprobe,
        Feature::NoSocket,
        "ends before the socket layer's own code",
    ),
    (
        Backend::Kprobe,
        Feature::NoListen,
        "ends before the socket layer's own code",
    ),
    (
        Backend::Kprobe,
        Feature::SctpBeyondBind,
        "its functions lie in a module",
    ),
    (
        Backend::Kprobe,
        Feature::ConnectTooLate,
        "a kretprobe on connect(), which sleeps, loses events",
    ),
];

/// Why a backend may miss something; `None` where it must not.
pub(crate) fn may_miss(backend: Backend, feature: Feature) -> Option<&'static str> {
    TABLE
        .iter()
        .find(|(row, what, _)| (*row, *what) == (backend, feature))
        .map(|(_, _, why)| *why)
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
                Feature::Via,
                Feature::Duration,
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
}
