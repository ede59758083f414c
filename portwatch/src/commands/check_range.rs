//! `portwatch check-range`: whether a range of ports that is to be given out by hand, or by a program of its
//! own, is left alone by the kernel and by everybody else.

use std::{io::Write as _, ops::RangeInclusive};

use anyhow::Context as _;

use super::check::place::{self, inside};
use crate::{
    cli::{Format, OutputOptions, check::CheckRangeArgs},
    enrich::{image::Images, netns::Limits},
    event::{CheckedRange, Missed, Time, Transport},
    failure::{Failure, Kind},
    sink::{self, text::check_range::Style},
    sockets::{listing::Lister, port::survey},
    stderr::say,
};

/// Prints what overlaps; 0 when nothing does, 1 when something does, 3 where that could not be seen.
///
/// # Errors
/// When the kernel does not say what it gives out, or the output cannot be written.
pub fn run(args: &CheckRangeArgs, options: &OutputOptions) -> Result<u8, Failure> {
    let namespace = place::open(args.netns.as_ref())?;
    let elsewhere = namespace.is_some();
    let (mut checked, missed, time) = inside(namespace, || look(&args.range, options))??;
    checked.elsewhere = elsewhere;
    let mut out = sink::create(&options.destination).map_err(Failure::from_open)?;
    let text = match options.format {
        Format::Json => sink::json::check_range::line(&checked, time),
        Format::Text => {
            let style = Style {
                width: sink::width(&out),
                color: sink::colored(options.color, &out),
                header: !options.quiet,
            };
            sink::text::check_range::lines(&checked, time, style)
        }
    };
    out.write_all(&text)
        .map_err(|error| Failure::from_write(error, &options.destination))?;
    if missed != Missed::Nothing && !options.quiet {
        say("portwatch: not every process could be looked at: owners of sockets may be missing");
    }
    Ok(match (checked.is_clear(), checked.may_hide) {
        (false, _) => 1,
        (true, true) => 3,
        (true, false) => 0,
    })
}

fn look(
    range: &RangeInclusive<u16>,
    options: &OutputOptions,
) -> Result<(CheckedRange, Missed, Time), Failure> {
    let limits = Limits::read();
    let (Some(ephemeral), Some(reserved)) = (limits.range, limits.reserved) else {
        let error = anyhow::anyhow!("cannot read net.ipv4.ip_local_port_range");
        return Err(Failure::new(Kind::Impossible, error).hint("is /proc/sys mounted?"));
    };
    let mut rows = Vec::new();
    let mut missed = Missed::Nothing;
    let mut may_hide = false;
    for transport in [Transport::Tcp, Transport::Udp] {
        let seen = survey(transport, range)
            .context("cannot ask the kernel for its sockets")
            .map_err(|error| Failure::new(Kind::Impossible, error))?;
        rows.extend(seen.rows);
        missed = missed.max(seen.missed);
        may_hide |= seen.may_hide;
    }
    let mut lister = Lister::new(options.numeric).context("cannot read the clocks")?;
    let now = lister.now().context("cannot read the clocks")?;
    let mut sockets = lister
        .list(rows, &Images::default(), missed == Missed::Nothing)
        .context("cannot read the clocks")?;
    sockets.sort_by_key(|one| {
        let socket = &one.socket;
        (
            socket.local.port,
            socket.transport as u8,
            socket.local.address,
        )
    });
    let checked = CheckedRange {
        range: range.clone(),
        ephemeral,
        reserved,
        sockets,
        netns: place::netns(),
        elsewhere: false,
        may_hide,
    };
    Ok((checked, missed, now))
}
