//! A socket that was looked up, not met in an event.

use super::{Holder, Owner, Socket};

/// A socket with the names of those who have it.
#[derive(Clone, Debug, PartialEq)]
pub struct Listing {
    /// The socket.
    pub socket: Holder,
    /// Who has it; who got its port, and when, is not known.
    pub owner: Owner,
    /// It is in another network namespace than portwatch.
    pub elsewhere: bool,
}

impl Listing {
    /// Whether somebody may have it who could not be looked at. Connections that ended, and those that
    /// nobody has accepted yet, have no inode and no process.
    #[must_use]
    pub fn is_hidden(&self) -> bool {
        self.owner.incomplete
            && self.owner.processes.is_empty()
            && self.socket.socket.inode.is_some()
    }

    /// Paths of what should be there and is not known.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let Socket { options, .. } = &self.socket.socket;
        // What sock_diag shows alone comes without its options; what TIME_WAIT has left has none.
        let unknown = |option: Option<bool>| !self.socket.remnant && option.is_none();
        [
            ("process", self.is_hidden()),
            ("socket.reuseaddr", unknown(options.reuseaddr)),
            ("socket.reuseport", unknown(options.reuseport)),
        ]
        .into_iter()
        .filter_map(|(path, is_missing)| is_missing.then_some(path))
        .collect()
    }
}
