//! `portwatch trace`: what happens, printed as it happens.

use crate::{cli::TraceOptions, failure::Failure, sink};

use super::live::{self, Alone};

/// Runs a trace to its end; the value is the exit status.
///
/// # Errors
/// When the trace cannot start, or its output cannot be written. A reader that went away is no
/// error.
pub fn run(options: &TraceOptions) -> Result<u8, Failure> {
    live::run(options, &mut Alone, || {
        let out = sink::reserve(&options.output.destination).map_err(Failure::from_open)?;
        Ok(move || sink::open(out, &options.output, options.args))
    })
}
