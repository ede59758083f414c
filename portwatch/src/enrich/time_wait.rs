//! How long a connection stays in TIME_WAIT still, asked of sock_diag(7): its timer is what it has left.

use std::{io, net::IpAddr, time::Duration};

use super::sock_diag;
use crate::event::{Endpoint, Family, Holder, TcpState};

/// The ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    family: Family,
    local: (IpAddr, u16),
    peer: (IpAddr, u16),
    device: u32,
}

impl Ends {
    /// Those of a socket; `None` where they are not known.
    #[must_use]
    pub fn of(holder: &Holder) -> Option<Self> {
        let end = |end: Endpoint| end.address.zip(end.port);
        Some(Self {
            family: holder.family,
            local: end(holder.local)?,
            peer: end(holder.peer?)?,
            device: holder.socket.device.unwrap_or_default(),
        })
    }
}

/// The time until each of the connections is forgotten, in the network namespace of the calling thread;
/// `None` of those that are forgotten already.
///
/// # Errors
/// When sock_diag is not there or does not answer.
pub fn remaining(waiting: &[Option<Ends>]) -> io::Result<Vec<Option<Duration>>> {
    let ask = |ends: &Option<Ends>| {
        let Some(Ends {
            family,
            local,
            peer,
            device,
        }) = *ends
        else {
            return Ok(None);
        };
        let found = sock_diag::connection(family, [local, peer], device)?;
        // Another connection may have taken its place.
        let waits = found.filter(|found| found.state == TcpState::TimeWait);
        Ok(waits.map(|found| found.expires))
    };
    waiting.iter().map(ask).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::{
        io::Read,
        net::{SocketAddr, TcpListener, TcpStream},
    };

    use super::*;
    use crate::{event::Kind, sample};

    /// A connection of this machine whose near end is in TIME_WAIT.
    fn waiting(address: &str) -> Holder {
        let listener = TcpListener::bind(address).unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        let end = |address: SocketAddr| Endpoint {
            address: Some(address.ip()),
            port: Some(address.port()),
        };
        let (local, peer) = (near.local_addr().unwrap(), near.peer_addr().unwrap());
        drop(near);
        assert_eq!(far.read(&mut [0]).unwrap(), 0);
        drop(far);
        let culprit = sample::conflict::held(Kind::TimeWait, "127.0.0.1:8080").culprit;
        Holder {
            family: match local {
                SocketAddr::V4(_) => Family::Ipv4,
                SocketAddr::V6(_) => Family::Ipv6,
            },
            local: end(local),
            peer: Some(end(peer)),
            ..culprit.holder
        }
    }

    #[test]
    fn a_connection_that_has_just_ended_stays_for_a_minute() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let holder = waiting(address);
            let left = match remaining(&[Ends::of(&holder)]) {
                Ok(left) => left[0].unwrap(),
                Err(error) => {
                    println!("skip: no sock_diag ({error})");
                    return;
                }
            };
            assert!((50..=61).contains(&left.as_secs()), "{left:?}");
            let mut other = holder;
            other.local.port = Some(1);
            assert_eq!(remaining(&[Ends::of(&other), None]).unwrap(), [None, None]);
        }
    }
}
