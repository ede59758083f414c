//! The columns, and what stands in them.

use std::{borrow::Cow, net::IpAddr};

use super::{NOTHING, UNSEEN};
use crate::{
    event::{Endpoint, Holder, Listing, Occupant, SocketOptions, TcpState, Time, Transport},
    sink::{digits, escape::Escape},
};

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Transport protocol
    Transport,
    /// State
    State,
    /// Sockets of a group
    Count,
    /// Local end
    Local,
    /// Name of the local port
    Service,
    /// The other end
    Peer,
    /// Time left of TIME_WAIT
    Left,
    /// Network namespace, if another
    Netns,
    /// What kind of port it is
    Class,
    /// Options of the socket
    Options,
    /// Process
    Pid,
    /// How long that has been running
    Up,
    /// Its container
    Container,
    /// Its systemd unit
    Unit,
    /// What it runs; takes the rest of the line
    Command,
}

/// What a narrow terminal does without, first to last.
pub(super) const DISPENSABLE: [Column; 7] = [
    Column::Class,
    Column::Options,
    Column::Up,
    Column::Service,
    Column::Container,
    Column::Unit,
    Column::Netns,
];

/// Units and interfaces are cut to this on their way into a cell, columns.
const CELL: usize = 40;

/// What a line tells of.
pub(super) struct Line<'a> {
    pub(super) listing: &'a Listing,
    /// Sockets of the group.
    pub(super) count: usize,
    pub(super) occupant: Option<&'a Occupant>,
    /// Of the socket.
    pub(super) is_first: bool,
    /// An owner could not be seen.
    pub(super) unseen: bool,
    pub(super) now: Time,
}

impl Column {
    /// What stands above it.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Transport => "PROTO",
            Self::State => "STATE",
            Self::Count => "N",
            Self::Local => "LOCAL",
            Self::Service => "SERVICE",
            Self::Peer => "PEER",
            Self::Left => "LEFT",
            Self::Netns => "NETNS",
            Self::Class => "CLASS",
            Self::Options => "OPTIONS",
            Self::Pid => "PID",
            Self::Up => "UP",
            Self::Container => "CONTAINER",
            Self::Unit => "UNIT",
            Self::Command => "COMMAND",
        }
    }

    /// Whether it tells of a process, not of the socket.
    pub(super) const fn is_of_process(self) -> bool {
        matches!(
            self,
            Self::Pid | Self::Up | Self::Container | Self::Unit | Self::Command
        )
    }

    /// What stands in it; nothing where there is nothing to say.
    pub(super) fn cell<'a>(self, line: &Line<'a>) -> Cow<'a, str> {
        let Listing {
            socket,
            owner,
            elsewhere,
        } = line.listing;
        let process = line.occupant.map(|occupant| &occupant.process);
        match self {
            Self::Transport => transport(socket.transport, socket.socket.options.mptcp).into(),
            Self::State => state(socket.transport, socket.state).into(),
            Self::Count if line.count > 1 => line.count.to_string().into(),
            Self::Count | Self::Command => "".into(),
            Self::Local => endpoint(&socket.local, owner.interface.as_deref()).into(),
            Self::Service => escaped(owner.local.service.as_deref()),
            Self::Peer => socket
                .peer
                .map(|peer| endpoint(&peer, None))
                .unwrap_or_default()
                .into(),
            Self::Left => owner
                .expires
                .map(|end| seconds_left(line.now, end))
                .unwrap_or_default()
                .into(),
            Self::Netns => socket
                .socket
                .netns
                .filter(|_| *elsewhere)
                .map(|netns| netns.to_string())
                .unwrap_or_default()
                .into(),
            Self::Class => class(line.listing),
            Self::Options => options(socket),
            Self::Pid => match line.occupant {
                Some(occupant) => occupant.task.pid.to_string().into(),
                None if line.unseen => UNSEEN.into(),
                None => NOTHING.into(),
            },
            Self::Up => process
                .and_then(|process| process.creation)
                .map(|creation| span(creation.duration_until(line.now.utc)))
                .unwrap_or_default()
                .into(),
            Self::Container => process
                .and_then(|process| process.container.as_ref())
                // As the runtimes print it.
                .map(|container| container.id.chars().take(12).collect::<String>())
                .map_or_else(Cow::default, |id| escaped(Some(&id)).into_owned().into()),
            Self::Unit => {
                let own = process.and_then(|process| process.systemd_unit.as_deref());
                let first = owner.systemd_unit.as_deref().filter(|_| line.is_first);
                escaped(first.or(own))
            }
        }
    }
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

/// `127.0.0.1:80`, `[::1]:80`, `127.0.0.53%lo:53`
fn endpoint(end: &Endpoint, interface: Option<&str>) -> String {
    let mut text = Vec::new();
    digits::endpoint(&mut text, end);
    if let Some(interface) = interface {
        // Behind the address, inside its brackets.
        let mark = if matches!(end.address, Some(IpAddr::V6(_))) {
            b']'
        } else {
            b':'
        };
        let place = text.iter().rposition(|&byte| byte == mark);
        let name = format!("%{}", escaped(Some(interface)));
        let place = place.unwrap_or(text.len());
        text.splice(place..place, name.into_bytes());
    }
    // It is text: digits, and a name that was escaped.
    String::from_utf8(text).unwrap_or_default()
}

