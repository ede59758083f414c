//! What worked and is dangerous all the same.

use super::{Endpoint, Errno, Occupant};

/// Something to worry about in an event that worked (`warning`).
#[derive(Clone, Debug, PartialEq)]
pub struct Warning {
    /// What it is.
    pub kind: Hazard,
    /// The bind() before it that was refused, of [`Hazard::ListenAfterFailedBind`].
    pub refused: Option<Refused>,
    /// What is dangerous, in one line of words.
    pub message: String,
    /// What to do about it, in one line of words.
    pub hint: Option<String>,
    /// Who has the port besides, of [`Hazard::SharedPort`].
    pub processes: Vec<Occupant>,
}

/// What there is to worry about (`warning.kind`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hazard {
    /// bind() was refused, the program went on to listen(), and the kernel opened a port of its own choice
    /// on all addresses.
    ListenAfterFailedBind,
    /// SO_REUSEPORT lets programs share a port that have nothing to do with each other.
    SharedPort,
}

impl Hazard {
    /// The name in the output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ListenAfterFailedBind => "listen_after_failed_bind",
            Self::SharedPort => "shared_port",
        }
    }
}

/// A bind() that was refused and left its socket without a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// When, CLOCK_BOOTTIME, ns.
    pub time_boot: u64,
    /// Why.
    pub errno: Errno,
    /// What was asked for.
    pub local: Endpoint,
}
