//! `portwatch doctor`: what trace could do on this machine, what it could not, and what would help.
//!
//! [`findings`] asks the machine, [`report`] judges (pure), [`text`] and [`json`] print.

mod findings;
mod json;
mod report;
#[cfg(test)]
mod tests;
mod text;

use std::io::Write as _;

use crate::{
    cli::{Format, OutputOptions},
    failure::Failure,
    sink,
};

/// Examines the machine and prints what it found; 0 when trace could run, else 3.
///
/// # Errors
/// When the output cannot be written.
pub fn run(options: &OutputOptions) -> Result<u8, Failure> {
    let report = report::report(findings::gather());
    let mut out = sink::create(&options.destination).map_err(Failure::from_open)?;
    let printed = match options.format {
        Format::Json => json::render(&report),
        Format::Text => {
            let look = text::Look {
                width: sink::width(&out).unwrap_or(text::WIDTH),
                color: sink::colored(options.color, &out),
                quiet: options.quiet,
                verbose: options.verbosity > 0,
            };
            text::render(&report, look)
        }
    };
    out.write_all(printed.as_bytes())
        .map_err(|error| Failure::from_write(error, &options.destination))?;
    Ok(if report.chosen.is_some() { 0 } else { 3 })
}
