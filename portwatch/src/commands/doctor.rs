//! `portwatch doctor`.
use crate::{cli::OutputOptions, failure::Failure};
/// Runs.
pub fn run(_: &OutputOptions) -> Result<u8, Failure> {
    Ok(0)
}
