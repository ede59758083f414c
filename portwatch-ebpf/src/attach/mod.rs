//! The three ways in: from a program's context to the arguments of the hooks. No policy here.

pub(crate) mod kprobe;
pub(crate) mod raw_tp;
pub(crate) mod tracing;
