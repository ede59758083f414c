//! When a port forgets its past, since Linux 6.18 ("tcp: Update bind bucket state on port release").

use std::{collections::BTreeMap, net::IpAddr};

/// `fastreuse` and `fastreuseport` of each `struct inet_bind2_bucket`, the sockets of one address:
/// whether they are anything but -1, which means that all of them got the port from connect().
///
/// An accepted connection that joins such sockets does not change that: the kernel asks who is there
/// only when a socket leaves.
#[derive(Debug, Default)]
pub(super) struct Past {
    bound: BTreeMap<IpAddr, bool>,
}

impl Past {
    /// A socket with that address has taken the port, or listens on it.
    pub(super) fn took(&mut self, address: IpAddr) {
        self.bound.insert(address.to_canonical(), true);
    }

    /// A socket is here without having asked for it: by connect(), or as somebody's connection.
    pub(super) fn joined(&mut self, address: IpAddr, by_connect: bool) {
        self.bound
            .entry(address.to_canonical())
            .or_insert(!by_connect);
    }

    /// A socket is gone. Of those that stay: their addresses, and whether they got the port from
    /// connect().
    pub(super) fn left(
        &mut self,
        address: IpAddr,
        owners: impl Iterator<Item = (IpAddr, bool)> + Clone,
    ) {
        let address = address.to_canonical();
        let mut here = owners.filter(|(other, _)| other.to_canonical() == address);
        if here.clone().next().is_none() {
            self.bound.remove(&address);
        } else if here.all(|(_, by_connect)| by_connect) {
            self.bound.insert(address, false);
        }
    }

    /// Whether the port forgets it now (`inet_bind_bucket_destroy`).
    pub(super) fn is_over(&self) -> bool {
        !self.bound.values().any(|bound| *bound)
    }
}
