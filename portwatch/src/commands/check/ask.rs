//! The question, asked of this machine as it is, in the network namespace of the calling thread.

use std::{collections::BTreeMap, io, ops::RangeInclusive};

use crate::{
    conflict::{
        admission::{Ground, admission},
        forecast::{Forecast, Peculiar, forecast, rivals},
        rules::Claim,
    },
    enrich::{local, netns::Limits},
    event::{Doubt, Errno, Holder, Outlook, Transport},
    host::kernel::Release,
    sockets::port::{Survey, survey},
};

/// A bind() that nobody has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// What the socket would claim.
    pub claim: Claim,
    /// Name of the device in the claim.
    pub device: Option<String>,
    /// Port; 0 for any that is free.
    pub port: u16,
    /// Whether the asker has CAP_NET_BIND_SERVICE in the network namespace; `None` is not known.
    pub may_bind_low: Option<bool>,
}

/// What would come of it.
#[derive(Debug)]
pub struct Answer {
    /// The answer.
    pub outlook: Outlook,
    /// The sockets that were looked at; none where it did not come to that.
    pub survey: Option<Survey>,
    /// Places among them of those that are, or may be, in the way.
    pub involved: Vec<usize>,
    /// Places of those that have the port too and do not listen yet.
    pub rivals: Vec<usize>,
}

impl Answer {
    fn early(outlook: Outlook) -> Self {
        Self {
            outlook,
            survey: None,
            involved: Vec::new(),
            rivals: Vec::new(),
        }
    }
}

const IN_USE: Outlook = Outlook::Refused(Errno(libc::EADDRINUSE.unsigned_abs()));

/// Asks it.
///
/// # Errors
/// When the kernel does not show its sockets.
pub fn ask(question: &Question) -> io::Result<Answer> {
    let Question {
        claim,
        device,
        port,
        may_bind_low,
    } = question;
    let limits = Limits::read();
    let ground = Ground {
        unprivileged_start: limits.unprivileged_start,
        may_bind_low: *may_bind_low,
        is_usable: local::is_usable(claim.address, device.as_deref()),
    };
    match admission(claim, *port, &ground) {
        Outlook::Free => {}
        other => return Ok(Answer::early(other)),
    }
    if *port == 0 {
        return any(claim, &limits);
    }
    let seen = survey(claim.transport, &(*port..=*port))?;
    let holders: Vec<Holder> = seen.rows.iter().map(|row| row.socket.clone()).collect();
    let (outlook, involved) = match forecast(claim, &holders, peculiar()) {
        Forecast::Free if seen.may_hide => (Outlook::Unknown(Doubt::Unseen), Vec::new()),
        Forecast::Free => (Outlook::Free, Vec::new()),
        Forecast::Taken(places) => (IN_USE, places),
        Forecast::Doubt(doubt, places) => (Outlook::Unknown(doubt), places),
    };
    let rivals = match outlook {
        Outlook::Free => rivals(claim, &holders),
        _ => Vec::new(),
    };
    Ok(Answer {
        outlook,
        survey: Some(seen),
        involved,
        rivals,
    })
}

/// See [`Peculiar`]: of this kernel. Only ever a reason for doubt.
fn peculiar() -> Peculiar {
    let version = Release::read().and_then(|release| release.version);
    Peculiar {
        overlooks_mapped: version == Some((6, 1)),
    }
}

