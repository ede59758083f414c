//! Sockets that were looked up, in columns: as wide as what stands in them, the last one cut to the
//! terminal. A socket of several processes takes a line for each.

use super::command::command;
use crate::{
    event::{Listing, Occupant, TcpState, Transport},
    sink::{digits, escape::Escape},
};

/// How it is to look.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Columns of the terminal; `None` is no terminal.
    pub width: Option<usize>,
    /// With titles above the columns.
    pub header: bool,
    /// With the arguments of processes.
    pub args: bool,
}

const TITLES: [&str; COLUMNS] = [
    "PROTO", "STATE", "LOCAL", "PEER", "NETNS", "PID", "UNIT", "",
];
const COLUMNS: usize = 8;
/// What is there only where a socket is in another namespace.
const NETNS: usize = 4;
/// What is there only where a socket has one.
const PEER: usize = 3;
const UNIT: usize = 6;
/// Between two columns.
const GAP: usize = 2;
const LAST: &str = "COMMAND";
/// What the last column gets at least, where the others are wide.
const MIN_COMMAND: usize = 8;

type Cells = [String; COLUMNS];

/// The lines.
#[must_use]
pub fn lines(listings: &[Listing], look: Look) -> Vec<u8> {
    let rows: Vec<(Cells, Option<&Occupant>)> = listings.iter().flat_map(rows).collect();
    let shown: Vec<usize> = (0..COLUMNS - 1)
        .filter(|&column| {
            let optional = [NETNS, PEER, UNIT].contains(&column);
            !optional || rows.iter().any(|(cells, _)| !cells[column].is_empty())
        })
        .collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|(cells, _)| cells[column].chars().count());
        let title = if look.header { TITLES[column].len() } else { 0 };
        cells.chain([title]).max().unwrap_or_default()
    };
    let widths: Vec<(usize, usize)> = shown.iter().map(|&one| (one, width(one))).collect();
    let before: usize = widths.iter().map(|(_, width)| width + GAP).sum();
    let room = look.width.map_or(usize::MAX, |width| {
        width.saturating_sub(before).max(MIN_COMMAND)
    });
    let mut out = Vec::new();
    if look.header {
        for &(column, width) in &widths {
            pad(&mut out, TITLES[column], width);
        }
        out.extend_from_slice(LAST.as_bytes());
        out.push(b'\n');
    }
    for (cells, occupant) in &rows {
        for &(column, width) in &widths {
            pad(&mut out, &cells[column], width);
        }
        match occupant {
            Some(Occupant { task, process }) => {
                let mut cut = Escape::new(&mut out, room);
                command(&mut cut, task, process, None, look.args);
            }
            None => out.push(b'-'),
        }
        out.push(b'\n');
    }
    out
}

fn pad(out: &mut Vec<u8>, text: &str, width: usize) {
    out.extend_from_slice(text.as_bytes());
    let missing = width.saturating_sub(text.chars().count()) + GAP;
    out.resize(out.len() + missing, b' ');
}

fn rows(listing: &Listing) -> impl Iterator<Item = (Cells, Option<&Occupant>)> {
    let Listing {
        socket,
        owner,
        elsewhere,
    } = listing;
    let endpoint = |end| {
        let mut text = Vec::new();
        digits::endpoint(&mut text, end);
        String::from_utf8_lossy(&text).into_owned()
    };
    let netns = socket.socket.netns.filter(|_| *elsewhere);
    let first: Cells = [
        transport(socket.transport, socket.socket.options.mptcp).to_owned(),
        state(socket.transport, socket.state).to_owned(),
        endpoint(&socket.local),
        socket.peer.as_ref().map(endpoint).unwrap_or_default(),
        netns.map(|netns| netns.to_string()).unwrap_or_default(),
        String::new(),
        escaped(owner.systemd_unit.as_deref().unwrap_or_default()),
        String::new(),
    ];
    let count = owner.processes.len().max(1);
    (0..count).map(move |at| {
        let occupant = owner.processes.get(at);
        let mut cells = if at == 0 {
            first.clone()
        } else {
            Cells::default()
        };
        cells[5] = occupant.map_or_else(|| "-".to_owned(), |one| one.task.pid.to_string());
        (cells, occupant)
    })
}

const fn transport(transport: Transport, mptcp: Option<bool>) -> &'static str {
    match (transport, mptcp) {
        (Transport::Tcp, Some(true)) => "mptcp",
        (transport, _) => transport.as_str(),
    }
}

/// UDP has no states; the kernel keeps those of TCP for it, established where it is connected.
const fn state(transport: Transport, state: TcpState) -> &'static str {
    match (transport, state) {
        (Transport::Tcp, TcpState::Closed | TcpState::BoundInactive)
        | (Transport::Udp | Transport::UdpLite, TcpState::Closed) => "bound",
        (Transport::Udp | Transport::UdpLite, TcpState::Established) => "connected",
        (_, state) => state.as_str(),
    }
}

fn escaped(text: &str) -> String {
    let mut out = Vec::new();
    Escape::new(&mut out, usize::MAX).push(text);
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]

    use super::*;

    fn shown(look: Look) -> String {
        String::from_utf8(lines(&crate::sample::listings(), look)).unwrap()
    }

    #[test]
    fn in_columns() {
        let look = Look {
            width: None,
            header: true,
            args: true,
        };
        insta::assert_snapshot!(shown(look));
    }

    #[test]
    fn lines_fit_the_terminal_where_they_can() {
        let look = Look {
            width: Some(104),
            header: true,
            args: true,
        };
        let text = shown(look);
        assert!(
            text.lines().all(|line| line.chars().count() <= 104),
            "{text}"
        );
        let bare = shown(Look {
            header: false,
            args: false,
            ..look
        });
        assert!(!bare.contains("PROTO"));
        assert!(bare.chars().all(|one| one == '\n' || !one.is_control()));
    }
}
