//! Connection attempts whose outcome is open: values of the map `CONNECTING`, which user space reads
//! when the trace ends.

use super::record::SocketRecord;

/// A connection attempt whose outcome is open.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Connecting {
    /// The event, complete but for its outcome and local end. `time` is the start.
    pub record: SocketRecord,
    /// One of [`phase`].
    pub phase: u32,
    /// Must be 0.
    pub reserved: u32,
}

/// Where a connection attempt stands.
pub mod phase {
    /// connect() has not returned.
    pub const CALLING: u32 = 1;
    /// connect() has returned and the outcome is open.
    pub const RETURNED: u32 = 2;
    /// The outcome is told, and connect() has not returned.
    pub const TOLD: u32 = 3;
}

const _: () = assert!(size_of::<Connecting>() == size_of::<SocketRecord>() + 8);
const _: () = assert!(core::mem::offset_of!(Connecting, record) == 0);
