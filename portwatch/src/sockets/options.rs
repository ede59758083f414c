//! Options that sock_diag does not tell, asked of the sockets themselves.

use std::{
    collections::HashSet,
    num::NonZeroUsize,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::table::Row;
use crate::{
    enrich::copied::Lender,
    event::{Family, Holder, Missed, SocketOptions, Transport},
};

/// How long a thread asks. A look at 20,000 sockets takes a fraction of it in all (`cargo xtask bench
/// --looking`).
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Sockets that are worth a thread.
const SHARE: NonZeroUsize = NonZeroUsize::MIN.saturating_add(127);

/// Threads at most, beside the one that calls. Each asks processes of its own.
const HELPERS: usize = 4;

/// Completes the sockets whose options are not known, as long as `patience` lasts, and does something else
/// with them `meanwhile`. What is missed of them stays unknown: without the rights of ptrace, for want of
/// time, or because no process has them.
pub fn complete<T>(
    rows: &mut [Row],
    patience: Duration,
    meanwhile: impl FnOnce(&[Row]) -> T,
) -> (Missed, T) {
    let mut unknown = Unknown::of(rows);
    let places = unknown.next(rows);
    let (mut answers, value) = ask(&places, patience, || meanwhile(rows));
    let deadline = Instant::now().checked_add(patience);
    let mut missed = Missed::Nothing;
    loop {
        missed = missed.max(answers.missed);
        for (at, options) in answers.options {
            if let Some(row) = rows.get_mut(at) {
                row.socket.socket.options = options;
            }
        }
        unknown.refused.extend(answers.refused);
        let left = deadline.map_or(patience, |deadline| {
            deadline.saturating_duration_since(Instant::now())
        });
        // Another descriptor of those whose first was closed meanwhile or could not be copied.
        let places = unknown.next(rows);
        if answers.late || places.is_empty() {
            return (missed, value);
        }
        (answers, ()) = ask(&places, left, || ());
    }
}

/// The sockets whose options are not known.
#[derive(Debug)]
struct Unknown {
    /// Rows, and how many of their descriptors were tried.
    open: Vec<(usize, usize)>,
    /// Processes that lend no descriptor.
    refused: HashSet<u32>,
}

impl Unknown {
    fn of(rows: &[Row]) -> Self {
        Self {
            open: (0..rows.len()).map(|at| (at, 0)).collect(),
            refused: HashSet::new(),
        }
    }

    /// The next descriptor of each, process by process.
    fn next(&mut self, rows: &[Row]) -> Vec<Place> {
        let mut places = Vec::new();
        let refused = &self.refused;
        self.open.retain_mut(|(at, tried)| {
            let row = rows.get(*at).filter(|row| lacks_options(row));
            let place = row.and_then(|row| Place::of(row, *at, tried, refused));
            places.extend(place);
            place.is_some()
        });
        places.sort_unstable_by_key(|place| (place.pid, place.fd));
        places
    }
}

/// The kernel's iterator tells the first two, and sock_diag the third, in namespaces that a way leads into.
fn lacks_options(row: &Row) -> bool {
    let options = row.socket.socket.options;
    let SocketOptions {
        reuseaddr,
        reuseport,
        freebind,
        ..
    } = options;
    [reuseaddr, reuseport, freebind].contains(&None)
}

/// Where to ask for what is not known.
#[derive(Clone, Copy, Debug)]
struct Place {
    pid: u32,
    fd: u32,
    inode: u64,
    cookie: Option<u64>,
    /// Of the row.
    at: usize,
    transport: Transport,
    family: Family,
    known: SocketOptions,
}

impl Place {
    /// The first descriptor behind those that were tried, of a process that lends some.
    fn of(row: &Row, at: usize, tried: &mut usize, refused: &HashSet<u32>) -> Option<Self> {
        let Holder {
            socket,
            transport,
            family,
            ..
        } = &row.socket;
        let inode = socket.inode?;
        loop {
            let seen = row.seen.get(*tried)?;
            *tried += 1;
            // In the table of a thread it is not to be had by its process.
            if let Some(fd) = seen.fd.filter(|_| !refused.contains(&seen.pid)) {
                return Some(Self {
                    pid: seen.pid,
                    fd,
                    inode,
                    cookie: socket.cookie,
                    at,
                    transport: *transport,
                    family: *family,
                    known: socket.options,
                });
            }
        }
    }
}

/// What came of asking.
#[derive(Debug, Default)]
struct Answers {
    /// Rows, and their options.
    options: Vec<(usize, SocketOptions)>,
    missed: Missed,
    /// Processes that lent nothing.
    refused: Vec<u32>,
    /// There was no time for all.
    late: bool,
}

impl Answers {
    fn add(&mut self, other: Self) {
        let Self {
            options,
            missed,
            refused,
            late,
        } = other;
        self.options.extend(options);
        self.missed = self.missed.max(missed);
        self.refused.extend(refused);
        self.late |= late;
    }

    /// Asks the sockets of one process.
    fn take(&mut self, places: &[Place]) {
        let Some(pid) = places.first().map(|place| place.pid) else {
            return;
        };
        let lender = match Lender::open(pid) {
            Ok(lender) => lender,
            Err(why) => return self.refuse(pid, why),
        };
        for place in places {
            let Place {
                fd,
                inode,
                cookie,
                at,
                transport,
                family,
                known,
                pid: _,
            } = *place;
            match lender.copy(fd, inode, cookie) {
                Ok(copy) => {
                    let options = copy.complete(known, transport, family);
                    self.options.push((at, options));
                }
                // What holds for one descriptor holds for all.
                Err(Missed::Hidden) => return self.refuse(pid, Missed::Hidden),
                Err(why) => self.missed = self.missed.max(why),
            }
        }
    }

    fn refuse(&mut self, pid: u32, why: Missed) {
        self.missed = self.missed.max(why);
        self.refused.push(pid);
    }
}

/// Asks at all places, and does something else: before that if others ask meanwhile, else after it. No
/// thread asks for longer than `patience`.
fn ask<T>(places: &[Place], patience: Duration, meanwhile: impl FnOnce() -> T) -> (Answers, T) {
    let processes: Vec<&[Place]> = places.chunk_by(|one, other| one.pid == other.pid).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        let deadline = Instant::now().checked_add(patience);
        let mut answers = Answers::default();
        while let Some(places) = processes.get(next.fetch_add(1, Ordering::Relaxed)) {
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                answers.missed = answers.missed.max(Missed::Unread);
                answers.late = true;
                break;
            }
            answers.take(places);
        }
        answers
    };
    let cpus = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let helpers = (places.len() / SHARE).min(cpus).min(HELPERS);
    thread::scope(|scope| {
        let helpers: Vec<_> = (0..helpers)
            .filter_map(|_| {
                let named = thread::Builder::new().name("options".to_owned());
                named.spawn_scoped(scope, work).ok()
            })
            .collect();
        if helpers.is_empty() {
            return (work(), meanwhile());
        }
        let value = meanwhile();
        let mut all = work();
        for helper in helpers {
            match helper.join() {
                Ok(answers) => all.add(answers),
                Err(_) => all.missed = all.missed.max(Missed::Unread),
            }
        }
        (all, value)
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::{
        net::{TcpListener, UdpSocket},
        os::{fd::AsRawFd, unix::fs::MetadataExt as _},
    };

    use rustix::net::sockopt;

    use super::*;
    use crate::{event::SocketOptions, sockets::table::Seen};

    fn inode(socket: &impl AsRawFd) -> u64 {
        let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
        std::fs::metadata(path).unwrap().ino()
    }

    /// As sock_diag shows it.
    fn row(socket: &impl AsRawFd, seen: Vec<Seen>) -> Row {
        let mut holder = crate::sample::listings().remove(0).socket;
        holder.socket.inode = Some(inode(socket));
        holder.socket.options = SocketOptions::default();
        Row {
            socket: holder,
            seen,
            ends: None,
        }
    }

    fn at(socket: &impl AsRawFd) -> Seen {
        Seen {
            pid: std::process::id(),
            fd: u32::try_from(socket.as_raw_fd()).ok(),
        }
    }

    #[test]
    fn what_the_tables_do_not_tell_the_socket_does() {
        let one = UdpSocket::bind("127.0.0.1:0").unwrap();
        sockopt::set_socket_reuseport(&one, true).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let gone = Seen {
            pid: 0x3fff_ffff,
            fd: Some(3),
        };
        let mut rows = vec![
            // One of its places has become another's.
            row(&one, vec![gone, at(&listener), at(&one)]),
            row(&listener, vec![at(&listener)]),
            // Nobody has it.
            row(&listener, vec![]),
        ];
        let (missed, count) = complete(&mut rows, PATIENCE, <[Row]>::len);
        assert_eq!((missed, count), (Missed::Nothing, 3));
        let reuse = |at: usize| {
            let options = &rows[at].socket.socket.options;
            (options.reuseaddr, options.reuseport)
        };
        assert_eq!(reuse(0), (Some(false), Some(true)));
        assert_eq!(reuse(1), (Some(true), Some(false)));
        assert_eq!(reuse(2), (None, None));
    }

    #[test]
    fn what_is_known_stays_as_it_was_seen() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut known = row(&socket, vec![at(&socket)]);
        known.socket.socket.options.reuseaddr = Some(true);
        known.socket.socket.device = Some(7);
        let mut rows = vec![known];
        complete(&mut rows, PATIENCE, |_| ());
        assert_eq!(rows[0].socket.socket.options.reuseaddr, Some(true));
        assert_eq!(rows[0].socket.socket.options.reuseport, Some(false));
        assert_eq!(rows[0].socket.socket.device, Some(7));
    }

    #[test]
    fn what_is_done_meanwhile_takes_no_time_from_it() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let patience = Duration::from_millis(500);
        for count in [1, 1_000] {
            let mut rows = vec![row(&socket, vec![at(&socket)]); count];
            let (missed, ()) = complete(&mut rows, patience, |_| {
                thread::sleep(patience);
            });
            assert_eq!(missed, Missed::Nothing);
            let is_known = |row: &Row| row.socket.socket.options.reuseaddr == Some(false);
            assert!(rows.iter().all(is_known), "{count}");
        }
    }

    #[test]
    fn each_descriptor_is_tried_once_and_none_of_who_lends_none() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let seen = |pid, fd| Seen { pid, fd: Some(fd) };
        let places = vec![
            seen(1, 3),
            Seen { pid: 2, fd: None },
            seen(2, 3),
            seen(2, 4),
            seen(3, 3),
        ];
        let mut known = row(&socket, vec![seen(1, 5)]);
        known.socket.socket.options.reuseaddr = Some(false);
        known.socket.socket.options.reuseport = Some(false);
        known.socket.socket.options.freebind = Some(false);
        let rows = [known, row(&socket, places)];
        let mut unknown = Unknown::of(&rows);
        let mut next = |refused: &[u32]| {
            unknown.refused.extend(refused);
            let places = unknown.next(&rows);
            let tried = places.iter().map(|place| (place.at, place.pid, place.fd));
            tried.collect::<Vec<_>>()
        };
        assert_eq!(next(&[]), [(1, 1, 3)]);
        assert_eq!(next(&[]), [(1, 2, 3)]);
        assert_eq!(next(&[2]), [(1, 3, 3)]);
        assert_eq!(next(&[]), []);
    }

    #[test]
    fn without_time_nothing_is_known_and_that_is_said() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut rows = vec![row(&socket, vec![at(&socket)])];
        let (missed, ()) = complete(&mut rows, Duration::ZERO, |_| ());
        assert_eq!(missed, Missed::Unread);
        assert_eq!(rows[0].socket.socket.options.reuseaddr, None);
    }
}
