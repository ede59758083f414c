//! What the programs say of their work at `-vv`: the first number of a line of aya-log, before the
//! running process and a number that belongs to it.

/// An event could not be handed over; the number is one of [`super::record::loss`].
pub const LOST: u32 = 0;
/// The process was sent ahead of its first event.
pub const ANNOUNCED: u32 = 1;
/// The process could not be sent: the ring is full. Its next event tries again.
pub const NOT_ANNOUNCED: u32 = 2;
/// The owners of a port were looked up; the number is the port.
pub const OWNERS: u32 = 3;
