//! Where events come from.

pub mod assemble;
pub mod diagnostics;
pub mod ring;
