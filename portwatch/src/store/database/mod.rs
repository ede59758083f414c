//! The file, through SQLite.

mod columns;
mod error;
mod expire;
mod facts;
mod notes;
mod open;
mod read;
mod rows;
#[cfg(test)]
mod tests;
mod uses;
mod write;

pub use error::StoreError;
pub use open::{Opened, beside, open};
pub use read::Reader;
pub use write::{Database, Unwritten};