/// Rounded up: it is over when nothing is left.
fn seconds_left(now: Time, end: Time) -> String {
    let left = end.boot.saturating_sub(now.boot);
    format!("{}s", left.div_ceil(1_000_000_000))
}

fn class(listing: &Listing) -> Cow<'static, str> {
    let local = &listing.owner.local;
    match (local.class, local.ephemeral) {
        (Some(class), Some(true)) => format!("{},ephemeral", class.as_str()).into(),
        (Some(class), _) => class.as_str().into(),
        (None, Some(true)) => "ephemeral".into(),
        (None, _) => "".into(),
    }
}

/// Those that are set. That SO_REUSEADDR or SO_REUSEPORT could not be read is not the same as that they
/// are not set.
fn options(holder: &Holder) -> Cow<'static, str> {
    let SocketOptions {
        reuseaddr,
        reuseport,
        v6only,
        freebind,
        transparent,
        bind_no_port,
        mptcp: _, // the transport
    } = holder.socket.options;
    // On every other address the kernel sets it itself.
    let is_wildcard = holder.local.address.is_some_and(|own| own.is_unspecified());
    let is_unknown = !holder.remnant && (reuseaddr.is_none() || reuseport.is_none());
    let words: Vec<&str> = [
        ("reuseaddr", reuseaddr == Some(true)),
        ("reuseport", reuseport == Some(true)),
        ("v6only", v6only == Some(true) && is_wildcard),
        ("freebind", freebind == Some(true)),
        ("transparent", transparent == Some(true)),
        ("bind_no_port", bind_no_port == Some(true)),
        (UNSEEN, is_unknown),
    ]
    .into_iter()
    .filter_map(|(word, is_set)| is_set.then_some(word))
    .collect();
    match words.as_slice() {
        [word] => Cow::Borrowed(*word),
        words => words.join(",").into(),
    }
}

/// The largest unit of it: `40s`, `12m`, `5h`, `3d`. A clock that was set back makes nothing of it.
fn span(time: jiff::SignedDuration) -> String {
    let seconds = time.as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Harmless for a terminal, and not wider than a cell.
fn escaped(text: Option<&str>) -> Cow<'_, str> {
    let text = text.unwrap_or_default();
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_plain && text.len() <= CELL {
        return text.into();
    }
    let mut out = Vec::new();
    Escape::new(&mut out, CELL).push(text);
    String::from_utf8_lossy(&out).into_owned().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn an_interface_stands_behind_the_address() {
        for (end, interface, expected) in [
            ("127.0.0.53:53", Some("lo"), "127.0.0.53%lo:53"),
            ("[fe80::1]:546", Some("eth0"), "[fe80::1%eth0]:546"),
            ("[::]:80", None, "[::]:80"),
            ("0.0.0.0:80", Some("a\u{1b}b"), "0.0.0.0%a\\x1bb:80"),
        ] {
            assert_eq!(endpoint(&sample::endpoint(end), interface), expected);
        }
    }

    #[test]
    fn times_are_told_by_their_largest_unit() {
        for (seconds, expected) in [
            (-5, "0s"),
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (3_599, "59m"),
            (86_399, "23h"),
            (200_000, "2d"),
        ] {
            assert_eq!(span(jiff::SignedDuration::from_secs(seconds)), expected);
        }
        let end = Time {
            boot: sample::time().boot + 41_000_000_001,
            ..sample::time()
        };
        assert_eq!(seconds_left(sample::time(), end), "42s");
        assert_eq!(seconds_left(end, sample::time()), "0s");
    }

    #[test]
    fn options_that_are_not_known_are_not_told_to_be_off() {
        let mut holder = sample::listings().swap_remove(0).socket;
        let of = |holder: &mut Holder, change: fn(&mut SocketOptions)| {
            change(&mut holder.socket.options);
            options(holder).into_owned()
        };
        assert_eq!(of(&mut holder, |_| ()), "reuseaddr,?");
        assert_eq!(
            of(&mut holder, |one| one.reuseport = Some(true)),
            "reuseaddr,reuseport"
        );
        assert_eq!(
            of(&mut holder, |one| one.v6only = Some(true)),
            "reuseaddr,reuseport,v6only"
        );
        holder.local = sample::endpoint("[::1]:80");
        assert_eq!(of(&mut holder, |_| ()), "reuseaddr,reuseport");
        assert_eq!(of(&mut holder, |one| *one = SocketOptions::default()), "?");
        holder.socket.inode = None;
        assert_eq!(of(&mut holder, |_| ()), "?", "not accepted yet");
        holder.remnant = true;
        assert_eq!(of(&mut holder, |_| ()), "", "TIME_WAIT has no options");
    }

    #[test]
    fn cells_do_no_harm() {
        assert_eq!(escaped(Some("a b\n")), "a b\\n");
        assert_eq!(escaped(Some(&"x".repeat(60))).chars().count(), CELL);
        assert_eq!(escaped(None), "");
    }
}
