//! Sockets of a port that the kernel's programs did not hand over, asked of sock_diag(7).
//!
//! Where the walk over the owners of a port was cut short, the listener is what it missed: connections join
//! the list in front of it, and where the verifier allows few rounds they are all that is seen. And where there
//! are more owners than a conflict shows, those that it shows may all be innocent.

use std::{
    io,
    time::{Duration, Instant},
};

use netlink_packet_sock_diag::inet::StateFlags;
use portwatch_ebpf::abi::record::MAX_HOLDERS;

use super::sock_diag::{self, Query};
use crate::{
    conflict::{
        rules::{self, Claim},
        verdict::claim_of_holder,
    },
    event::{Conflict, Holder, TcpState, Transport},
};

/// Longest listing of all that is on a port.
const PATIENCE: Duration = Duration::from_millis(100);

/// Sockets whose options are asked for, each through a copy of its descriptor.
pub const SUSPECTS: usize = 64;

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

/// The sockets on a port that meet `own`, in the network namespace of the calling thread, those that no
/// connection is in front: up to [`SUSPECTS`].
///
/// # Errors
/// When sock_diag is not there or does not answer.
pub fn meeting(own: &Claim, port: u16) -> io::Result<Vec<Holder>> {
    let query = Query {
        transport: own.transport,
        states: sock_diag::every_state(),
        ports: port..=port,
        peer_port: None,
    };
    let mut found: Vec<Holder> = Vec::new();
    let is_last = |holder: &Holder| {
        !matches!(
            holder.state,
            TcpState::Listen | TcpState::Closed | TcpState::BoundInactive
        )
    };
    sock_diag::list(&query, Instant::now().checked_add(PATIENCE), |listed| {
        let holder = listed.holder(own.transport);
        let meets = |(held, _)| rules::meet(own, &held);
        if holder.local.port == Some(port) && claim_of_holder(&holder).is_some_and(meets) {
            if found.len() >= SUSPECTS {
                if is_last(&holder) {
                    return;
                }
                found.pop();
            }
            let place = found.partition_point(|other| is_last(other) <= is_last(&holder));
            found.insert(place, holder);
        }
    })?;
    Ok(found)
}

/// Whether a socket may be in the way, by what is known of it.
#[must_use]
pub fn is_suspect(own: &Claim, holder: &Holder) -> bool {
    claim_of_holder(holder)
        .is_some_and(|(held, is_known)| !is_known || rules::clash(own, &held).is_some())
}

/// Puts suspects in front of those that are innocent.
pub fn suspect(conflict: &mut Conflict, mut suspects: Vec<Holder>) {
    let known: Vec<_> = suspects.iter().map(|holder| holder.socket.inode).collect();
    let innocent = std::mem::take(&mut conflict.holders).into_iter();
    suspects.extend(
        innocent.filter(|it| it.socket.inode.is_none() || !known.contains(&it.socket.inode)),
    );
    suspects.truncate(MAX_HOLDERS);
    conflict.holders = suspects;
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
    fn what_meets_an_address_is_found_behind_connections() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut open = Vec::new();
        for _ in 0..SUSPECTS + 6 {
            open.push(TcpStream::connect(address).unwrap());
            open.push(listener.accept().unwrap().0);
        }
        let own = |address: &str| Claim {
            transport: Transport::Tcp,
            address: address.parse().unwrap(),
            v6only: true,
            device: None,
            reuseaddr: false,
            reuseport: false,
            uid: 0,
            state: TcpState::Closed,
        };
        let found = match meeting(&own("0.0.0.0"), address.port()) {
            Ok(found) => found,
            Err(error) => {
                println!("skip: no sock_diag ({error})");
                return;
            }
        };
        assert_eq!(found.len(), SUSPECTS);
        assert_eq!(found[0].state, TcpState::Listen);
        assert!(
            found[1..]
                .iter()
                .all(|it| it.state == TcpState::Established)
        );
        assert!(is_suspect(&own("0.0.0.0"), &found[0]));
        assert_eq!(meeting(&own("::"), address.port()).unwrap(), []);
        assert_eq!(meeting(&own("127.0.0.2"), address.port()).unwrap(), []);
        let mut conflict = Conflict {
            holders: vec![client(80); MAX_HOLDERS],
            total: 100,
            ..Conflict::default()
        };
        suspect(&mut conflict, found[..2].to_vec());
        assert_eq!(conflict.holders.len(), MAX_HOLDERS);
        assert_eq!(conflict.holders[..2], found[..2]);
        assert_eq!(conflict.total, 100);
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
