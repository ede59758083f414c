//! Descriptors of sockets.

use super::Holder;

/// A descriptor of a socket that has ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The process, by its number in our pid namespace.
    pub pid: u32,
    /// The descriptor.
    pub fd: u32,
    /// It is in the table of a thread that has one of its own: `/proc/PID/fd` does not show it.
    pub of_thread: bool,
    /// The socket; who got the port for it is not told.
    pub socket: Holder,
}
