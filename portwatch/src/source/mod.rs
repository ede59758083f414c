//! Where events come from.

pub mod assemble;
pub mod descriptors;
pub mod diagnostics;
pub mod json;
pub mod ring;
