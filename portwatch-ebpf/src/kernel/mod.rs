//! Typed readers of kernel structures: the only place that touches kernel memory.

pub(crate) mod descriptor;
mod found;
pub(crate) mod generation;
pub(crate) mod image;
pub(crate) mod memory;
pub(crate) mod occupied;
pub(crate) mod owners;
pub(crate) mod request;
pub(crate) mod sock;
pub(crate) mod syscall;
pub(crate) mod task;
