//! `portwatch report`: a recording, or lines, summed up.

use std::{
    io::{self, BufRead as _, Write as _},
    path::Path,
};

use anyhow::Context as _;
use jiff::{Timestamp, tz::TimeZone};

use super::recording;
use crate::{
    cli::{Format, OutputOptions, ReportArgs},
    failure::{Failure, Kind},
    report::{Report, Scope, Summary},
    sink::{self, text::report::Look},
    source,
};

/// Prints the sums; the value is the exit status.
///
/// # Errors
/// When there is nothing that could be summed up, or the output cannot be written.
pub fn run(args: &ReportArgs, options: &OutputOptions) -> Result<u8, Failure> {
    let ReportArgs {
        file,
        since,
        until,
        ports,
        top,
    } = args;
    let (now, zone) = (Timestamp::now(), TimeZone::system());
    let mut summary = Summary::new(Scope {
        since: since.as_ref().map(|since| since.resolve(now, &zone)),
        until: until.as_ref().map(|until| until.resolve(now, &zone)),
        ports: ports.clone(),
    });
    if file == Path::new("-") {
        lines(&mut summary)?;
    } else {
        recording::open(file, &options.destination)?
            .sum_up(&mut summary)
            .map_err(Failure::cannot_read)?;
    }
    let report = summary.finish(usize::try_from(*top).unwrap_or(usize::MAX));
    print(&report, options, zone)
}

/// Sums up the lines of standard input. A last one without its end is one that is being written.
fn lines(summary: &mut Summary) -> Result<(), Failure> {
    let mut input = io::stdin().lock();
    let mut line = String::new();
    for number in 1u64.. {
        line.clear();
        input
            .read_line(&mut line)
            .context("cannot read standard input")?;
        if line.is_empty() {
            break;
        }
        match source::json::line(line.trim_end()) {
            Ok(item) => summary.item(&item),
            Err(_) if !line.ends_with('\n') && number > 1 => {}
            Err(_) if line.trim().is_empty() => {}
            Err(wrong) => {
                let error = anyhow::Error::new(wrong).context(format!(
                    "line {number} of standard input is none of portwatch"
                ));
                return Err(Failure::new(Kind::Other, error)
                    .hint("give it what portwatch trace -o json or replay -o json prints"));
            }
        }
    }
    Ok(())
}

fn print(report: &Report, options: &OutputOptions, zone: TimeZone) -> Result<u8, Failure> {
    let mut out = sink::create(&options.destination).map_err(Failure::from_open)?;
    let text = match options.format {
        Format::Json => sink::json::report::line(report),
        Format::Text => {
            let look = Look {
                width: sink::width(&out),
                color: sink::colored(options.color, &out),
                zone,
            };
            sink::text::report::lines(report, &look)
        }
    };
    out.write_all(&text)
        .map_err(|error| Failure::from_write(error, &options.destination))?;
    Ok(0)
}
