//! What each way into the kernel cannot see: a closed table. A new row needs a measurement.

use std::fmt;

use crate::event::Backend;

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

/// The table, in the order it is shown.
pub const BLIND_SPOTS: &[BlindSpot] = &[
    BlindSpot {
        backend: Backend::Tracing,
        feature: "calls-before-socket-layer",
        reason: "calls that end before the socket layer: EBADF, ENOTSOCK, EFAULT, seccomp",
    },
    BlindSpot {
        backend: Backend::Tracing,
        feature: "sctp-beyond-bind",
        reason: "SCTP listen and connect",
    },
    BlindSpot {
        backend: Backend::Kprobe,
        feature: "calls-before-socket-layer",
        reason: "calls that end before the socket layer: EBADF, ENOTSOCK, EFAULT, seccomp",
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
        backend: Backend::RawTp,
        feature: "io-uring",
        reason: "bind and listen through io_uring",
    },
    BlindSpot {
        backend: Backend::RawTp,
        feature: "socketcall",
        reason: "32-bit programs that use socketcall()",
    },
    BlindSpot {
        backend: Backend::RawTp,
        feature: "autobind",
        reason: "UDP ports taken by sendto() and the like",
    },
    BlindSpot {
        backend: Backend::RawTp,
        feature: "kernel-sockets",
        reason: "binds by the kernel itself: no system call returns from them",
    },
    BlindSpot {
        backend: Backend::RawTp,
        feature: "durations",
        reason: "how long a call took, TCP connect excepted",
    },
];

/// The rows of one backend.
pub fn of(backend: Backend) -> impl Iterator<Item = &'static BlindSpot> {
    BLIND_SPOTS
        .iter()
        .filter(move |spot| spot.backend == backend)
}
