//! TCP sockets that are bound and nothing else: before Linux 6.8 sock_diag does not show them, and without
//! its iterators the kernel shows them nowhere. Each TCP socket that is not known otherwise is asked itself.

use std::{
    collections::{BTreeSet, HashSet},
    time::{Duration, Instant},
};

use super::table::Table;
use crate::{
    enrich::{
        copied::Lender,
        descriptors::{Descriptors, Place},
    },
    event::{Holder, Missed},
};

/// Longest look. What is left out then is told as missed.
const PATIENCE: Duration = Duration::from_secs(1);

/// Adds those that `take` takes, which may complete them. `places`: where all sockets are. What was missed.
pub(super) fn add(
    table: &mut Table,
    places: &[Place],
    take: impl Fn(Holder) -> Option<Holder>,
) -> Missed {
    let deadline = Instant::now().checked_add(PATIENCE);
    let known: HashSet<u64> = table.inodes().into_iter().collect();
    let others = places.iter().filter(|place| !known.contains(&place.inode));
    let first = look(others, deadline);
    // Closed there, or passed on to another process: that is where it is found, if it is anywhere.
    let lost: Vec<u64> = first.lost.iter().copied().collect();
    let (again, unread) = if lost.is_empty() {
        (Vec::new(), Missed::Nothing)
    } else {
        Descriptors::new().everywhere(&lost, false)
    };
    let second = look(again.iter(), deadline);
    for socket in first.sockets.into_iter().chain(second.sockets) {
        if let Some(socket) = take(socket) {
            table.socket(socket, None);
        }
    }
    for place in again {
        table.place(place);
    }
    let mut missed = first.missed.max(second.missed);
    if !second.lost.is_empty() {
        missed = missed.max(Missed::Unread);
    }
    // It is gone, unless it is where nobody could look.
    if lost.iter().any(|inode| !second.settled.contains(inode)) {
        missed = missed.max(unread);
    }
    missed
}

/// What a look came to.
#[derive(Debug, Default)]
struct Looked {
    /// TCP sockets with a port.
    sockets: Vec<Holder>,
    /// Inodes of those that were asked, or are something else.
    settled: HashSet<u64>,
    /// Inodes of those that were no longer where they should be.
    lost: BTreeSet<u64>,
    missed: Missed,
}

/// Asks the sockets at these places, each once.
fn look<'a>(places: impl Iterator<Item = &'a Place>, deadline: Option<Instant>) -> Looked {
    let mut looked = Looked::default();
    let mut lender: Option<(u32, Result<Lender, Missed>)> = None;
    for &Place { inode, pid, fd } in places {
        let Some(fd) = fd.filter(|_| !looked.settled.contains(&inode)) else {
            continue;
        };
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            looked.missed = looked.missed.max(Missed::Unread);
            break;
        }
        match is_tcp(pid, fd, inode) {
            Ok(Some(true)) => {}
            Ok(Some(false)) => {
                looked.settled.insert(inode);
                continue;
            }
            Ok(None) => {
                looked.lost.insert(inode);
                continue;
            }
            Err(why) => {
                looked.missed = looked.missed.max(why);
                continue;
            }
        }
        if lender.as_ref().is_none_or(|(of, _)| *of != pid) {
            lender = Some((pid, Lender::open(pid)));
        }
        let copy = match &lender {
            Some((_, Ok(lender))) => lender.copy(fd, inode, None),
            Some((_, Err(why))) => Err(*why),
            None => continue,
        };
        match copy {
            Ok(copy) => match copy.tcp() {
                Ok(socket) => {
                    looked.settled.insert(inode);
                    looked.sockets.extend(socket);
                }
                Err(why) => looked.missed = looked.missed.max(why),
            },
            Err(Missed::Nothing) => {
                looked.lost.insert(inode);
            }
            Err(why) => looked.missed = looked.missed.max(why),
        }
    }
    let Looked { settled, lost, .. } = &mut looked;
    lost.retain(|inode| !settled.contains(inode));
    looked
}

