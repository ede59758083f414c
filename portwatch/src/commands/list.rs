//! `portwatch list`: what occupies ports, and who has it.

use super::listing::{self, Found, Layout};
use crate::{
    cli::list::ListOptions,
    event::Listing,
    failure::Failure,
    sink::text::listing::Column,
    sockets::scope::{Reach, Scope},
};

const COLUMNS: &[Column] = &[
    Column::Transport,
    Column::State,
    Column::Count,
    Column::Local,
    Column::Service,
    Column::Peer,
    Column::Left,
    Column::Netns,
    Column::Class,
    Column::Options,
    Column::Pid,
    Column::Up,
    Column::Container,
    Column::Unit,
    Column::Command,
];

/// Prints them; 0 when there is one, else 1.
///
/// # Errors
/// When the kernel tells nothing, or the output cannot be written.
pub fn run(options: &ListOptions) -> Result<u8, Failure> {
    let ListOptions {
        scope,
        header,
        output,
    } = options;
    let mut found = listing::find(scope, |_| true, output)?;
    let Found { listings, .. } = &mut found;
    // They are large and may be very many: what is moved while they are sorted is their keys.
    listings.sort_by_cached_key(order);
    let layout = Layout {
        columns: COLUMNS,
        header: *header,
    };
    found.print(layout, output)?;
    let is_found = !found.listings.is_empty();
    found.conclude(is_found, &nothing(scope), output)
}

/// By port, our own network namespace before others.
fn order(listing: &Listing) -> impl Ord + use<> {
    let Listing {
        socket, elsewhere, ..
    } = listing;
    (
        socket.local.port,
        socket.transport as u8,
        *elsewhere,
        socket.socket.netns,
        socket.local.address,
        socket.state as u8,
        socket.peer.map(|peer| (peer.address, peer.port)),
        socket.socket.inode,
    )
}

fn nothing(scope: &Scope) -> String {
    let what = match scope.reach {
        Reach::Listening => "nothing listens",
        Reach::Bound => "nothing listens or is bound",
        Reach::All => "no socket has a port",
    };
    let is_narrow =
        !(scope.transports.is_empty() && scope.families.is_empty() && scope.netns.is_empty());
    let where_ = if is_narrow {
        ", of what was asked for"
    } else {
        ""
    };
    format!("{what}{where_}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::Transport, sample};

    #[test]
    fn sorted_by_port_and_then_as_people_look_for_them() {
        let mut listings = sample::listings();
        listings.reverse();
        let port = |listing: &Listing, port| {
            let mut other = listing.clone();
            other.socket.local.port = Some(port);
            other
        };
        listings.push(port(&listings[0], 22));
        listings.push(port(&listings[0], 443));
        listings.sort_by_key(order);
        let ports: Vec<_> = listings.iter().map(|one| one.socket.local.port).collect();
        assert!(ports.is_sorted(), "{ports:?}");
        assert_eq!(ports.first(), Some(&Some(22)));
        let last = listings.last();
        assert!(last.is_some_and(|last| last.elsewhere), "{last:?}");
    }

    #[test]
    fn nothing_is_said_of_what_was_looked_for() {
        let scope = |reach, transports| Scope {
            reach,
            transports,
            ..Scope::default()
        };
        assert_eq!(
            nothing(&scope(Reach::Bound, vec![])),
            "nothing listens or is bound"
        );
        assert_eq!(
            nothing(&scope(Reach::Listening, vec![Transport::Udp])),
            "nothing listens, of what was asked for"
        );
    }
}
