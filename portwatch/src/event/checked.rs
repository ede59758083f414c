//! What would come of a bind() that nobody has made.

use super::{Endpoint, Errno, Explanation, Family, Listing, PortFacts, Socket, Transport};

/// What would come of it (`check.outcome`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// It would work.
    Free,
    /// It would be refused.
    Refused(Errno),
    /// It cannot be told.
    Unknown(Doubt),
}

impl Outlook {
    /// The name in the output: that of the event it would be.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Free => "success",
            Self::Refused(_) => "failure",
            Self::Unknown(_) => "unknown",
        }
    }
}

/// Why it cannot be told (`check.doubt`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Doubt {
    /// It depends on options of sockets that could not be read.
    Options,
    /// It depends on what the kernel remembers of those that shared the port by SO_REUSEPORT before
    /// (`struct inet_bind_bucket`), which it tells nobody.
    Group,
    /// Of UDP sockets, some share the port and some do not, and the one that the kernel meets first
    /// decides.
    Order,
    /// Sockets may be there that could not be seen.
    Unseen,
    /// Whether the address can be used.
    Address,
    /// Whether the asker may have a port that needs a privilege.
    Privilege,
}

impl Doubt {
    /// The name in the output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Options => "options",
            Self::Group => "group",
            Self::Order => "order",
            Self::Unseen => "unseen",
            Self::Address => "address",
            Self::Privilege => "privilege",
        }
    }
}

/// A bind() that was asked about, with the answer and names.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// Transport.
    pub transport: Transport,
    /// Family of the socket.
    pub family: Family,
    /// What would be asked for; without a port if any would do.
    pub local: Endpoint,
    /// Name and class of the port.
    pub facts: PortFacts,
    /// Name of the device that the socket would be bound to.
    pub interface: Option<String>,
    /// Options, owner and network namespace of the socket.
    pub socket: Socket,
    /// The answer.
    pub outlook: Outlook,
    /// Why, where it would not work or cannot be told.
    pub explanation: Option<Explanation>,
    /// The owners of the port were looked at.
    pub sought: bool,
    /// Sockets that have the port too and do not listen yet: if one does first, listen() fails.
    pub rivals: Vec<Listing>,
    /// Paths of what should be there and is not known.
    pub missing: Vec<&'static str>,
}