/// Whether any automatic port is left.
fn any(claim: &Claim, limits: &Limits) -> io::Result<Answer> {
    let Limits {
        range: Some(range),
        reserved: Some(reserved),
        ..
    } = limits
    else {
        return Err(io::Error::other(
            "the range of automatic ports cannot be read",
        ));
    };
    // Where the kernel chooses, it takes no port that TCP would have to share (net/ipv4/
    // inet_connection_sock.c, `inet_csk_find_open_port`: neither `relax` nor `reuseport_ok`).
    let claim = match claim.transport {
        Transport::Tcp => Claim {
            reuseaddr: false,
            reuseport: false,
            ..*claim
        },
        _ => *claim,
    };
    let seen = survey(claim.transport, range)?;
    let mut by_port: BTreeMap<u16, Vec<Holder>> = BTreeMap::new();
    for socket in seen.rows.iter().map(|row| &row.socket) {
        if let Some(port) = socket.local.port {
            by_port.entry(port).or_default().push(socket.clone());
        }
    }
    let kernel = peculiar();
    let mut doubt = None;
    for port in given_out(claim.transport, range) {
        if reserved.iter().any(|list| list.contains(&port)) {
            continue;
        }
        let holders = by_port.get(&port).map_or(&[][..], Vec::as_slice);
        match forecast(&claim, holders, kernel) {
            Forecast::Free if seen.may_hide => doubt = doubt.max(Some(Doubt::Unseen)),
            Forecast::Free => return Ok(Answer::early(Outlook::Free)),
            Forecast::Taken(_) => {}
            Forecast::Doubt(why, _) => doubt = doubt.max(Some(why)),
        }
    }
    Ok(Answer {
        outlook: doubt.map_or(IN_USE, Outlook::Unknown),
        survey: Some(seen),
        involved: Vec::new(),
        rivals: Vec::new(),
    })
}

/// The ports of the range that the kernel gives out to bind(). Of TCP an even number: it goes through them
/// by parity, and leaves out the last one of an odd number (`remaining &= ~1U`).
fn given_out(transport: Transport, range: &RangeInclusive<u16>) -> RangeInclusive<u16> {
    let (low, high) = (*range.start(), *range.end());
    let is_odd = high.saturating_sub(low) % 2 == 0;
    if transport == Transport::Tcp && is_odd && low < high {
        low..=high - 1
    } else {
        low..=high
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::net::{TcpListener, UdpSocket};

    use super::*;
    use crate::event::TcpState;

    fn question(transport: Transport, address: &str, port: u16) -> Question {
        Question {
            claim: Claim {
                transport,
                address: address.parse().unwrap(),
                v6only: false,
                device: None,
                reuseaddr: false,
                reuseport: false,
                uid: nix::unistd::geteuid().as_raw(),
                state: TcpState::Closed,
            },
            device: None,
            port,
            may_bind_low: Some(false),
        }
    }

    #[test]
    fn what_is_told_is_what_bind_does() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let refused = |answer: Answer| (answer.outlook, answer.involved.len());
        for (transport, address, expected) in [
            (Transport::Tcp, "127.0.0.1", (IN_USE, 1)),
            (Transport::Tcp, "0.0.0.0", (IN_USE, 1)),
            (Transport::Tcp, "::", (IN_USE, 1)),
            (Transport::Tcp, "127.0.0.2", (Outlook::Free, 0)),
            (Transport::Tcp, "::1", (Outlook::Free, 0)),
            (Transport::Udp, "127.0.0.1", (Outlook::Free, 0)),
            (
                Transport::Udp,
                "192.0.2.1",
                (
                    Outlook::Refused(Errno(libc::EADDRNOTAVAIL.unsigned_abs())),
                    0,
                ),
            ),
        ] {
            let answer = ask(&question(transport, address, port)).unwrap();
            assert_eq!(refused(answer), expected, "{transport:?} {address}");
        }
        let low = ask(&question(Transport::Udp, "127.0.0.1", 1)).unwrap();
        let limits = Limits::read().unprivileged_start.unwrap();
        if limits > 1 {
            let expected = Outlook::Refused(Errno(libc::EACCES.unsigned_abs()));
            assert_eq!(low.outlook, expected);
        }
        drop(UdpSocket::bind("127.0.0.1:0").unwrap());
    }

    #[test]
    fn any_port_is_mostly_free() {
        for transport in [Transport::Tcp, Transport::Udp] {
            let answer = ask(&question(transport, "127.0.0.1", 0)).unwrap();
            assert_eq!(answer.outlook, Outlook::Free, "{transport:?}");
        }
    }

    #[test]
    fn of_an_odd_range_tcp_gets_an_even_number() {
        let of = |transport, range| given_out(transport, &range);
        assert_eq!(of(Transport::Tcp, 40_000..=40_002), 40_000..=40_001);
        assert_eq!(of(Transport::Tcp, 40_000..=40_003), 40_000..=40_003);
        assert_eq!(of(Transport::Tcp, 40_000..=40_000), 40_000..=40_000);
        assert_eq!(of(Transport::Udp, 40_000..=40_002), 40_000..=40_002);
    }
}
