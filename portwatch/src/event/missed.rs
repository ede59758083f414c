//! What a look left out.

/// What a search of processes missed, at worst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Missed {
    /// Nothing.
    #[default]
    Nothing,
    /// Something could not be read, or there was no time for it.
    Unread,
    /// Something is closed to this user or hidden from him (EACCES; `hidepid`, proc(5)).
    Hidden,
}
