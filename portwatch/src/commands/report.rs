//! `portwatch report`: a recording, or lines, summed up.

use std::{
    io::{self, BufRead, Read as _, Write as _},
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

/// Bytes of a line, at most: more than those of a conflict with hundreds of processes and all their
/// arguments.
const LONGEST: u64 = 16 << 20;

/// Prints the sums; the value is the exit status.
///
/// # Errors
/// When there is nothing that could be summed up, or the output cannot be written.
pub fn run(args: &ReportArgs, options: &OutputOptions) -> Result<u8, Failure> {
    let (now, zone) = (Timestamp::now(), TimeZone::system());
    let mut summary = Summary::new(scope(args, now, &zone)?);
    if args.file == Path::new("-") {
        recording::refuse_overwriting_stdin(&options.destination)?;
        lines(io::stdin().lock(), &mut summary)?;
    } else {
        recording::open(&args.file, options)?
            .sum_up(&mut summary)
            .map_err(Failure::cannot_read)?;
    }
    let report = summary.finish(usize::try_from(args.top).unwrap_or(usize::MAX));
    print(&report, options, zone)
}

/// What is to be summed up.
fn scope(args: &ReportArgs, now: Timestamp, zone: &TimeZone) -> Result<Scope, Failure> {
    let ReportArgs {
        file: _, // where from, and how much of it is shown
        top: _,
        since,
        until,
        ports,
    } = args;
    let since = since.as_ref().map(|since| since.resolve(now, zone));
    let until = until.as_ref().map(|until| until.resolve(now, zone));
    if let (Some(since), Some(until)) = (since, until)
        && since >= until
    {
        let error = anyhow::anyhow!(
            "nothing can be between --since and --until: {since:.0} is not before {until:.0}"
        );
        return Err(Failure::new(Kind::Usage, error)
            .hint("36h is a moment so long ago: the earlier has the larger number"));
    }
    Ok(Scope {
        since,
        until,
        ports: ports.clone(),
    })
}

/// Sums up lines. A last one without its end is one that is being written.
fn lines(mut input: impl BufRead, summary: &mut Summary) -> Result<(), Failure> {
    let mut line = Vec::new();
    for number in 1u64.. {
        line.clear();
        input
            .by_ref()
            .take(LONGEST + 1)
            .read_until(b'\n', &mut line)
            .context("cannot read standard input")?;
        let is_too_long = line.len() as u64 > LONGEST;
        let is_cut = line.last() != Some(&b'\n') && !is_too_long;
        let text = line.trim_ascii();
        if line.is_empty() {
            break;
        }
        let why = match std::str::from_utf8(text) {
            _ if is_too_long => anyhow::anyhow!("it has more than {} MB", LONGEST >> 20),
            Ok("") => continue,
            Ok(text) => match source::json::line(text) {
                Ok(item) => {
                    summary.item(&item);
                    continue;
                }
                Err(wrong) => wrong.into(),
            },
            Err(wrong) => wrong.into(),
        };
        if is_cut && number > 1 {
            break;
        }
        let error = why.context(format!(
            "line {number} of standard input is none of portwatch"
        ));
        // The first bytes of every SQLite file.
        let hint = match number == 1 && line.starts_with(b"SQLite format 3\0") {
            true => "a recording is named: portwatch report FILE",
            false => "give it what portwatch trace -o json or replay -o json prints",
        };
        return Err(Failure::new(Kind::Other, error).hint(hint));
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]

    use std::io::BufReader;

    use clap::Parser as _;

    use super::*;
    use crate::{
        cli::{Cli, Verb},
        sample,
        sink::{Sink as _, json::Json},
    };

    fn report_of(line: &str) -> ReportArgs {
        let words = line.split_ascii_whitespace();
        match Cli::try_parse_from(["portwatch", "report"].into_iter().chain(words))
            .unwrap()
            .verb
        {
            Verb::Report(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_end_before_its_beginning_is_wrong_usage() {
        let now = "2026-11-29T12:00:00Z".parse().unwrap();
        for (line, expected) in [
            ("a --since 2h --until 1h", None),
            ("a --since 1h --until 2h", Some(2)),
            ("a --since 1h --until 1h", Some(2)),
            ("a --since 2026-11-29T11:00:00Z --until 2h", Some(2)),
            ("a --since 1h", None),
            ("a --until 1h", None),
        ] {
            let scope = scope(&report_of(line), now, &TimeZone::UTC);
            assert_eq!(
                scope.err().map(|failure| failure.code()),
                expected,
                "{line}"
            );
        }
    }

    fn read(input: impl io::Read) -> Result<(), Failure> {
        let mut summary = Summary::new(Scope::default());
        lines(BufReader::new(input), &mut summary)
    }

    fn refused(input: impl io::Read) -> String {
        let failure = read(input).unwrap_err();
        assert_eq!(failure.code(), 4);
        failure.line()
    }

    fn stream() -> Vec<u8> {
        let mut out = Vec::new();
        let mut json = Json::new(&mut out, true);
        for item in sample::stream() {
            json.item(&item).unwrap();
        }
        json.flush().unwrap();
        out
    }

    #[test]
    fn a_line_is_not_read_beyond_its_bound() {
        let endless = io::repeat(0);
        assert_eq!(
            refused(endless),
            "line 1 of standard input is none of portwatch: it has more than 16 MB"
        );
        let lines = stream();
        let endless = io::Read::chain(&lines[..], io::repeat(b'x'));
        assert!(refused(endless).contains("it has more than 16 MB"));
    }

    #[test]
    fn bytes_that_are_no_text_are_told_by_their_line() {
        let mut bytes = stream();
        let number = bytes.iter().filter(|byte| **byte == b'\n').count() + 1;
        bytes.extend_from_slice(b"\xff\xfe\n");
        let line = refused(&bytes[..]);
        assert!(
            line.starts_with(&format!(
                "line {number} of standard input is none of portwatch: "
            )),
            "{line}"
        );
    }

    #[test]
    fn a_last_line_that_is_being_written_is_left_out() {
        let whole = stream();
        for cut in [b"{\"schema\":".as_slice(), b"{\"a\":\"\xe2\x82"] {
            assert!(read(&[&whole[..], cut].concat()[..]).is_ok());
            assert!(read(cut).is_err(), "none of it is a line");
        }
        assert!(read(&[&whole[..], b"\n \n"].concat()[..]).is_ok());
        assert!(read(&b""[..]).is_ok());
    }
}
