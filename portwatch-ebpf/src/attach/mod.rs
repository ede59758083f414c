//! The three ways in, and the iterator: from a program's context to the arguments of what it is for. No
//! policy here.

pub(crate) mod churn;
pub(crate) mod iter;
pub(crate) mod kprobe;
pub(crate) mod ports;
pub(crate) mod raw_tp;
pub(crate) mod tracing;
