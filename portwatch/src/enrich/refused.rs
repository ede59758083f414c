//! Sockets whose bind() was refused. A program that does not look at the error and calls listen() all
//! the same gets a port of the kernel's choice on all addresses (net/ipv4/inet_connection_sock.c,
//! `inet_csk_listen_start`: `sk->sk_prot->get_port(sk, inet->inet_num)` with 0).

use std::num::NonZeroUsize;

use lru::LruCache;

use crate::event::{Event, Op, Outcome, Refused};

/// Sockets remembered, of about 100 bytes each. Between the two calls of a program that ignores the
/// first lie microseconds, so that this stands a storm of refusals.
const CAPACITY: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1023);

/// Network namespace and inode of a socket.
type Key = (u32, u64);

/// A bind() that was refused, and whose it was.
#[derive(Clone, Copy, Debug)]
struct Remembered {
    refused: Refused,
    /// Tells from a socket that was given the inode again.
    cookie: Option<u64>,
}

/// The latest of them.
#[derive(Debug)]
pub struct RefusedBinds {
    sockets: LruCache<Key, Remembered>,
}

impl Default for RefusedBinds {
    fn default() -> Self {
        Self {
            sockets: LruCache::new(CAPACITY),
        }
    }
}

impl RefusedBinds {
    /// Takes the next event, wanted or not; the bind() that was refused, if the event is the listen() that
    /// opens a port nobody chose.
    pub fn take(&mut self, event: &Event) -> Option<Refused> {
        let key = event.socket.netns.zip(event.socket.inode)?;
        match (event.op, event.outcome) {
            (Op::Bind, Outcome::Success) => {
                self.sockets.pop(&key);
                None
            }
            // One that has a port keeps it.
            (Op::Bind, Outcome::Failure(errno)) if event.bound_port.is_none() => {
                let refused = Refused {
                    time_boot: event.time_boot,
                    errno,
                    local: event.local,
                };
                let cookie = cookie(event);
                self.sockets.put(key, Remembered { refused, cookie });
                None
            }
            (Op::Listen, Outcome::Success) => {
                // A second listen() opens nothing.
                let Remembered {
                    refused,
                    cookie: before,
                } = self.sockets.pop(&key)?;
                let is_other = before
                    .zip(cookie(event))
                    .is_some_and(|(before, now)| before != now);
                let on_all = event
                    .local
                    .address
                    .is_some_and(|address| address.is_unspecified());
                (event.auto_port && on_all && !is_other && refused.time_boot <= event.time_boot)
                    .then_some(refused)
            }
            _ => None,
        }
    }

    /// Events are missing: a bind() that worked may be among them.
    pub fn forget(&mut self) {
        self.sockets.clear();
    }
}

