//! What of a stream is worth keeping. No I/O.

use std::{net::IpAddr, num::NonZeroUsize};

use clap::ValueEnum;
use lru::LruCache;

use crate::{
    event::{Item, Op, Sighting, Transport, Word, identity},
    filter::is_conflict,
};

/// `--keep`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Keep {
    /// Conflicts: failures for which something here stood in the way
    Conflicts,
    /// Failures of every kind
    #[default]
    Failures,
    /// Every event
    All,
}

impl Word for Keep {
    const WORDS: &'static [Self] = &[Self::Conflicts, Self::Failures, Self::All];

    fn word(self) -> &'static str {
        match self {
            Self::Conflicts => "conflicts",
            Self::Failures => "failures",
            Self::All => "all",
        }
    }
}

/// Unresolved failures that are remembered.
const OPEN: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4095);

/// A port that a program wanted and did not get.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Wanted {
    netns: Option<u32>,
    transport: Transport,
    address: Option<IpAddr>,
    port: u16,
    /// [`identity`]
    program: u64,
}

impl Wanted {
    fn of(sighting: &Sighting) -> Option<Self> {
        let Sighting { event, process, .. } = sighting;
        Some(Self {
            netns: event.socket.netns,
            transport: event.transport,
            address: event.local.address,
            port: event.local.port?,
            program: identity(&event.task, process),
        })
    }
}

/// Picks what is kept. Whatever is dangerous is; so is the bind or listen that succeeds where the same
/// program had failed before, for without it nobody could say whether the failure was the end of it.
#[derive(Debug)]
pub struct Keeper {
    keep: Keep,
    open: LruCache<Wanted, ()>,
}

impl Keeper {
    /// One that keeps that.
    #[must_use]
    pub fn new(keep: Keep) -> Self {
        Self {
            keep,
            open: LruCache::new(OPEN),
        }
    }

    /// Learns what was refused before this recorder was started, from what the one before it kept.
    pub fn learn(&mut self, kept: &[Item]) {
        for item in kept {
            self.wants(item);
        }
    }

    /// Whether the next item of the stream is kept.
    pub fn wants(&mut self, item: &Item) -> bool {
        let Item::Event(sighting) = item else {
            return true;
        };
        if self.keep == Keep::All {
            return true;
        }
        let takes_port = matches!(sighting.event.op, Op::Bind | Op::Listen);
        if sighting.event.outcome.is_failure() {
            let wanted = self.keep == Keep::Failures || is_conflict(&sighting.event);
            if wanted
                && takes_port
                && let Some(port) = Wanted::of(sighting)
            {
                self.open.put(port, ());
            }
            return wanted;
        }
        // Nothing is built for the many that resolve nothing.
        let resolves = takes_port
            && !self.open.is_empty()
            && Wanted::of(sighting).is_some_and(|port| self.open.pop(&port).is_some());
        resolves || sighting.warning.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::LostReason,
        sample::{by, connect, end, event, exposed, failed, lost, sighting, start},
    };

    fn kept(keep: Keep, items: &[Item]) -> Vec<usize> {
        let mut keeper = Keeper::new(keep);
        (0..items.len())
            .filter(|&place| keeper.wants(&items[place]))
            .collect()
    }

    #[test]
    fn the_stream_keeps_its_frame() {
        let items = [start(), lost(1, LostReason::RingFull), end(0, 0, 1)];
        for keep in [Keep::Conflicts, Keep::Failures, Keep::All] {
            assert_eq!(kept(keep, &items), [0, 1, 2]);
        }
    }

    #[test]
    fn failures_are_more_than_conflicts_and_all_is_all() {
        let refused = connect("127.0.0.1:40000", "127.0.0.1:80");
        let items = [
            event(failed(sighting(Op::Bind, "0.0.0.0:80"), libc::EADDRINUSE)),
            event(failed(refused, libc::ECONNREFUSED)),
            event(sighting(Op::Bind, "0.0.0.0:81")),
            event(exposed("0.0.0.0:46007")),
        ];
        assert_eq!(kept(Keep::Conflicts, &items), [0, 3]);
        assert_eq!(kept(Keep::Failures, &items), [0, 1, 3]);
        assert_eq!(kept(Keep::All, &items), [0, 1, 2, 3]);
    }

    #[test]
    fn what_resolves_a_failure_is_kept_once() {
        let bind = || event(sighting(Op::Bind, "0.0.0.0:80"));
        let other = by(sighting(Op::Bind, "0.0.0.0:80"), "x", "/bin/x", &["x"]);
        let script = by(
            sighting(Op::Bind, "0.0.0.0:80"),
            "node",
            "/usr/bin/node",
            &["node", "x.js"],
        );
        let items = [
            bind(),
            event(failed(sighting(Op::Bind, "0.0.0.0:80"), libc::EADDRINUSE)),
            event(sighting(Op::Bind, "0.0.0.0:81")),
            event(sighting(Op::Bind, "127.0.0.1:80")),
            event(other),
            event(script),
            bind(),
            bind(),
        ];
        assert_eq!(kept(Keep::Conflicts, &items), [1, 6]);
        let mut next = Keeper::new(Keep::Conflicts);
        next.learn(&items[..2]);
        assert!(
            next.wants(&bind()),
            "the recorder before had kept the failure"
        );
        assert!(!next.wants(&bind()));
    }
}
