//! The arguments of `replay`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::{Destination, FilterArgs, Names, OutputArgs, OutputOptions, UsageError, help, parse};
use crate::selection::Selection;

/// What was typed after `replay`; [`ReplayArgs::resolve`] says what it means.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Filters combine: all kinds given must match, one value of a kind is enough.",
    after_long_help = help::text(help::REPLAY),
    // What is in a recording was asked for when it was made.
    mut_arg("events", |events| events.default_value("bind,listen,connect,autobind,accept,release"))
)]
pub struct ReplayArgs {
    /// The recording
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,

    /// Which events.
    #[command(flatten)]
    pub filters: FilterArgs,

    /// End after this many events
    #[arg(short, long, value_name = "N", value_parser = parse::count, help_heading = "Stop")]
    pub count: Option<u64>,

    /// Leave out the arguments of processes, which may hold secrets
    // Behind the options of every verb, however many verbs there are: clap counts both.
    #[arg(long, help_heading = "Output", display_order = 1000)]
    pub no_args: bool,
}

/// What `replay` is to do.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplayOptions {
    /// The recording.
    pub file: PathBuf,
    /// Which events.
    pub selection: Selection,
    /// End after this many events; at least 1.
    pub count: Option<u64>,
    /// Show the arguments of processes.
    pub args: bool,
    /// How and where to print.
    pub output: OutputOptions,
}

impl ReplayArgs {
    /// What was meant.
    ///
    /// # Errors
    ///
    /// When a user or network namespace does not exist or cannot be looked up.
    pub fn resolve(
        self,
        output: OutputArgs,
        names: &impl Names,
    ) -> Result<ReplayOptions, UsageError> {
        let Self {
            file,
            filters,
            count,
            no_args,
        } = self;
        Ok(ReplayOptions {
            file,
            selection: filters.resolve(names, false, false)?,
            count,
            args: !no_args,
            output: output.resolve(Destination::Stdout),
        })
    }
}
