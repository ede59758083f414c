//! What a person takes for one thing: a socket, or the sockets of a group that share an address and port
//! by SO_REUSEPORT. Pure.

use std::{collections::HashMap, net::IpAddr};

use crate::event::{Family, Listing, Occupant, TcpState, Transport};

/// A socket, or a group of sockets that are alike.
#[derive(Clone, Debug)]
pub(super) struct Entry<'a> {
    /// The first of them.
    pub(super) listing: &'a Listing,
    /// So many.
    pub(super) count: usize,
    /// Who has any of them, each process once: in order of pid, as in a socket.
    pub(super) occupants: Vec<&'a Occupant>,
    /// Of one of them, the owner could not be seen.
    pub(super) unseen: bool,
}

/// What is the same of all sockets of a group: by this the kernel lets them share (net/core/sock_reuseport.c
/// and the rules of bind). With an option that is not known, nothing is said to be a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Group {
    transport: Transport,
    mptcp: Option<bool>,
    family: Family,
    state: TcpState,
    address: IpAddr,
    port: u16,
    netns: u32,
    uid: u32,
    device: Option<u32>,
    v6only: Option<bool>,
}

impl Group {
    fn of(listing: &Listing) -> Option<Self> {
        let holder = &listing.socket;
        let socket = &holder.socket;
        let waits = matches!(
            holder.state,
            TcpState::Listen | TcpState::Closed | TcpState::BoundInactive
        );
        if !waits || socket.options.reuseport != Some(true) {
            return None;
        }
        Some(Self {
            transport: holder.transport,
            mptcp: socket.options.mptcp,
            family: holder.family,
            state: holder.state,
            address: holder.local.address?,
            port: holder.local.port?,
            netns: socket.netns?,
            uid: socket.uid?,
            device: socket.device,
            v6only: socket.options.v6only,
        })
    }
}

/// The entries, each where its first socket stands.
pub(super) fn entries(listings: &[Listing]) -> Vec<Entry<'_>> {
    let mut entries: Vec<Entry<'_>> = Vec::with_capacity(listings.len());
    let mut groups: HashMap<Group, usize> = HashMap::new();
    for listing in listings {
        let group = Group::of(listing);
        let place = group.and_then(|group| groups.get(&group).copied());
        if let Some(entry) = place.and_then(|place| entries.get_mut(place)) {
            entry.count += 1;
            entry.unseen |= listing.is_hidden();
            entry.occupants.extend(&listing.owner.processes);
            continue;
        }
        if let Some(group) = group {
            groups.insert(group, entries.len());
        }
        entries.push(Entry {
            listing,
            count: 1,
            occupants: listing.owner.processes.iter().collect(),
            unseen: listing.is_hidden(),
        });
    }
    for entry in entries.iter_mut().filter(|entry| entry.count > 1) {
        // As the processes of a socket stand: pid 1, which has it for others, last.
        entry
            .occupants
            .sort_by_key(|one| (one.task.pid == 1, one.task.pid));
        entry.occupants.dedup_by_key(|one| one.task.pid);
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    fn sharing(pid: u32) -> Listing {
        let mut listing = sample::listings().swap_remove(0);
        listing.socket.socket.options.reuseport = Some(true);
        listing.owner.processes.truncate(1);
        for occupant in &mut listing.owner.processes {
            occupant.task.pid = pid;
        }
        listing
    }

    fn shape(listings: &[Listing]) -> Vec<(usize, Vec<u32>)> {
        let pids = |entry: &Entry<'_>| entry.occupants.iter().map(|one| one.task.pid).collect();
        let entries = entries(listings);
        entries.iter().map(|one| (one.count, pids(one))).collect()
    }

    #[test]
    fn sockets_that_share_by_reuseport_are_one_entry() {
        let other = sample::listings().swap_remove(1);
        let mut two = sharing(12);
        two.owner.processes.extend(sharing(11).owner.processes);
        let listings = [sharing(1), sharing(13), other, two, sharing(12)];
        assert_eq!(
            shape(&listings),
            [(4, vec![11, 12, 13, 1]), (1, vec![4_194_304])]
        );
    }

    #[test]
    fn what_differs_or_is_not_known_is_no_group() {
        let change = |change: fn(&mut Listing)| {
            let mut other = sharing(2);
            change(&mut other);
            other
        };
        for other in [
            change(|other| other.socket.socket.options.reuseport = None),
            change(|other| other.socket.socket.options.reuseport = Some(false)),
            change(|other| other.socket.socket.uid = Some(33)),
            change(|other| other.socket.socket.uid = None),
            change(|other| other.socket.socket.netns = Some(1)),
            change(|other| other.socket.local.port = Some(81)),
            change(|other| other.socket.transport = Transport::Udp),
            change(|other| other.socket.socket.device = Some(2)),
            change(|other| other.socket.state = TcpState::Established),
        ] {
            let shape = shape(&[sharing(1), other.clone()]);
            assert_eq!(shape, [(1, vec![1]), (1, vec![2])], "{other:?}");
        }
        assert_eq!(shape(&[sharing(1), sharing(2)]), [(2, vec![2, 1])]);
    }

    #[test]
    fn an_owner_that_is_hidden_is_not_forgotten_in_a_group() {
        let mut hidden = sharing(2);
        hidden.owner.processes.clear();
        hidden.owner.incomplete = true;
        let listings = [sharing(3), hidden];
        let entries = entries(&listings);
        assert_eq!((entries.len(), entries[0].unseen), (1, true));
    }
}
