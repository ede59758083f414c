//! The arguments of `record`.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;

use super::{
    Destination, FilterArgs, Format, KernelArgs, Names, OutputArgs, TraceArgs, TraceOptions,
    UsageError, help, parse,
};
use crate::store::{keep::Keep, retention::Bounds};

/// What was typed after `record`; [`RecordArgs::resolve`] says what it means.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "The file is that of -w FILE, or a new one in the state directory.",
    after_long_help = help::text(help::RECORD)
)]
pub struct RecordArgs {
    /// Which events.
    #[command(flatten)]
    pub filters: FilterArgs,

    /// What to keep of them
    ///
    /// Warnings are kept in any case, and of what succeeds that in which a program gets at last what it
    /// had been refused before.
    #[arg(long, value_name = "WHAT", value_enum, default_value_t, help_heading = KEPT)]
    pub keep: Keep,

    /// Space on the disk that the recording may take: 100M, 1G
    ///
    /// With what SQLite keeps beside it while it is written. The oldest events go first, conflicts
    /// after all others.
    #[arg(
        long,
        value_name = "SIZE",
        value_parser = parse::store_size,
        default_value = parse::DEFAULT_STORE,
        help_heading = KEPT
    )]
    pub max_size: u64,

    /// How old anything may get: 12h, 7d, 4w; without it, as old as there is space
    #[arg(long, value_name = "TIME", value_parser = parse::age, help_heading = KEPT)]
    pub max_age: Option<Duration>,

    /// End after this time: 10s, 2m, 1h30m
    #[arg(long, value_name = "TIME", value_parser = parse::duration, help_heading = "Stop")]
    pub duration: Option<Duration>,

    /// End after this many events, whether they are kept or not
    #[arg(short, long, value_name = "N", value_parser = parse::count, help_heading = "Stop")]
    pub count: Option<u64>,

    /// Leave out the arguments of processes, which may hold secrets
    #[arg(long, help_heading = KEPT)]
    pub no_args: bool,

    /// How to get at them.
    #[command(flatten)]
    pub kernel: KernelArgs,
}

const KEPT: &str = "Recording";

/// What `record` is to do.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordOptions {
    /// What to follow, and how. Where to print means nothing here.
    pub trace: TraceOptions,
    /// What to keep.
    pub keep: Keep,
    /// How much of it.
    pub bounds: Bounds,
    /// The file; without one, one of its own.
    pub file: Option<PathBuf>,
}

impl RecordArgs {
    /// What was meant.
    ///
    /// # Errors
    ///
    /// When a user or network namespace does not exist or cannot be looked up, or there is no file that
    /// could be meant.
    pub fn resolve(
        self,
        output: OutputArgs,
        names: &impl Names,
    ) -> Result<RecordOptions, UsageError> {
        let Self {
            filters,
            keep,
            max_size,
            max_age,
            duration,
            count,
            no_args,
            kernel,
        } = self;
        if output.write.as_deref() == Some(Path::new("-")) {
            return Err(UsageError {
                option: "--write <FILE>",
                value: "-".to_owned(),
                reason: "a recording is a file; trace -o json prints lines".to_owned(),
            });
        }
        if output.output == Format::Json {
            return Err(UsageError {
                option: "--output <FORMAT>",
                value: "json".to_owned(),
                reason: "a recording is a file; trace -o json and replay -o json print lines"
                    .to_owned(),
            });
        }
        let trace = TraceArgs {
            filters,
            duration,
            count,
            no_args,
            kernel,
            command: Vec::new(),
        };
        let mut trace = trace.resolve(output, names)?;
        // What is kept has every field, whatever it is printed as one day.
        trace.selection.brief = false;
        let file = match std::mem::replace(&mut trace.output.destination, Destination::Stdout) {
            Destination::File(path) => Some(path),
            Destination::Stdout | Destination::Stderr => None,
        };
        Ok(RecordOptions {
            trace,
            keep,
            bounds: Bounds {
                size: max_size,
                age: max_age,
            },
            file,
        })
    }
}
