//! What portwatch and its neighbours cost, measured from inside a test VM: `portwatch-tests cost …`.
//!
//! [`drive`] starts one tracer after the other and reports figures, one a line (`xtask/src/bench/`
//! reads them); [`work`] is the process that is traced, [`contender`] a tracer, [`verifier`] asks
//! what the kernel's verifier had to do. Under QEMU's `-icount shift=0` every nanosecond of the guest's
//! clocks is one instruction, which is what makes the figures repeatable.

mod churn;
mod clock;
mod contender;
mod drive;
mod hooks;
mod looking;
pub(crate) mod memory;
mod naming;
mod older;
mod program;
mod recording;
mod verifier;
mod work;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Subcommand;

use crate::degraded::Backend;

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Cost {
    /// Measures tracers.
    Drive(drive::Options),
    /// Is traced: does one thing many times and says how long that took.
    Work(work::Options),
    /// Has many sockets in many processes, until the end of its stdin.
    Crowd(older::Options),
    /// Measures the time from a refused bind() to the line with the holder's name.
    Naming(naming::Options),
    /// Measures the time that a look at all sockets takes.
    Looking(looking::Options),
    /// Measures what `churn` adds to TCP connections.
    Churn(churn::Options),
    /// Measures what a recording costs.
    Recording(recording::Options),
    /// Names the programs that portwatch loads, with the instructions that the verifier walked.
    Verifier {
        /// The portwatch to start.
        #[arg(long)]
        portwatch: PathBuf,
        /// Backends to load; without one all that work here.
        #[arg(long)]
        attach: Vec<Backend>,
    },
}

/// Does it.
pub(crate) fn run(cost: Cost) -> Result<ExitCode> {
    match cost {
        Cost::Drive(options) => drive::run(&options)?,
        Cost::Work(options) => work::run(&options)?,
        Cost::Crowd(options) => older::gather(&options)?,
        Cost::Naming(options) => naming::run(&options)?,
        Cost::Looking(options) => looking::run(&options)?,
        Cost::Churn(options) => churn::run(&options)?,
        Cost::Recording(options) => recording::run(&options)?,
        Cost::Verifier { portwatch, attach } => verifier::run(&portwatch, &attach)?,
    }
    Ok(ExitCode::SUCCESS)
}
