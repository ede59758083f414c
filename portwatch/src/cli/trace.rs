//! The arguments of `trace`.

use std::{ffi::OsString, time::Duration};

use clap::{Args, ValueEnum};

use super::{FilterArgs, help, parse};
use crate::event::Backend;

/// What was typed after `trace`; [`TraceArgs::resolve`] says what it means.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Filters combine: all kinds given must match, one value of a kind is enough.",
    after_long_help = help::text(help::TRACE)
)]
pub struct TraceArgs {
    /// Which events.
    #[command(flatten)]
    pub filters: FilterArgs,

    /// End after this time: 10s, 2m, 1h30m
    #[arg(
        long,
        value_name = "TIME",
        value_parser = parse::duration,
        help_heading = STOP
    )]
    pub duration: Option<Duration>,

    /// End after this many events
    #[arg(
        short,
        long,
        value_name = "N",
        value_parser = parse::count,
        help_heading = STOP
    )]
    pub count: Option<u64>,

    /// Leave out the arguments of processes, which may hold secrets
    #[arg(long, help_heading = "Output")]
    pub no_args: bool,

    /// How to get at them.
    #[command(flatten)]
    pub kernel: KernelArgs,

    /// Run this command, follow it and its descendants only, and exit with its status
    ///
    /// It starts when every hook is attached and keeps stdin, stdout and stderr; what portwatch
    /// prints goes to the file of -w, or else to stderr. It runs as the user who called sudo.
    #[arg(
        last = true,
        value_name = "COMMAND",
        num_args = 1..,
        value_hint = clap::ValueHint::CommandWithArguments
    )]
    pub command: Vec<OsString>,
}

const STOP: &str = "Stop";
const KERNEL: &str = "Kernel";

/// How events are to come out of the kernel.
#[derive(Args, Clone, Debug)]
pub struct KernelArgs {
    /// The way into the kernel
    #[arg(
        long,
        value_name = "WAY",
        value_enum,
        default_value_t,
        help_heading = KERNEL
    )]
    pub attach: Attach,

    /// Size of the buffer between kernel and portwatch: 256K, 8M
    ///
    /// Rounded up to a power of two. What does not fit is lost, and shows as lost.
    #[arg(
        long,
        value_name = "SIZE",
        value_parser = parse::buffer_size,
        default_value = parse::DEFAULT_BUFFER,
        help_heading = KERNEL
    )]
    pub buffer: u64,
}

/// `--attach`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Attach {
    /// The best that this kernel allows
    #[default]
    Auto,
    /// fentry, fexit and BTF tracepoints: cheapest
    Tracing,
    /// kprobes and kretprobes
    Kprobe,
    /// Raw tracepoints alone, where a kernel allows nothing else; sees less
    #[value(name = "raw_tp")]
    RawTp,
}

impl Attach {
    /// The way that was asked for; `None` leaves the choice to portwatch.
    #[must_use]
    pub const fn backend(self) -> Option<Backend> {
        match self {
            Self::Auto => None,
            Self::Tracing => Some(Backend::Tracing),
            Self::Kprobe => Some(Backend::Kprobe),
            Self::RawTp => Some(Backend::RawTp),
        }
    }
}
