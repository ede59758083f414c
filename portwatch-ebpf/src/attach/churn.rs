//! The ways in of `churn`: as the others, with hooks of its own.

pub(crate) mod iter;
pub(crate) mod kprobe;
pub(crate) mod raw_tp;
pub(crate) mod tracing;
