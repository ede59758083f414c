//! The command line, in two steps: what was typed ([`Cli`], clap) and what it means
//! ([`resolve`]). The doc comments here are the text of `-h`, `--help`, the man page and the
//! completions.

pub mod check;
mod churn;
mod filter;
pub mod help;
pub mod list;
mod moment;
mod parse;
mod record;
mod replay;
mod report;
pub mod resolve;
mod system;
pub mod target;
mod trace;
pub mod who;

use std::{ffi::OsString, path::PathBuf};

use clap::{
    Args, ColorChoice, Parser, Subcommand, ValueHint,
    error::{ContextKind, ContextValue, ErrorKind},
};
use clap_complete::Shell;

pub use crate::sink::{Destination, Format, OutputOptions};
pub use churn::{ChurnArgs, ChurnOptions};
pub use filter::{FilterArgs, NetnsArg, UserArg};
pub use record::{RecordArgs, RecordOptions};
pub use replay::{ReplayArgs, ReplayOptions};
pub use report::{Moment, ReportArgs};
pub use resolve::{Names, TraceOptions, UsageError};
pub use system::System;
pub use trace::{Attach, KernelArgs, TraceArgs};

/// Which process bound or grabbed which port, who failed, who holds it, and why
///
/// portwatch watches the kernel: every bind, listen, connect and automatically taken port of every
/// process appears the moment it happens, failures with the address and port that were asked for.
#[derive(Debug, Parser)]
#[command(
    name = "portwatch",
    version,
    arg_required_else_help = true,
    subcommand_required = true,
    max_term_width = 100,
    after_help = "portwatch trace --help explains the filters, with examples.",
    after_long_help = help::text(help::PORTWATCH)
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
    /// What to print, and where.
    #[command(flatten)]
    pub output: OutputArgs,
}

impl Cli {
    /// Parses what was typed, the name of the program first.
    ///
    /// # Errors
    /// What is wrong with it, or a text that was asked for, such as help.
    pub fn read(typed: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let typed: Vec<OsString> = typed.into_iter().collect();
        let cli =
            Self::try_parse_from(&typed).or_else(|error| match bare_port(&typed, &error) {
                Some(typed) => Self::try_parse_from(typed),
                None => Err(error),
            })?;
        // clap takes `--` with nothing behind it for no `--` at all: everything would be traced.
        let (verb, has_command) = match &cli.verb {
            Verb::Trace(args) => ("trace", !args.command.is_empty()),
            Verb::Churn(args) => ("churn", !args.command.is_empty()),
            _ => return Ok(cli),
        };
        if !has_command && typed.last().is_some_and(|last| last == "--") {
            return Err(resolve::verb_error(
                verb,
                ErrorKind::MissingRequiredArgument,
                "a COMMAND is required after '--'",
            ));
        }
        Ok(cli)
    }
}

/// Options of every verb that take a value.
const VALUED: [&str; 5] = ["-o", "--output", "-w", "--write", "--color"];

