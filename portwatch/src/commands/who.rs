//! `portwatch who`: every socket on a port, in any state, and who has it.

use std::{collections::BTreeSet, io::Write as _};

use anyhow::Context as _;

use super::target::ports;
use crate::{
    cli::{Format, OutputOptions, target::Target, who::WhoArgs},
    enrich::{descriptors::Missed, listing::Lister},
    errno,
    event::{Listing, TcpState, Transport},
    failure::{Failure, Kind},
    sink,
    sockets::{
        look::{Seen, look},
        options as socket_options,
        table::Row,
    },
    stderr::say,
};

/// Prints them; 0 when there is one, else 1.
///
/// # Errors
/// When the port is not known by that name, the kernel tells nothing, or the output cannot be written.
pub fn run(args: &WhoArgs, options: &OutputOptions) -> Result<u8, Failure> {
    let WhoArgs {
        target,
        pids,
        first,
    } = args;
    let ports = ports(target)?;
    // The kernel can be asked for one port.
    let only = match ports.as_slice() {
        [(_, port), rest @ ..] if rest.iter().all(|(_, other)| other == port) => Some(*port),
        _ => None,
    };
    let note = |text: String| {
        if !options.quiet {
            say(format_args!("portwatch: {text}"));
        }
    };
    let late = |reason: &str| {
        note(format!(
            "looking through the descriptors of all processes, which takes long: {}",
            errno::words(&reason)
        ));
    };
    let Seen {
        rows,
        left_out,
        missed,
        outside,
        closed,
        without_iterator,
        diag,
    } = look(only, late);
    if let (Err(error), Some(reason)) = (diag, &without_iterator) {
        let error = anyhow::Error::new(error).context("cannot ask the kernel for its sockets");
        return Err(
            Failure::new(Kind::Impossible, error).hint(format!("nor by iterator: {reason}"))
        );
    }
    let mut rows: Vec<Row> = rows
        .into_iter()
        .filter(|row| is_wanted(target, &ports, row))
        .collect();
    // What is missed stays unknown, and each socket says so.
    let _: Missed = socket_options::complete(&mut rows, socket_options::PATIENCE);
    let mut lister = Lister::new(options.numeric).context("cannot read the clocks")?;
    let now = lister.now().context("cannot read the clocks")?;
    let mut listings = lister
        .list(rows, missed == Missed::Nothing && !outside)
        .context("cannot read the clocks")?;
    listings.sort_by_key(order);
    let hidden = listings.iter().filter(|one| one.is_hidden()).count();
    if *first {
        listings.truncate(1);
        for listing in &mut listings {
            listing.owner.processes.truncate(1);
        }
    }
    print(&listings, now, *pids, options)?;
    if hidden > 0 {
        note(unknown_owners(hidden, missed));
    }
    if closed > 0 {
        note(format!("{closed} network namespaces cannot be looked into"));
    }
    if left_out > 0 {
        note(format!("{left_out} sockets more than can be held"));
    }
    if let Some(reason) = without_iterator.filter(|_| options.verbosity > 0) {
        note(format!(
            "sockets that are bound and do not listen may be missing: {}",
            errno::words(&reason)
        ));
    }
    Ok(u8::from(listings.is_empty()))
}

/// Why there are sockets without owners: only what could not be read for want of permission is hidden.
fn unknown_owners(count: usize, missed: Missed) -> String {
    let why = match missed {
        Missed::Hidden => "are hidden from this user",
        Missed::Unread => "are not known: not every process could be read",
        // Or nobody has them any more: from inside that cannot be told.
        Missed::Nothing => "are not known: they may be outside this pid namespace",
    };
    format!("the owners of {count} of these sockets {why}")
}

fn is_wanted(target: &Target, ports: &[(Option<Transport>, u16)], row: &Row) -> bool {
    let socket = &row.socket;
    ports.iter().any(|(transport, port)| {
        socket.local.port == Some(*port) && transport.is_none_or(|one| one == socket.transport)
    }) && target.takes(socket)
}

/// Those that wait for others first, then connections, then what is left of them; our own network
/// namespace before others.
fn order(listing: &Listing) -> impl Ord + use<> {
    let Listing {
        socket, elsewhere, ..
    } = listing;
    let class = match socket.state {
        TcpState::Listen => 0,
        TcpState::Closed | TcpState::BoundInactive => 1,
        TcpState::TimeWait => 3,
        _ => 2,
    };
    (
        *elsewhere,
        class,
        socket.transport as u8,
        socket.socket.netns,
        socket.local.address,
        socket.peer.map(|peer| (peer.address, peer.port)),
        socket.socket.inode,
    )
}

fn print(
    listings: &[Listing],
    now: crate::event::Time,
    pids: bool,
    options: &OutputOptions,
) -> Result<(), Failure> {
    let mut out = sink::create(&options.destination).map_err(Failure::from_open)?;
    let text = if pids {
        let pids: BTreeSet<u32> = listings
            .iter()
            .flat_map(|listing| &listing.owner.processes)
            .map(|occupant| occupant.task.pid)
            .collect();
        let lines = pids.iter().map(|pid| format!("{pid}\n"));
        lines.collect::<String>().into_bytes()
    } else {
        match options.format {
            Format::Json => sink::json::listing::lines(listings, now, true),
            Format::Text => {
                let look = sink::text::listing::Look {
                    width: sink::width(&out),
                    header: !options.quiet && !listings.is_empty(),
                    args: true,
                };
                sink::text::listing::lines(listings, look)
            }
        }
    };
    out.write_all(&text)
        .map_err(|error| Failure::from_write(error, &options.destination))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_is_what_may_not_be_read_and_nothing_else() {
        for (missed, is_hidden) in [
            (Missed::Hidden, true),
            (Missed::Unread, false),
            (Missed::Nothing, false),
        ] {
            let text = unknown_owners(3, missed);
            assert_eq!(text.contains("hidden"), is_hidden, "{text}");
            assert!(text.contains("of 3 of these"), "{text}");
        }
    }
}
