//! Options that sock_diag does not tell, asked of the sockets themselves.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::table::Row;
use crate::{
    enrich::copied::Lender,
    event::{Holder, Missed},
};

/// Longest look. 20,000 copies, with the options read of each, took some 0.2 s (`cargo xtask bench
/// --looking`, beside a look that needs none).
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Completes the sockets whose options are not known, as long as `patience` lasts. What is missed of them
/// stays unknown: without the rights of ptrace, for want of time, or because no process has them.
pub fn complete(rows: &mut [Row], patience: Duration) -> Missed {
    let deadline = Instant::now().checked_add(patience);
    let mut missed = Missed::Nothing;
    for (pid, places) in by_process(rows) {
        let places = || {
            let places = places.iter().copied();
            places.filter(|&(at, _)| rows.get(at).is_some_and(lacks_options))
        };
        if places().next().is_none() {
            continue;
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return missed.max(Missed::Unread);
        }
        let lender = match Lender::open(pid) {
            Ok(lender) => lender,
            Err(why) => {
                missed = missed.max(why);
                continue;
            }
        };
        let places: Vec<_> = places().collect();
        for (at, fd) in places {
            let Some(row) = rows.get_mut(at) else {
                continue;
            };
            let inode = row.socket.socket.inode.unwrap_or_default();
            match lender.copy(fd, inode) {
                Ok(copy) => copy.complete(&mut row.socket),
                Err(why) => missed = missed.max(why),
            }
        }
    }
    missed
}

/// Where to ask, process by process: places in `rows`, and descriptors.
fn by_process(rows: &[Row]) -> BTreeMap<u32, Vec<(usize, u32)>> {
    let mut processes: BTreeMap<u32, Vec<(usize, u32)>> = BTreeMap::new();
    for (at, row) in rows
        .iter()
        .enumerate()
        .filter(|(_, row)| lacks_options(row))
    {
        for seen in &row.seen {
            // In the table of a thread it is not to be had by its process.
            if let Some(fd) = seen.fd {
                processes.entry(seen.pid).or_default().push((at, fd));
            }
        }
    }
    processes
}

fn lacks_options(row: &Row) -> bool {
    let Holder { socket, .. } = &row.socket;
    socket.inode.is_some()
        && (socket.options.reuseaddr.is_none() || socket.options.reuseport.is_none())
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
        assert_eq!(complete(&mut rows, PATIENCE), Missed::Nothing);
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
        complete(&mut rows, PATIENCE);
        assert_eq!(rows[0].socket.socket.options.reuseaddr, Some(true));
        assert_eq!(rows[0].socket.socket.options.reuseport, Some(false));
        assert_eq!(rows[0].socket.socket.device, Some(7));
    }

    #[test]
    fn without_time_nothing_is_known_and_that_is_said() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut rows = vec![row(&socket, vec![at(&socket)])];
        assert_eq!(complete(&mut rows, Duration::ZERO), Missed::Unread);
        assert_eq!(rows[0].socket.socket.options.reuseaddr, None);
    }
}
