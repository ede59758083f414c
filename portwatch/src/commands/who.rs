//! `portwatch who`: every socket on a port, in any state, and who has it; after them, who is connected to a
//! port of that number, here or elsewhere.

use std::{collections::BTreeSet, io::Write as _};

use super::{
    listing::{self, Layout},
    target::ports,
};
use crate::{
    cli::{OutputOptions, target::Target, who::WhoArgs},
    enrich::owners::INIT,
    event::{Endpoint, Holder, Listing, TcpState, Transport},
    failure::Failure,
    sink::text::listing::Column,
    sockets::{scope::Scope, table::Row},
};

/// All are on the same port: what is to be said of its number says nothing here.
const COLUMNS: &[Column] = &[
    Column::Transport,
    Column::State,
    Column::Count,
    Column::Local,
    Column::Peer,
    Column::Left,
    Column::Netns,
    Column::Options,
    Column::Pid,
    Column::Up,
    Column::Container,
    Column::Unit,
    Column::Command,
];

/// Prints them; 0 when a socket has the port, else 1.
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
    let has_it = |socket: &Holder| is_on(target, &ports, socket);
    let few = *first || *pids;
    let wanted = |row: &Row| has_it(&row.socket) || (!few && leads_to(target, &ports, &row.socket));
    let scope = Scope {
        port: only,
        peers: !few,
        transports: transports(target, &ports),
        ..Scope::default()
    };
    let mut found = listing::find(&scope, wanted, options)?;
    let listings = &mut found.listings;
    listings.sort_by_cached_key(|listing| (!has_it(&listing.socket), order(listing)));
    let owners = listings.partition_point(|listing| has_it(&listing.socket));
    if *first {
        listings.truncate(1);
        for listing in listings.iter_mut() {
            listing.owner.processes.truncate(1);
        }
    }
    if *pids {
        let (text, left_out) = process_ids(listings);
        listing::write(options, |_, out| out.write_all(&text))?;
        if left_out > 0 {
            let text = "in other network namespaces, or pid 1, are left out: without --pids they are shown";
            listing::note(options, &format!("{left_out} processes {text}"));
        }
    } else {
        let layout = Layout {
            columns: COLUMNS,
            header: true,
        };
        found.print(layout, options)?;
    }
    found.conclude(owners > 0, "nobody has it, in any state", options)
}

/// Of which transports; none for any.
fn transports(target: &Target, ports: &[(Option<Transport>, u16)]) -> Vec<Transport> {
    if let Some(one) = target.transport {
        return vec![one];
    }
    let named: Option<Vec<Transport>> = ports.iter().map(|(transport, _)| *transport).collect();
    named.unwrap_or_default()
}

/// Whether a socket has the port that is asked about.
fn is_on(target: &Target, ports: &[(Option<Transport>, u16)], socket: &Holder) -> bool {
    names(ports, socket.transport, socket.local.port) && target.takes(socket)
}

/// Whether it is connected to it.
fn leads_to(target: &Target, ports: &[(Option<Transport>, u16)], socket: &Holder) -> bool {
    let is_it = |peer: Endpoint| {
        names(ports, socket.transport, peer.port)
            && target.address.is_none_or(|wanted| {
                peer.address.map(|address| address.to_canonical()) == Some(wanted.to_canonical())
            })
    };
    socket.state != TcpState::TimeWait && socket.peer.is_some_and(is_it) && target.has(socket)
}

fn names(ports: &[(Option<Transport>, u16)], of: Transport, number: Option<u16>) -> bool {
    ports
        .iter()
        .any(|(transport, port)| number == Some(*port) && transport.is_none_or(|one| one == of))
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

/// Each process once, one a line, and how many are left out: they are for `xargs kill`, and whoever asks for
/// a port means the one of this network namespace, and never pid 1, which may hold it for a unit.
fn process_ids(listings: &[Listing]) -> (Vec<u8>, usize) {
    let pids = |wanted: fn(&Listing) -> bool| -> BTreeSet<u32> {
        let listings = listings.iter().filter(|listing| wanted(listing));
        listings
            .flat_map(|listing| &listing.owner.processes)
            .map(|occupant| occupant.task.pid)
            .collect()
    };
    let mut here = pids(|listing| !listing.elsewhere);
    here.remove(&INIT);
    let left_out = pids(|_| true).difference(&here).count();
    let lines = here.iter().map(|pid| format!("{pid}\n"));
    (lines.collect::<String>().into_bytes(), left_out)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]

    use super::*;

    #[test]
    fn a_client_is_one_whatever_family_its_socket_has() {
        let ports = [(None, 443)];
        let target = |address: &str| Target {
            transport: None,
            address: Some(address.parse().unwrap()),
            port: crate::cli::target::Port::Number(443),
        };
        let mut client = crate::sample::listings().remove(0).socket;
        client.state = TcpState::Established;
        client.peer = Some(Endpoint {
            address: Some("::ffff:127.0.0.1".parse().unwrap()),
            port: Some(443),
        });
        assert!(leads_to(&target("127.0.0.1"), &ports, &client));
        assert!(!leads_to(&target("127.0.0.2"), &ports, &client));
        client.state = TcpState::TimeWait;
        assert!(!leads_to(&target("127.0.0.1"), &ports, &client));
    }

    #[test]
    fn only_what_was_named_is_looked_for() {
        let target = |transport| Target {
            transport,
            address: None,
            port: crate::cli::target::Port::Number(53),
        };
        let (tcp, udp) = (Some(Transport::Tcp), Some(Transport::Udp));
        assert_eq!(transports(&target(udp), &[(None, 53)]), [Transport::Udp]);
        assert_eq!(transports(&target(None), &[(None, 53)]), []);
        let both = [(tcp, 53), (udp, 53)];
        assert_eq!(
            transports(&target(None), &both),
            [Transport::Tcp, Transport::Udp]
        );
    }

    #[test]
    fn each_process_is_told_once() {
        let mut listings = crate::sample::listings();
        listings.extend(crate::sample::listings());
        let is_elsewhere = |listing: &Listing| listing.elsewhere;
        let (text, left_out) = process_ids(&listings);
        assert!(listings.iter().any(is_elsewhere));
        assert!(text.starts_with(b"812\n813\n"), "{left_out}");
        listings.retain(is_elsewhere);
        assert_eq!(process_ids(&listings), (Vec::new(), left_out));
    }
}
