//! How long a connection stays in TIME_WAIT still, asked of sock_diag(7): its timer is what it has left.

use std::{io, time::Duration};

use super::sock_diag;
use crate::event::{Holder, TcpState};

/// The time until the connection is forgotten, in the network namespace of the calling thread; `None`
/// where it is not known or the connection is forgotten already.
///
/// # Errors
/// When sock_diag is not there or does not answer.
pub fn remaining(holder: &Holder) -> io::Result<Option<Duration>> {
    let local = holder.local.address.zip(holder.local.port);
    let peer = holder.peer.and_then(|peer| peer.address.zip(peer.port));
    let Some((local, peer)) = local.zip(peer) else {
        return Ok(None);
    };
    let device = holder.socket.device.unwrap_or_default();
    let found = sock_diag::connection(holder.family, [local, peer], device)?;
    // Another connection may have taken its place.
    let waits = found.filter(|found| found.state == TcpState::TimeWait);
    Ok(waits.map(|found| found.expires))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::{
        io::Read,
        net::{SocketAddr, TcpListener, TcpStream},
    };

    use super::*;
    use crate::{
        event::{Endpoint, Family, Kind},
        sample,
    };

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
            let left = match remaining(&holder) {
                Ok(left) => left.unwrap(),
                Err(error) => {
                    println!("skip: no sock_diag ({error})");
                    return;
                }
            };
            assert!((50..=61).contains(&left.as_secs()), "{left:?}");
            let mut other = holder;
            other.local.port = Some(1);
            assert_eq!(remaining(&other).unwrap(), None);
        }
    }
}
