//! The arguments of `churn`.

use std::{ffi::OsString, time::Duration};

use clap::Args;

use super::{Attach, Destination, OutputArgs, OutputOptions, help, parse};
use crate::{churn::model::By, event::Backend};

/// What was typed after `churn`; [`ChurnArgs::resolve`] says what it means.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = help::text(help::CHURN))]
pub struct ChurnArgs {
    /// Time between two looks: 1s, 10s, 1m
    #[arg(long, value_name = "TIME", value_parser = parse::duration, default_value = "1s", help_heading = WHAT)]
    pub interval: Duration,

    /// End after one interval
    #[arg(long, help_heading = WHAT)]
    pub once: bool,

    /// Add up the ports of what
    #[arg(long, value_name = "WHAT", value_enum, default_value_t, help_heading = WHAT)]
    pub by: By,

    /// Show so many pools of ports, groups and failures
    #[arg(long, value_name = "N", value_parser = parse::count, default_value = "10", help_heading = WHAT)]
    pub top: u64,

    /// Tell so many tuples and processes apart; others are summed
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000),
        default_value_t = 100_000,
        help_heading = "Kernel"
    )]
    pub tuples: u32,

    /// The way into the kernel
    #[arg(
        long,
        value_name = "WAY",
        value_enum,
        default_value_t,
        help_heading = "Kernel"
    )]
    pub attach: Attach,

    /// Run this command, count the ports of it and its descendants only, and exit with its status
    ///
    /// It starts when every hook is attached and keeps stdin, stdout and stderr; what portwatch prints goes
    /// to the file of -w, or else to stderr. It runs as the user who called sudo.
    #[arg(
        last = true,
        value_name = "COMMAND",
        num_args = 1..,
        value_hint = clap::ValueHint::CommandWithArguments
    )]
    pub command: Vec<OsString>,
}

const WHAT: &str = "What to show";

/// What `churn` is to do.
#[derive(Clone, Debug, PartialEq)]
pub struct ChurnOptions {
    /// Time between two looks.
    pub interval: Duration,
    /// End after one.
    pub once: bool,
    /// What is added up.
    pub by: By,
    /// How much is shown of each.
    pub top: usize,
    /// Tuples and processes that are told apart.
    pub tuples: u32,
    /// The way into the kernel, `None` for the best.
    pub backend: Option<Backend>,
    /// The command to run and follow; `None` without one, else never empty.
    pub command: Option<Vec<OsString>>,
    /// How and where to print.
    pub output: OutputOptions,
}

impl ChurnArgs {
    /// What was meant.
    #[must_use]
    pub fn resolve(self, output: OutputArgs) -> ChurnOptions {
        let Self {
            interval,
            once,
            by,
            top,
            tuples,
            attach,
            command,
        } = self;
        let command = (!command.is_empty()).then_some(command);
        ChurnOptions {
            interval,
            once,
            by,
            top: usize::try_from(top).unwrap_or(usize::MAX),
            tuples,
            backend: attach.backend(),
            output: output.resolve(if command.is_some() {
                Destination::Stderr
            } else {
                Destination::Stdout
            }),
            command,
        }
    }
}
