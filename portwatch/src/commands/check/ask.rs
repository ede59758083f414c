//! The question, asked of this machine as it is, in the network namespace of the calling thread.

use std::io;

use super::automatic;
use crate::{
    conflict::{
        admission::{Ground, admission},
        forecast::{Forecast, Peculiar, forecast, rivals},
        rules::Claim,
    },
    enrich::{local, netns::Limits},
    event::{Doubt, Errno, Holder, Outlook},
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
    pub(super) fn early(outlook: Outlook) -> Self {
        Self {
            outlook,
            survey: None,
            involved: Vec::new(),
            rivals: Vec::new(),
        }
    }
}

pub(super) const IN_USE: Outlook = Outlook::Refused(Errno(libc::EADDRINUSE.unsigned_abs()));

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
        return automatic::any(claim, &limits);
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
pub(super) fn peculiar() -> Peculiar {
    let version = Release::read().and_then(|release| release.version);
    Peculiar {
        overlooks_mapped: version == Some((6, 1)),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::net::{TcpListener, UdpSocket};

    use super::*;
    use crate::event::{TcpState, Transport};

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
}
