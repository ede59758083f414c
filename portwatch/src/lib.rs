//! portwatch: which process bound or grabbed which port, who failed, who holds it, and why.
//!
#![doc = include_str!("../../docs/architecture.md")]

pub mod child;
pub mod churn;
pub mod cli;
pub mod commands;
pub mod conflict;
pub mod decode;
pub mod enrich;
pub mod errno;
pub mod event;
pub mod facts;
pub mod failure;
pub mod filter;
pub mod host;
pub mod load;
pub mod plan;
pub mod report;
#[cfg(test)]
mod sample;
pub mod selection;
pub mod sink;
pub mod sockets;
pub mod source;
pub mod stderr;
pub mod store;
