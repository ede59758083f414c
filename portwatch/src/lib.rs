//! portwatch: which process bound or grabbed which port, who failed, who holds it, and why.
//!
//! Data flows one way; the arrows are the only `use` directions between rooms:
//!
//! ```text
//! kernel:  attach → hook → (kernel readers, state) → emit  ══ ring ══▶  source → decode → enrich → filter → sink
//! set-up:  cli → host facts → plan → load ────────────────────▲ (hands the ring over, then leaves)
//! ```
//!
//! Invariants: `decode` knows no aya; sinks know no ring; `enrich` never writes to the kernel; only
//! `host` and `load` name kernel functions; `plan` does no I/O; nothing but the kernel side's `emit`
//! and `decode` knows the wire layout.

pub mod child;
pub mod cli;
pub mod commands;
pub mod decode;
pub mod enrich;
pub mod errno;
pub mod event;
pub mod failure;
pub mod filter;
pub mod host;
pub mod load;
pub mod plan;
#[cfg(test)]
mod sample;
pub mod selection;
pub mod sink;
pub mod source;
