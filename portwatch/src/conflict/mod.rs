//! Why a call was refused: which sockets were in the way, by which rule of the kernel, and in words.
//!
//! Functions of their arguments: the kernel's programs bring the sockets, `enrich` brings the names.

pub mod admission;
pub mod departure;
pub mod forecast;
pub mod rules;
pub mod strangers;
pub mod verdict;
pub mod words;

pub use verdict::judge;
