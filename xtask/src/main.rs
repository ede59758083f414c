//! Development tasks: `cargo xtask run`, `cargo xtask test`, `cargo xtask bench`, `cargo xtask fuzz`.
//!
//! One verb a file ([`run`], [`test`], [`bench`], [`fuzz`]); what they share: the toolchain
//! ([`toolchain`]), building
//! ([`cargo`]), and virtual machines with Debian's kernels ([`vm`]).

mod bench;
mod cargo;
mod exec;
mod fuzz;
mod privilege;
mod run;
mod say;
mod test;
mod toolchain;
mod verifier;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Build, run and test portwatch
///
/// Two commands are all it takes: `cargo xtask run` to see it work, `cargo xtask test` to know that
/// it does. Both get what they lack (after saying what, how big and where to) and are quick the
/// second time.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Run(run::Run),
    Test(test::Test),
    Bench(bench::Bench),
    Fuzz(fuzz::Fuzz),
}

fn main() -> ExitCode {
    let result = match Cli::parse().verb {
        Verb::Run(options) => run::run(options).map(|()| ExitCode::SUCCESS),
        Verb::Test(options) => test::run(options),
        Verb::Bench(options) => bench::run(options).map(|()| ExitCode::SUCCESS),
        Verb::Fuzz(options) => fuzz::run(options).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        eprintln!("xtask: error: {error:#}");
        ExitCode::FAILURE
    })
}
