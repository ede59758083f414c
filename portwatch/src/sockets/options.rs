//! Options that sock_diag does not tell, asked of the sockets themselves.

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use super::table::Row;
use crate::{
    enrich::{
        copied::Lender,
        descriptors::{Missed, Place},
    },
    event::Holder,
};

/// Longest look: copying a descriptor and reading its options takes 4 µs, so that this is enough for
/// some 250,000 of them.
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

/// TCP sockets with a port that no table of the kernel shows, each with the places it was seen at: those
/// that are bound and nothing else, before Linux 6.8. Of `places`, those of sockets that are not known
/// otherwise; `wanted`: ports that are asked about.
pub fn unseen(
    places: &[Place],
    wanted: impl Fn(u16) -> bool,
    patience: Duration,
) -> (Vec<Holder>, Missed) {
    let deadline = Instant::now().checked_add(patience);
    let mut missed = Missed::Nothing;
    let mut found = Vec::new();
    let mut known = HashSet::new();
    let mut lender: Option<(u32, Result<Lender, Missed>)> = None;
    for &Place { inode, pid, fd } in places {
        let Some(fd) = fd.filter(|_| !known.contains(&inode)) else {
            continue;
        };
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return (found, missed.max(Missed::Unread));
        }
        match is_tcp(pid, fd) {
            Ok(true) => {}
            Ok(false) => {
                known.insert(inode);
                continue;
            }
            Err(why) => {
                missed = missed.max(why);
                continue;
            }
        }
        if lender.as_ref().is_none_or(|(of, _)| *of != pid) {
            lender = Some((pid, Lender::open(pid)));
        }
        let copy = match &lender {
            Some((_, Ok(lender))) => lender.copy(fd, inode),
            Some((_, Err(why))) => Err(*why),
            None => continue,
        };
        match copy {
            Ok(copy) => {
                known.insert(inode);
                found.extend(
                    copy.tcp()
                        .filter(|socket| socket.local.port.is_some_and(&wanted)),
                );
            }
            Err(why) => missed = missed.max(why),
        }
    }
    (found, missed)
}

/// Whether a descriptor is of a TCP socket, by the name of its protocol (net/socket.c,
/// `sockfs_xattr_get`): for that no copy is needed.
fn is_tcp(pid: u32, fd: u32) -> Result<bool, Missed> {
    use rustix::io::Errno;

    let mut name = [0u8; 16];
    let path = format!("/proc/{pid}/fd/{fd}");
    match rustix::fs::getxattr(path, "system.sockprotoname", &mut name) {
        Ok(length) => {
            let name = name.get(..length).unwrap_or_default();
            Ok(name.starts_with(b"TCP") || name.starts_with(b"MPTCP"))
        }
        // Gone, or something else by now.
        Err(Errno::NOENT | Errno::SRCH | Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        // A longer name is another one.
        Err(Errno::RANGE) => Ok(false),
        Err(Errno::ACCESS | Errno::PERM) => Err(Missed::Hidden),
        Err(_) => Err(Missed::Unread),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::{
        net::{TcpListener, UdpSocket},
        os::{
            fd::{AsRawFd, OwnedFd},
            unix::{fs::MetadataExt as _, net::UnixStream},
        },
    };

    use rustix::net::{AddressFamily, SocketType, bind, sockopt};

    use super::*;
    use crate::{event::SocketOptions, sockets::table::Seen};

    fn inode(socket: &impl AsRawFd) -> u64 {
        let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
        std::fs::metadata(path).unwrap().ino()
    }

    fn place(socket: &impl AsRawFd) -> Place {
        Place {
            inode: inode(socket),
            pid: std::process::id(),
            fd: u32::try_from(socket.as_raw_fd()).ok(),
        }
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
        let Place { pid, fd, .. } = place(socket);
        Seen { pid, fd }
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
        let (found, missed) = unseen(&[place(&socket)], |_| true, Duration::ZERO);
        assert_eq!((found.len(), missed), (0, Missed::Unread));
    }

    #[test]
    fn sockets_that_are_only_bound_are_found() {
        let tcp = || -> OwnedFd {
            rustix::net::socket(AddressFamily::INET6, SocketType::STREAM, None).unwrap()
        };
        let (bound, unbound) = (tcp(), tcp());
        let address: std::net::SocketAddrV6 = "[::1]:0".parse().unwrap();
        bind(&bound, &address).unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (unix, _other) = UnixStream::pair().unwrap();
        let mut places = vec![place(&bound), place(&unbound), place(&udp), place(&unix)];
        // Of two descriptors of a socket one is enough.
        let again = bound.try_clone().unwrap();
        places.push(place(&again));
        let (found, missed) = unseen(&places, |_| true, PATIENCE);
        assert_eq!(missed, Missed::Nothing);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].socket.inode, Some(inode(&bound)));
        assert_eq!(found[0].state, crate::event::TcpState::Closed);
        let port = found[0].local.port.unwrap();
        assert!(
            unseen(&places, |other| other != port, PATIENCE)
                .0
                .is_empty()
        );
    }
}
