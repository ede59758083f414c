//! Facts about this machine.

pub mod btf;
pub mod facts;
pub mod fields;
pub mod probe;
