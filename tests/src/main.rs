//! Scenarios: real programs do things to ports, and portwatch has to say exactly that.
//!
//! The same binary runs on the host and as the only user space of a test VM. It is the runner, the
//! workload of every scenario (`child`) and the small programs those start (`helper`).

mod bench;
mod contract;
mod cost;
mod crowd;
mod degraded;
mod expect;
mod helper;
mod rules;
mod runner;
mod scenarios;
mod script;
mod shared;
mod strace;
mod sys;
mod tracer;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};

use degraded::Backend;

#[derive(Debug, Parser)]
#[command(about = "Scenarios for portwatch, the same on the host and in every test VM")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Runs the scenarios against a portwatch binary. Needs root.
    Run {
        /// The binary under test.
        #[arg(long)]
        portwatch: PathBuf,
        /// The backend it has to use.
        #[arg(long)]
        attach: Backend,
        /// Which of the backends of this run it is, from 0: what does not depend on the backend runs with the first.
        #[arg(long, value_name = "N", default_value_t = 0)]
        place: usize,
        /// Another kernel of this run is the one for what does not depend on it, or on it and the backend together.
        #[arg(long)]
        one_of_many: bool,
        /// Root of the file system that has ss, netstat and lsof, to compare with.
        #[arg(long, value_name = "DIR")]
        neighbours: Option<PathBuf>,
        /// Root of the file system that has nginx, PostgreSQL and others, to be watched.
        #[arg(long, value_name = "DIR")]
        programs: Option<PathBuf>,
        /// Another backend that is to watch these at the same time; may be repeated.
        #[arg(long, value_name = "BACKEND")]
        also: Vec<Backend>,
        /// Load tests at full length.
        #[arg(long)]
        long: bool,
        /// Only scenarios whose name contains this.
        #[arg(long, default_value = "")]
        filter: String,
        /// Only those whose name begins with one of these.
        #[arg(long, value_name = "PREFIX")]
        only: Vec<String>,
        /// None of those whose name begins with one of these.
        #[arg(long, value_name = "PREFIX")]
        without: Vec<String>,
    },
    /// Names the scenarios.
    List,
    /// Prints docs/puzzles.md: which scenario proves which of the known puzzles.
    Puzzles,
    /// Names the backends this kernel allows, one a line.
    Backends {
        /// The binary to ask.
        #[arg(long)]
        portwatch: PathBuf,
    },
    /// Runs one workload without portwatch and prints the lines it would have to give.
    Workload {
        /// Name of the scenario.
        name: String,
        /// Backend to print them for.
        #[arg(long, default_value = "tracing")]
        attach: Backend,
        /// Load tests at full length.
        #[arg(long)]
        long: bool,
    },
    /// The process of one scenario.
    #[command(hide = true)]
    Child {
        name: String,
        #[arg(long)]
        attach: Backend,
        #[arg(long)]
        long: bool,
        /// Wait for the end of stdin.
        #[arg(long)]
        paused: bool,
    },
    /// Somebody else in a scenario: takes ports and waits.
    #[command(hide = true)]
    Part {
        name: String,
        #[arg(long)]
        attach: Backend,
        /// Only make its arguments distinct.
        #[arg(last = true)]
        tags: Vec<std::ffi::OsString>,
    },
    /// Locks the kernel down, and runs what is to be seen then. Only in a test VM.
    #[command(hide = true)]
    Locked {
        #[arg(long)]
        portwatch: PathBuf,
    },
    /// Compares portwatch's rules of sharing a port with the running kernel. Needs root.
    Rules(rules::Options),
    /// Measures portwatch and its neighbours; see `cargo xtask bench`.
    #[command(subcommand)]
    Cost(cost::Cost),
    /// Small programs.
    #[command(hide = true, subcommand)]
    Helper(helper::Helper),
}

fn main() -> ExitCode {
    match run(Cli::parse().verb) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("portwatch-tests: {error:#}");
            ExitCode::from(4)
        }
    }
}

fn run(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Run {
            portwatch,
            attach,
            place,
            one_of_many,
            neighbours,
            programs,
            also,
            long,
            filter,
            only,
            without,
        } => runner::run(&runner::Options {
            portwatch,
            backend: attach,
            place,
            one_of_many,
            neighbours,
            programs,
            also,
            long,
            filter,
            only,
            without,
        }),
        Verb::List => {
            for name in runner::names() {
                println!("{name}");
            }
            Ok(ExitCode::SUCCESS)
        }
        Verb::Puzzles => {
            print!("{}", scenarios::puzzles::markdown());
            Ok(ExitCode::SUCCESS)
        }
        Verb::Backends { portwatch } => runner::backends(&portwatch),
        Verb::Workload { name, attach, long } => runner::workload(&name, attach, long),
        Verb::Child {
            name,
            attach,
            long,
            paused,
        } => runner::child(&name, attach, long, paused),
        Verb::Part {
            name,
            attach,
            tags: _,
        } => runner::part(&name, attach),
        Verb::Locked { portwatch } => runner::locked(&portwatch),
        Verb::Rules(options) => rules::run(&options),
        Verb::Cost(cost) => cost::run(cost),
        Verb::Helper(helper) => helper::run(helper),
    }
}
