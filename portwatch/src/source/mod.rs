//! Where events come from.

pub mod assemble;
pub mod ring;
