//! How long a connection stays in TIME_WAIT still, asked of sock_diag(7): its timer is what it has left.

use std::{io, net::IpAddr, time::Duration};

use netlink_packet_sock_diag::{
    constants::{AF_INET, AF_INET6, IPPROTO_TCP},
    inet::{ExtensionFlags, InetRequest, SocketId, StateFlags},
};

use super::sock_diag;
use crate::event::{Family, Holder, TcpState};

/// INET_DIAG_NOCOOKIE (include/uapi/linux/inet_diag.h)
const ANY_COOKIE: [u8; 8] = [u8::MAX; 8];

/// The time until the connection is forgotten, in the network namespace of the calling thread; `None`
/// where it is not known or the connection is forgotten already.
///
/// # Errors
/// When sock_diag is not there or does not answer.
pub fn remaining(holder: &Holder) -> io::Result<Option<Duration>> {
    let Some(request) = request(holder) else {
        return Ok(None);
    };
    let mut found = None;
    let waits = TcpState::TimeWait as u8;
    let asked = sock_diag::ask(request, 0, |answer| {
        // Another connection may have taken its place.
        found = (answer.socket.header.state == waits).then_some(answer.expires);
    });
    match asked {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        asked => asked.map(|()| found),
    }
}

/// The question for exactly this socket.
fn request(holder: &Holder) -> Option<InetRequest> {
    let peer = holder.peer?;
    let address = |address: Option<IpAddr>| match (holder.family, address?) {
        (Family::Ipv6, IpAddr::V4(address)) => Some(address.to_ipv6_mapped().into()),
        (_, address) => Some(address),
    };
    let family = match holder.family {
        Family::Ipv4 => AF_INET,
        Family::Ipv6 => AF_INET6,
    };
    Some(InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::all(),
        socket_id: SocketId {
            source_port: holder.local.port?,
            destination_port: peer.port?,
            source_address: address(holder.local.address)?,
            destination_address: address(peer.address)?,
            interface_id: holder.socket.device.unwrap_or_default(),
            cookie: ANY_COOKIE,
        },
    })
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
        event::{Endpoint, Kind},
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
