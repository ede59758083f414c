//! The listeners of a port, asked of sock_diag(7): where the walk over the owners of a port was cut
//! short, the listener is what it missed. Connections join the list in front of it, and where the
//! verifier allows few rounds they are all that is seen.

use std::io;

use netlink_packet_sock_diag::inet::StateFlags;
use portwatch_ebpf::abi::record::MAX_HOLDERS;

use super::sock_diag::{self, Query};
use crate::event::{Conflict, Holder, TcpState, Transport};

/// The TCP sockets listening on a port in the network namespace of the calling thread, IPv4 first;
/// as many as a conflict shows.
///
/// # Errors
/// When sock_diag is not there or does not answer.
pub fn of_port(port: u16) -> io::Result<Vec<Holder>> {
    let query = Query {
        transport: Transport::Tcp,
        states: StateFlags::LISTEN,
        ports: port..=port,
        peer_port: None,
    };
    let mut found = Vec::new();
    sock_diag::list(&query, None, |listed| {
        // Kernels may show more than they were asked for.
        let is_one = listed.state == TcpState::Listen && listed.local.port == Some(port);
        if is_one && found.len() < MAX_HOLDERS {
            found.push(listed.holder(Transport::Tcp));
        }
    })?;
    Ok(found)
}

/// Puts listeners that the kernel's walk did not get to in front of those it did.
pub fn add(conflict: &mut Conflict, mut listeners: Vec<Holder>) {
    let count = u32::try_from(listeners.len()).unwrap_or(u32::MAX);
    conflict.total = conflict.total.saturating_add(count);
    listeners.append(&mut conflict.holders);
    listeners.truncate(MAX_HOLDERS);
    conflict.holders = listeners;
}

/// Whether the walk over the owners may have missed a listener.
#[must_use]
pub fn are_wanted(conflict: &Conflict) -> bool {
    let is_listener = |holder: &Holder| holder.state == TcpState::Listen;
    conflict.truncated
        && !conflict.holders.iter().any(is_listener)
        && conflict
            .holders
            .iter()
            .all(|holder| holder.transport == Transport::Tcp)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::{
        net::{TcpListener, TcpStream},
        os::{fd::AsRawFd, unix::fs::MetadataExt},
    };

    use super::*;
    use crate::event::{Endpoint, Family};

    fn client(port: u16) -> Holder {
        Holder::new(
            Transport::Tcp,
            Family::Ipv4,
            TcpState::Established,
            Endpoint {
                address: None,
                port: Some(port),
            },
        )
    }

    #[test]
    fn a_listener_is_found_among_its_connections() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let _client = TcpStream::connect(address).unwrap();
        let _accepted = listener.accept().unwrap();
        let found = match of_port(address.port()) {
            Ok(found) => found,
            Err(error) => {
                println!("skip: no sock_diag ({error})");
                return;
            }
        };
        let path = format!("/proc/self/fd/{}", listener.as_raw_fd());
        let inode = std::fs::metadata(path).unwrap().ino();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].local.address, Some(address.ip()));
        assert_eq!(found[0].local.port, Some(address.port()));
        assert_eq!(found[0].socket.inode, Some(inode));
    }

    #[test]
    fn a_walk_that_was_cut_short_of_the_listener_gets_it_in_front() {
        let mut conflict = Conflict {
            holders: vec![client(80); MAX_HOLDERS],
            total: 64,
            rest_apart: false,
            connect_only: false,
            last: None,
            truncated: true,
        };
        assert!(are_wanted(&conflict));
        let listener = Holder {
            state: TcpState::Listen,
            ..client(80)
        };
        add(&mut conflict, vec![listener]);
        assert_eq!(conflict.holders[0].state, TcpState::Listen);
        assert_eq!(conflict.holders.len(), MAX_HOLDERS);
        assert_eq!(conflict.total, 65);
        assert!(!are_wanted(&conflict), "one is there now");
    }

    #[test]
    fn a_complete_walk_asks_nobody() {
        let conflict = Conflict {
            holders: vec![client(80)],
            total: 1,
            rest_apart: false,
            connect_only: false,
            last: None,
            truncated: false,
        };
        assert!(!are_wanted(&conflict));
    }
}