/// What was typed with `who` in front of what stands where a verb should, if that is a port.
fn bare_port(typed: &[OsString], error: &clap::Error) -> Option<Vec<OsString>> {
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand) else {
        return None;
    };
    // A name is more likely a verb that was misspelt.
    if error.kind() != ErrorKind::InvalidSubcommand
        || !word.contains(|one: char| one.is_ascii_digit())
    {
        return None;
    }
    // Not where it is the value of an option.
    let is_value = |place: usize| {
        let before = place.checked_sub(1).and_then(|place| typed.get(place));
        before.is_some_and(|one| VALUED.iter().any(|option| one == option))
    };
    let place = (1..typed.len()).find(|&place| {
        typed.get(place).is_some_and(|one| one == word.as_str()) && !is_value(place)
    })?;
    let mut typed = typed.to_vec();
    typed.insert(place, "who".into());
    Some(typed)
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Print who binds, listens on, connects from or grabs which port, as it happens
    ///
    /// Every process of the machine, whichever user or container it belongs to. One line for each
    /// call, when its outcome is known: a connection is reported once it is established or has
    /// failed. A failed call shows the address and port that were asked for. Ends with Ctrl-C,
    /// --duration, --count, or the COMMAND.
    Trace(Box<TraceArgs>),
    /// Print what occupies ports, and who has it: listening TCP, bound UDP, bound TCP
    ///
    /// In every network namespace, with every process that has a descriptor, sorted by port. Takes the
    /// options of ss: portwatch list -tulnp.
    List(list::ListArgs),
    /// Print every socket on a port, in any state, and who has it
    ///
    /// In every network namespace, with every process that has a descriptor. portwatch PORT is short for
    /// it.
    Who(who::WhoArgs),
    /// Say whether a socket could be bound, and if not, who is in the way and why
    ///
    /// Without binding anything: the sockets that are there are compared by the kernel's rules. What
    /// depends on something that cannot be seen is said to be unknown.
    Check(check::CheckArgs),
    /// Say whether a range of ports is left alone by the kernel and everybody else
    ///
    /// For ports that are given out by hand or by another program: node ports of Kubernetes, media ports
    /// of a telephone exchange. What overlaps with the kernel's automatic range, which sockets are there
    /// now, and the sysctl that keeps the kernel off.
    CheckRange(check::CheckRangeArgs),
    /// Show where the automatic ports go, and when they will run out
    ///
    /// Ports that the kernel chooses, for connect(), bind() to port 0, listen() and UDP: taken, given back, held,
    /// in TIME_WAIT, and by whom; how full each pool of ports is, what it needs at the present rate and at
    /// which rate it fails. On a terminal one screen that is drawn anew, in a pipe plain lines. Ends with
    /// Ctrl-C, --once, or the COMMAND.
    Churn(ChurnArgs),
    /// Record what trace would print, and keep what matters in a file, for days
    ///
    /// For the failure that happens at night. By default failures are kept, and what is dangerous. The
    /// file is an SQLite database of bounded size, which replay prints and anybody can query,
    /// while it is written too. Ends with Ctrl-C, SIGTERM or --duration.
    Record(Box<RecordArgs>),
    /// Print a recording as trace would have printed it
    ///
    /// With the filters and formats of trace. A recording that is being written can be replayed, too.
    Replay(Box<ReplayArgs>),
    /// Sum a recording up: conflicts, whether they were resolved, warnings, other failures, gaps
    ///
    /// What is alike is one entry, with how often, since when, who and why; what is not resolved comes
    /// first. A recording that is being written can be summed up, too.
    Report(ReportArgs),
    /// Say what portwatch can see on this machine, what it cannot, and what would help
    ///
    /// Tries what trace would use, without tracing: the way into the kernel that would be chosen
    /// and why not a better one, privileges, lockdown, type information of the kernel (BTF), the
    /// state of every hook and field. Works without root as far as that goes.
    Doctor,
    /// Print the completion script for a shell
    ///
    /// For example: portwatch completions bash > /etc/bash_completion.d/portwatch
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page
    ///
    /// For example: portwatch man | man -l -
    Man,
}

/// The options that every verb takes.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// How to print: text for people, json for programs
    #[arg(
        short = 'o',
        long,
        value_name = "FORMAT",
        value_enum,
        default_value_t,
        global = true
    )]
    pub output: Format,

    /// Where to print: a file, which is overwritten (by record: continued); - is standard output
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath, global = true)]
    pub write: Option<PathBuf>,

    /// Print numbers: no names of services, users or hosts
    #[arg(short, long, global = true)]
    pub numeric: bool,

    /// When to use colours; auto means on a terminal and without NO_COLOR in the environment
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = ColorChoice::Auto, global = true)]
    pub color: ColorChoice,

    /// Data and errors only: no header, no totals, no notes
    #[arg(short, long, conflicts_with = "verbose", global = true)]
    pub quiet: bool,

    /// Say what is done and why; twice: with the diagnostics of the kernel programs
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
}

#[cfg(test)]
mod tests;
