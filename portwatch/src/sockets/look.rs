//! The look itself: by the kernel's iterator over descriptors where that may be loaded, else in `/proc`;
//! and by sock_diag in every network namespace.

use std::{
    cell::Cell,
    io,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use super::{
    namespaces,
    scope::{Reach, Scope},
    table::{LIMIT, Row, Table},
    unseen,
};
use crate::{
    enrich::{
        descriptors::Descriptors,
        image::Images,
        sock_diag::{self, Query},
    },
    errno,
    event::{Holder, Missed, TcpState, Transport},
    facts,
    host::{
        kernel,
        namespaces::{Kind, is_initial},
    },
    load, plan, source,
};

/// After this, who waits is told what takes so long.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was seen.
#[derive(Debug)]
pub struct Seen {
    /// Sockets.
    pub rows: Vec<Row>,
    /// Sockets that there was no room for.
    pub left_out: usize,
    /// Processes that could not be looked at.
    pub missed: Missed,
    /// There may be processes outside our pid namespace: what they have is not seen.
    pub outside: bool,
    /// Network namespaces that could not be looked into.
    pub closed: usize,
    /// There may be others: some processes do not show theirs.
    pub hidden: bool,
    /// Network namespaces that were asked for and are not there, by inode.
    pub absent: Vec<u32>,
    /// What processes ran before, where that was looked at: of those that run it still, what was seen of
    /// their descriptors need not be looked at again.
    pub images: Images,
    /// Why the iterator was not used.
    pub without_iterator: Option<String>,
    /// TCP sockets that are bound and do not listen may be missing.
    pub may_hide: bool,
    /// How sock_diag answered; what it told before an error is there.
    pub diag: io::Result<()>,
}

/// Looks at the sockets of a scope. Calls `late` with the reason for it, if a search of all processes takes
/// long.
#[must_use]
pub fn look(scope: &Scope, late: impl FnOnce(&str) + Send) -> Seen {
    // Of a few sockets, to look at each again costs less.
    let images = match scope.port {
        Some(_) => Images::default(),
        None => Images::now(),
    };
    let (descriptors, listed) = both(|| by_iterator(scope), || by_sock_diag(scope));
    let (mut table, without_iterator) = match descriptors {
        Ok(table) => (table, None),
        Err(reason) => (Table::default(), Some(reason)),
    };
    let ByDiag {
        sockets,
        beyond,
        visited:
            namespaces::Visited {
                closed,
                absent,
                hidden,
            },
        outcome: diag,
    } = listed;
    for (socket, ends) in sockets {
        table.socket(socket, ends);
    }
    // Whom the iterator does not show may be there all the same, or be hidden: only /proc tells that.
    let (inodes, reason) = match &without_iterator {
        Some(reason) => (table.inodes(), reason.as_str()),
        None => (table.unowned(), "the iterator does not show who has some"),
    };
    let outside = is_initial(Kind::Pid) != Some(true);
    let is_blind = without_iterator.is_some()
        && scope.has(Transport::Tcp)
        && scope.reach != Reach::Listening
        && !kernel::shows_bound();
    let mut missed = Missed::Nothing;
    let mut may_hide = is_blind && outside;
    if is_blind || !inodes.is_empty() {
        let places;
        let search = || Descriptors::new().everywhere(&inodes, is_blind);
        (places, missed) = watched(PATIENCE, || late(reason), search);
        if is_blind {
            // Only who may administer a namespace is told that a socket is in it (SIOCGSKNS).
            let nowhere = Cell::new(false);
            let take = |socket: Holder| {
                nowhere.set(nowhere.get() || socket.socket.netns.is_none());
                scope.takes(&socket).then_some(socket)
            };
            let not_asked = unseen::add(&mut table, &places, take);
            may_hide |= missed.max(not_asked) != Missed::Nothing;
            may_hide |= nowhere.get() && !scope.netns.is_empty();
        }
        for place in places {
            table.place(place);
        }
    }
    let (rows, left_out) = table.finish();
    Seen {
        rows,
        left_out: left_out + beyond,
        missed,
        outside,
        closed,
        hidden,
        absent,
        images,
        without_iterator,
        may_hide,
        diag,
    }
}

/// Does something, and calls `late` if that takes longer.
fn watched<T>(patience: Duration, late: impl FnOnce() + Send, work: impl FnOnce() -> T) -> T {
    let (done, watch) = mpsc::channel::<()>();
    thread::scope(|scope| {
        // If it cannot be started, nobody is told.
        let _watcher = thread::Builder::new().spawn_scoped(scope, move || {
            if watch.recv_timeout(patience) == Err(mpsc::RecvTimeoutError::Timeout) {
                late();
            }
        });
        let value = work();
        drop(done);
        value
    })
}

/// Does two things at once, or one after the other where there can be no thread.
fn both<A: Send, B>(one: impl Fn() -> A + Sync, other: impl FnOnce() -> B) -> (A, B) {
    thread::scope(|scope| {
        let named = thread::Builder::new().name("iterator".to_owned());
        let helper = named.spawn_scoped(scope, &one);
        let other = other();
        match helper.map(thread::ScopedJoinHandle::join) {
            Ok(Ok(value)) => (value, other),
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(_) => (one(), other),
        }
    })
}

/// Descriptors by the iterator.
///
/// # Errors
/// Why it cannot be used.
fn by_iterator(scope: &Scope) -> Result<Table, String> {
    let gathered = facts::prepare().map_err(|error| error.to_string())?;
    let iterator = plan::iterator(&gathered.facts)?;
    let file = load::iterate(&gathered, iterator)
        .map_err(|error| errno::words(&format_args!("{:#}", anyhow::Error::from(error))))?;
    let mut table = Table::default();
    source::descriptors::read(file, |descriptor| {
        if scope.takes(&descriptor.socket) {
            table.descriptor(descriptor);
        }
    })
    .map_err(|error| errno::words(&error))?;
    Ok(table)
}

/// What sock_diag has listed.
struct ByDiag {
    /// As many as a table takes.
    sockets: Vec<Sock>,
    /// Those beyond that.
    beyond: usize,
    visited: namespaces::Visited,
    /// Whether that is all.
    outcome: io::Result<()>,
}

/// A socket, and of one in TIME_WAIT when that ends.
type Sock = (Holder, Option<Instant>);

/// Sockets by sock_diag, of each namespace.
fn by_sock_diag(scope: &Scope) -> ByDiag {
    let mut sockets = Vec::new();
    let mut beyond = 0;
    let mut outcome = Ok(());
    let queries = queries(scope);
    let visited = namespaces::each(
        &scope.netns,
        move |netns| in_namespace(netns, &queries),
        |(mut listed, asked)| {
            listed.retain(|(socket, _)| scope.takes(socket));
            let room = LIMIT.saturating_sub(sockets.len());
            beyond += listed.len().saturating_sub(room);
            listed.truncate(room);
            sockets.append(&mut listed);
            if let Err(error) = asked {
                outcome = Err(error);
            }
        },
    );
    ByDiag {
        sockets,
        beyond,
        visited,
        outcome,
    }
}

/// What to ask sock_diag for. Not for SCTP: asking would have the kernel load its module.
fn queries(scope: &Scope) -> Vec<Query> {
    let transports = [Transport::Tcp, Transport::Udp, Transport::UdpLite];
    let wanted = transports
        .into_iter()
        .filter(|&transport| scope.has(transport));
    let shows_bound = scope.reach == Reach::Bound && kernel::shows_bound();
    let query = |transport| {
        let own = Query {
            transport,
            // The kernel passes over the others, which may be very many.
            states: match scope.reach {
                Reach::All => sock_diag::every_state(),
                Reach::Bound => sock_diag::bound_states(transport, shows_bound),
                Reach::Listening => sock_diag::bound_states(transport, false),
            },
            ports: scope.port.map_or(0..=u16::MAX, |port| port..=port),
            peer_port: None,
        };
        let peers = scope.port.filter(|_| scope.peers).map(|port| Query {
            ports: 0..=u16::MAX,
            peer_port: Some(port),
            ..own.clone()
        });
        std::iter::once(own).chain(peers)
    };
    wanted.flat_map(query).collect()
}

/// The sockets of the namespace that the calling thread is in, of those in TIME_WAIT with when that ends; and
/// whether these are all.
fn in_namespace(netns: u32, queries: &[Query]) -> (Vec<Sock>, io::Result<()>) {
    let mut found = Vec::new();
    let mut all = Ok(());
    for query in queries {
        let transport = query.transport;
        let asked = sock_diag::list(query, None, |listed| {
            let waits = listed.state == TcpState::TimeWait;
            let ends = waits.then(|| Instant::now() + listed.expires);
            let mut socket = listed.holder(transport);
            socket.socket.netns = Some(netns);
            found.push((socket, ends));
        });
        // Gone in 7.x.
        if transport != Transport::UdpLite {
            all = all.and(asked.map(drop));
        }
    }
    (found, all)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn two_things_are_done_at_once() {
        let (tell, wait) = mpsc::channel();
        let wait = std::sync::Mutex::new(wait);
        // The one ends when the other has begun.
        let (one, other) = both(
            || wait.lock().unwrap().recv().unwrap(),
            || {
                tell.send(1).unwrap();
                2
            },
        );
        assert_eq!((one, other), (1, 2));
    }

    #[test]
    fn who_waits_long_is_told_and_gets_all_the_same() {
        let (told, was_told) = mpsc::channel();
        // Ends when it was told, and not before.
        let value = watched(
            Duration::from_millis(1),
            move || told.send(7).unwrap(),
            || was_told.recv().unwrap(),
        );
        assert_eq!(value, 7);
        let value = watched(Duration::MAX, || panic!("told too early"), || 8);
        assert_eq!(value, 8);
    }
}