/// An MPTCP socket is seen with the cookie of the socket inside or with its own.
fn cookie(event: &Event) -> Option<u64> {
    let is_mptcp = event.socket.options.mptcp != Some(false);
    event.socket.cookie.filter(|_| !is_mptcp)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]

    use super::*;
    use crate::sample::{failed, sighting};

    const SECOND: u64 = 1_000_000_000;

    fn refused(at: u64) -> Event {
        let mut event = *failed(sighting(Op::Bind, "10.0.0.2:587"), libc::EADDRNOTAVAIL).event;
        event.time_boot = at;
        event
    }

    fn bound(local: &str) -> Event {
        *sighting(Op::Bind, local).event
    }

    /// listen() of a socket to which the kernel gives a port.
    fn listens(local: &str, at: u64) -> Event {
        let mut event = *sighting(Op::Listen, local).event;
        event.time_boot = at;
        event.auto_port = true;
        event
    }

    fn opened(events: &[Event]) -> Option<Refused> {
        let mut binds = RefusedBinds::default();
        let (last, before) = events.split_last().unwrap();
        for event in before {
            binds.take(event);
        }
        binds.take(last)
    }

    #[test]
    fn who_listens_after_a_refused_bind_is_told() {
        for local in ["0.0.0.0:46007", "[::]:46007"] {
            let refused = opened(&[refused(SECOND), listens(local, 2 * SECOND)]).unwrap();
            assert_eq!(refused.time_boot, SECOND);
            assert_eq!(refused.errno.0, libc::EADDRNOTAVAIL.unsigned_abs());
            assert_eq!(refused.local.port, Some(587));
        }
    }

    #[test]
    fn the_latest_refusal_counts() {
        let events = [refused(1), refused(2), listens("0.0.0.0:46007", 3)];
        assert_eq!(opened(&events).unwrap().time_boot, 2);
    }

    #[test]
    fn a_bind_that_worked_in_between_makes_it_good() {
        for local in ["0.0.0.0:8587", "0.0.0.0:40000", "127.0.0.1:40000"] {
            let events = [refused(1), bound(local), listens("0.0.0.0:40000", 3)];
            assert_eq!(opened(&events), None);
        }
    }

    #[test]
    fn a_port_that_was_chosen_or_an_address_that_was_is_none_of_it() {
        let mut named = listens("0.0.0.0:8080", 2);
        named.auto_port = false;
        assert_eq!(opened(&[refused(1), named]), None);
        // Whoever bound it was not seen.
        assert_eq!(opened(&[refused(1), listens("127.0.0.1:40000", 2)]), None);
    }

    #[test]
    fn a_socket_that_had_a_port_keeps_it() {
        let mut again = refused(1);
        again.bound_port = Some(40000);
        assert_eq!(opened(&[again, listens("0.0.0.0:40000", 2)]), None);
    }

    #[test]
    fn a_second_listen_opens_nothing() {
        let listen = listens("0.0.0.0:46007", 2);
        assert_eq!(opened(&[refused(1), listen.clone(), listen]), None);
    }

    #[test]
    fn a_listen_that_was_refused_leaves_it_open() {
        let mut busy = listens("0.0.0.0:1", 2);
        busy.outcome = Outcome::Failure(crate::event::Errno(98));
        let events = [refused(1), busy, listens("0.0.0.0:46007", 3)];
        assert!(opened(&events).is_some());
    }

    #[test]
    fn other_sockets_are_not_blamed() {
        let listen = listens("0.0.0.0:46007", 2);
        let with = |adjust: fn(&mut Event)| {
            let mut other = listen.clone();
            adjust(&mut other);
            opened(&[refused(1), other])
        };
        assert_eq!(with(|other| other.socket.inode = Some(1)), None);
        assert_eq!(with(|other| other.socket.netns = Some(1)), None);
        // The inode was given out again.
        assert_eq!(with(|other| other.socket.cookie = Some(1)), None);
        assert!(with(|other| other.socket.cookie = None).is_some());
        // The records of two processors came in the wrong order.
        assert_eq!(opened(&[refused(3), listen.clone()]), None);
        // Both have two cookies.
        let mut binds = RefusedBinds::default();
        let mut mptcp = [refused(1), listen];
        mptcp[1].socket.cookie = Some(1);
        for event in &mut mptcp {
            event.socket.options.mptcp = Some(true);
        }
        binds.take(&mptcp[0]);
        assert!(binds.take(&mptcp[1]).is_some());
    }

    #[test]
    fn nobody_is_blamed_where_events_are_missing() {
        let mut binds = RefusedBinds::default();
        binds.take(&refused(1));
        binds.forget();
        assert_eq!(binds.take(&listens("0.0.0.0:46007", 2)), None);
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut binds = RefusedBinds::default();
        for inode in 1..=2 * CAPACITY.get() as u64 {
            let mut event = refused(1);
            event.socket.inode = Some(inode);
            binds.take(&event);
        }
        assert_eq!(binds.sockets.len(), CAPACITY.get());
    }
}
