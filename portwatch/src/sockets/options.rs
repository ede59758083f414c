//! Options that sock_diag does not tell, asked of the sockets themselves.

use std::{
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

/// Longest look. 20,000 sockets take some 50 ms on two CPUs.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Sockets per thread: starting one costs as much as asking some ten.
const SHARE: NonZeroUsize = NonZeroUsize::MIN.saturating_add(127);

/// Threads at most: each asks processes of its own, so that they do not wait for each other.
const WORKERS: usize = 4;

/// Completes the sockets whose options are not known, as long as `patience` lasts, and does something else
/// with them `meanwhile`. What is missed of them stays unknown: without the rights of ptrace, for want of
/// time, or because no process has them.
pub fn complete<T>(
    rows: &mut [Row],
    patience: Duration,
    meanwhile: impl FnOnce(&[Row]) -> T,
) -> (Missed, T) {
    let deadline = Instant::now().checked_add(patience);
    let mut missed = Missed::Nothing;
    let (mut answers, value) = ask(&places(rows, 0), deadline, || meanwhile(rows));
    // Another descriptor of those whose first was closed meanwhile or could not be copied.
    for turn in 1.. {
        missed = missed.max(answers.missed);
        for (at, options) in answers.options {
            if let Some(row) = rows.get_mut(at) {
                row.socket.socket.options = options;
            }
        }
        let places = places(rows, turn);
        if answers.late || places.is_empty() {
            break;
        }
        (answers, ()) = ask(&places, deadline, || ());
    }
    (missed, value)
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

/// The descriptor with this number of each socket whose options are not known, process by process.
fn places(rows: &[Row], turn: usize) -> Vec<Place> {
    let place = |(at, row): (usize, &Row)| {
        let Holder {
            socket,
            transport,
            family,
            ..
        } = &row.socket;
        // In the table of a thread it is not to be had by its process.
        let mut seen = row
            .seen
            .iter()
            .filter_map(|seen| Some((seen.pid, seen.fd?)));
        let known = socket.options;
        let is_known = known.reuseaddr.is_some() && known.reuseport.is_some();
        let inode = socket.inode.filter(|_| !is_known)?;
        let (pid, fd) = seen.nth(turn)?;
        Some(Place {
            pid,
            fd,
            inode,
            cookie: socket.cookie,
            at,
            transport: *transport,
            family: *family,
            known,
        })
    };
    let mut places: Vec<Place> = rows.iter().enumerate().filter_map(place).collect();
    places.sort_unstable_by_key(|place| (place.pid, place.fd));
    places
}

/// What came of asking.
#[derive(Debug, Default)]
struct Answers {
    /// Rows, and their options.
    options: Vec<(usize, SocketOptions)>,
    missed: Missed,
    /// There was no time for all.
    late: bool,
}

/// Asks at all places, by several threads where there are many; this one does something else first.
fn ask<T>(
    places: &[Place],
    deadline: Option<Instant>,
    meanwhile: impl FnOnce() -> T,
) -> (Answers, T) {
    let processes: Vec<&[Place]> = places.chunk_by(|one, other| one.pid == other.pid).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut answers = Answers::default();
        while let Some(places) = processes.get(next.fetch_add(1, Ordering::Relaxed)) {
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                answers.missed = answers.missed.max(Missed::Unread);
                answers.late = true;
                break;
            }
            of_process(places, &mut answers);
        }
        answers
    };
    let cpus = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let workers = (places.len() / SHARE).min(cpus).min(WORKERS);
    thread::scope(|scope| {
        // One that cannot be started leaves its work to the others.
        let helpers: Vec<_> = (0..workers)
            .filter_map(|_| {
                let named = thread::Builder::new().name("options".to_owned());
                named.spawn_scoped(scope, work).ok()
            })
            .collect();
        let value = meanwhile();
        let mut all = work();
        for helper in helpers {
            match helper.join() {
                Ok(answers) => {
                    all.options.extend(answers.options);
                    all.missed = all.missed.max(answers.missed);
                    all.late |= answers.late;
                }
                Err(_) => all.missed = all.missed.max(Missed::Unread),
            }
        }
        (all, value)
    })
}

/// Asks the sockets of one process.
fn of_process(places: &[Place], answers: &mut Answers) {
    let Some(pid) = places.first().map(|place| place.pid) else {
        return;
    };
    let lender = match Lender::open(pid) {
        Ok(lender) => lender,
        Err(why) => {
            answers.missed = answers.missed.max(why);
            return;
        }
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
                answers.options.push((at, options));
            }
            Err(why) => answers.missed = answers.missed.max(why),
        }
    }
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
    fn without_time_nothing_is_known_and_that_is_said() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut rows = vec![row(&socket, vec![at(&socket)])];
        let (missed, ()) = complete(&mut rows, Duration::ZERO, |_| ());
        assert_eq!(missed, Missed::Unread);
        assert_eq!(rows[0].socket.socket.options.reuseaddr, None);
    }
}
