//! Why a call was refused: which sockets were in the way, and by which rule of the kernel.
//!
//! Functions of their arguments: the kernel's programs bring the sockets, `enrich` brings the names.

pub mod rules;
pub mod verdict;

pub use verdict::{Privilege, judge};
