//! The command line tool: parse, run, exit code.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use portwatch::{
    cli::{Cli, Destination, System, Verb},
    commands,
    failure::Failure,
};

fn main() -> ExitCode {
    let cli = Cli::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    match run(cli) {
        Ok(code) => code.into(),
        Err(failure) if failure.is_closed_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report();
            failure.code().into()
        }
    }
}

fn run(Cli { verb, output }: Cli) -> Result<u8, Failure> {
    match verb {
        Verb::Trace(args) => match args.resolve(output, &System) {
            Ok(options) => commands::trace::run(&options),
            Err(error) => error.into_clap("trace").exit(),
        },
        Verb::List(args) => match args.resolve(output, &System) {
            Ok(options) => commands::list::run(&options),
            Err(error) => error.into_clap("list").exit(),
        },
        Verb::Who(args) => commands::who::run(&args, &output.resolve(Destination::Stdout)),
        Verb::Check(args) => commands::check::run(&args, &output.resolve(Destination::Stdout)),
        Verb::CheckRange(args) => {
            commands::check_range::run(&args, &output.resolve(Destination::Stdout))
        }
        Verb::Churn(args) => commands::churn::run(&args.resolve(output)),
        Verb::Record(args) => match args.resolve(output, &System) {
            Ok(options) => commands::record::run(&options),
            Err(error) => error.into_clap("record").exit(),
        },
        Verb::Replay(args) => match args.resolve(output, &System) {
            Ok(options) => commands::replay::run(&options),
            Err(error) => error.into_clap("replay").exit(),
        },
        Verb::Report(args) => commands::report::run(&args, &output.resolve(Destination::Stdout)),
        Verb::Doctor => commands::doctor::run(&output.resolve(Destination::Stdout)),
        Verb::Completions { shell } => print(|out| commands::completions::run(shell, out)),
        Verb::Man => print(|out| commands::man::run(out)),
    }
}

fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<u8, Failure> {
    let mut out = io::stdout().lock();
    write(&mut out)
        .and_then(|()| out.flush())
        .map_err(|error| Failure::from_write(error, &Destination::Stdout))?;
    Ok(0)
}