/// Whether a descriptor is of a TCP socket, by the name of its protocol (net/socket.c,
/// `sockfs_xattr_get`): for that no copy is needed. `None`: it is not of this socket any more.
fn is_tcp(pid: u32, fd: u32, inode: u64) -> Result<Option<bool>, Missed> {
    use rustix::io::Errno;

    let missed = |error: Errno| match error {
        Errno::NOENT | Errno::SRCH => Ok(None),
        Errno::ACCESS | Errno::PERM => Err(Missed::Hidden),
        _ => Err(Missed::Unread),
    };
    let path = format!("/proc/{pid}/fd/{fd}");
    let mut name = [0u8; 16];
    let is_tcp = match rustix::fs::getxattr(&path, "system.sockprotoname", &mut name) {
        Ok(length) => {
            let name = name.get(..length).unwrap_or_default();
            name.starts_with(b"TCP") || name.starts_with(b"MPTCP")
        }
        // A longer name is another one; something that is no socket has none.
        Err(Errno::RANGE | Errno::NODATA | Errno::OPNOTSUPP) => false,
        Err(error) => return missed(error),
    };
    if is_tcp {
        // Whoever copies it looks whether it is the one.
        return Ok(Some(true));
    }
    match rustix::fs::readlink(&path, Vec::new()) {
        Ok(link) if link.as_bytes() == format!("socket:[{inode}]").as_bytes() => Ok(Some(false)),
        Ok(_) => Ok(None),
        Err(error) => missed(error),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::{
        net::UdpSocket,
        os::{
            fd::{AsRawFd, OwnedFd},
            unix::{fs::MetadataExt as _, net::UnixStream},
        },
    };

    use rustix::net::{AddressFamily, SocketType, bind};

    use super::*;
    use crate::event::TcpState;

    fn place(socket: &impl AsRawFd) -> Place {
        let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
        Place {
            inode: std::fs::metadata(path).unwrap().ino(),
            pid: std::process::id(),
            fd: u32::try_from(socket.as_raw_fd()).ok(),
        }
    }

    fn tcp() -> OwnedFd {
        rustix::net::socket(AddressFamily::INET6, SocketType::STREAM, None).unwrap()
    }

    fn bound() -> OwnedFd {
        let socket = tcp();
        let address: std::net::SocketAddrV6 = "[::1]:0".parse().unwrap();
        bind(&socket, &address).unwrap();
        socket
    }

    #[test]
    fn sockets_that_are_only_bound_are_found() {
        let (bound, unbound) = (bound(), tcp());
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (unix, _other) = UnixStream::pair().unwrap();
        let mut places = vec![place(&bound), place(&unbound), place(&udp), place(&unix)];
        // Of two descriptors of a socket one is enough.
        let again = bound.try_clone().unwrap();
        places.push(place(&again));
        let looked = look(places.iter(), None);
        assert_eq!((looked.missed, looked.lost.len()), (Missed::Nothing, 0));
        let [found] = &looked.sockets[..] else {
            panic!("{looked:?}");
        };
        assert_eq!(found.socket.inode, Some(place(&bound).inode));
        assert_eq!(found.state, TcpState::Closed);
    }

    #[test]
    fn one_that_has_moved_is_looked_for_again() {
        let socket = bound();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let here = place(&socket);
        let nowhere = Place {
            fd: Some(1_000_000),
            ..here
        };
        let others = Place {
            fd: place(&udp).fd,
            ..here
        };
        for moved in [nowhere, others] {
            let looked = look([moved].iter(), None);
            assert_eq!(looked.lost, BTreeSet::from([here.inode]), "{moved:?}");
            let mut table = Table::default();
            assert_eq!(add(&mut table, &[moved], Some), Missed::Nothing);
            let (rows, _) = table.finish();
            assert_eq!(rows.len(), 1, "{rows:?}");
            assert_eq!(rows[0].seen.len(), 1);
        }
        drop(socket);
        let mut table = Table::default();
        // That is gone for good: nothing is missed, but where some process could not be looked at.
        assert_ne!(add(&mut table, &[here], Some), Missed::Unread);
        assert_eq!(table.finish().0.len(), 0);
    }

    #[test]
    fn without_time_nothing_is_known_and_that_is_said() {
        let socket = bound();
        let looked = look([place(&socket)].iter(), Some(Instant::now()));
        assert_eq!((looked.sockets.len(), looked.missed), (0, Missed::Unread));
    }
}
