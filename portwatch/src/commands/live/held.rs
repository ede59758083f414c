//! For how long a port was held: from the moment at which its first socket got it. The programs see the first
//! one that gets it while they watch; where it had others before, that moment is not known.

use std::{collections::HashSet, num::NonZeroUsize};

use lru::LruCache;

use crate::{
    event::{Event, Op, Transport},
    selection::Selection,
    sockets::{
        look::{self, Seen},
        scope::{Netns, Scope},
    },
};

use super::Notes;

/// Ports that are remembered as seen free: as many as the programs note (`state/held.rs`).
const FREED: NonZeroUsize = NonZeroUsize::MIN.saturating_add((1 << 16) - 1);

/// A port of a network namespace.
type Place = (u32, Transport, u16);

/// What was held when the trace began.
pub(super) struct Before {
    held: HashSet<Place>,
    /// Not everything could be looked at: then only of ports that were seen free since it is known.
    freed: Option<LruCache<Place, ()>>,
}

impl Before {
    /// Looks now, when the programs are attached: what gets a port in between counts as held before. Only
    /// where releases are asked for.
    pub(super) fn look(selection: &Selection, say: &Notes) -> Option<Self> {
        let asked = selection.events.contains(&Op::Release);
        let late = |why: &str| say.note(&format!("looking for ports that are held: {why}"));
        asked.then(|| Self::of(&look::look(&scope(selection), late)))
    }

    fn of(seen: &Seen) -> Self {
        let &Seen {
            ref rows,
            left_out,
            missed: _, // whose they are does not matter
            outside: _,
            closed,
            hidden,
            ref absent,
            images: _,
            without_iterator: _,
            may_hide,
            ref diag,
        } = seen;
        let is_open = closed == 0 && !hidden && absent.is_empty();
        let is_whole = is_open && left_out == 0 && !may_hide && diag.is_ok();
        let held = rows.iter().filter_map(|row| {
            let socket = &row.socket;
            Some((socket.socket.netns?, socket.transport, socket.local.port?))
        });
        Self {
            held: held.collect(),
            freed: (!is_whole).then(|| LruCache::new(FREED)),
        }
    }

    /// Takes from a release what cannot be known. Whatever comes after it is the programs' own.
    pub(super) fn judge(&mut self, event: &mut Event) {
        if event.op != Op::Release {
            return;
        }
        let (Some(netns), Some(port)) = (event.socket.netns, event.local.port) else {
            return;
        };
        let place = (netns, event.transport, port);
        let was_held = self.held.remove(&place);
        let is_unsure = self
            .freed
            .as_mut()
            .is_some_and(|freed| freed.put(place, ()).is_none());
        if was_held || is_unsure {
            event.held = None;
        }
    }
}

/// What of the machine has to be looked at.
fn scope(selection: &Selection) -> Scope {
    let netns = selection.netns.iter();
    let port = match selection.ports.as_slice() {
        [range] if range.start() == range.end() => Some(*range.start()),
        _ => None,
    };
    Scope {
        port,
        transports: selection.transports.clone(),
        netns: netns.map(|&inode| Netns { inode, path: None }).collect(),
        ..Scope::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::Kind,
        sample::{self, sighting},
        sockets::table::Row,
    };

    fn release(port: u16) -> Event {
        let mut event = *sighting(Op::Release, &format!("127.0.0.1:{port}")).event;
        event.transport = Transport::Tcp;
        event.socket.netns = Some(7);
        event.held = Some(1_000);
        event
    }

    fn seen(may_hide: bool) -> Seen {
        let mut socket = sample::held(Kind::Listener, "0.0.0.0:8080").culprit.holder;
        socket.socket.netns = Some(7);
        Seen {
            rows: vec![Row {
                socket,
                seen: Vec::new(),
                ends: None,
            }],
            left_out: 0,
            missed: Default::default(),
            outside: false,
            closed: 0,
            hidden: false,
            absent: Vec::new(),
            images: Default::default(),
            without_iterator: None,
            may_hide,
            diag: Ok(()),
        }
    }

    fn told(before: &mut Before, mut event: Event) -> bool {
        before.judge(&mut event);
        event.held.is_some()
    }

    #[test]
    fn of_a_port_that_was_held_before_it_is_known_from_the_next_time_on() {
        let mut before = Before::of(&seen(false));
        assert!(told(&mut before, release(8081)));
        let mut elsewhere = release(8080);
        elsewhere.socket.netns = Some(8);
        assert!(told(&mut before, elsewhere));
        let mut udp = release(8080);
        udp.transport = Transport::Udp;
        assert!(told(&mut before, udp));
        assert!(!told(&mut before, release(8080)));
        assert!(told(&mut before, release(8080)));
    }

    #[test]
    fn what_could_not_be_looked_at_may_have_been_held_before() {
        let mut before = Before::of(&seen(true));
        assert!(!told(&mut before, release(8081)));
        assert!(told(&mut before, release(8081)));
        assert!(!told(&mut before, release(8080)));
    }

    #[test]
    fn nothing_is_looked_at_where_releases_are_not_asked_for() {
        let selection = Selection {
            events: vec![Op::Bind],
            ..Selection::default()
        };
        let say = Notes {
            quiet: true,
            verbosity: 0,
        };
        assert!(Before::look(&selection, &say).is_none());
    }
}
