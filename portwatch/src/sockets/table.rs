//! Sockets and their processes, from two sides: descriptors, which know processes but no socket without
//! one, and sock_diag, which knows sockets but no process. Pure.

use std::{collections::HashMap, time::Instant};

use crate::{
    enrich::descriptors::Place,
    event::{Descriptor, Holder, Socket, SocketOptions},
};

/// Sockets at most: some 100 MB. Who asks for one port gets by with a few.
pub const LIMIT: usize = 250_000;

/// A socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The socket, with its network namespace.
    pub socket: Holder,
    /// Descriptors of it: in order of process, none twice.
    pub seen: Vec<Seen>,
    /// When it leaves TIME_WAIT.
    pub ends: Option<Instant>,
}

/// A descriptor of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    /// Process, by its pid in our pid namespace.
    pub pid: u32,
    /// The descriptor; `None` where `/proc/PID/fd` does not show it.
    pub fd: Option<u32>,
}

/// What tells a socket from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Identity {
    /// Of sockets with a file or a place for one (net/socket.c): sockfs gives no number twice at a time.
    Inode(u64),
    /// Of the others.
    Cookie(u64),
}

impl Identity {
    fn of(socket: &Holder) -> Option<Self> {
        let inode = socket.socket.inode.map(Self::Inode);
        inode.or_else(|| socket.socket.cookie.map(Self::Cookie))
    }
}

/// The sockets found so far.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Row>,
    places: HashMap<Identity, usize>,
    limit: usize,
    left_out: usize,
}

impl Default for Table {
    fn default() -> Self {
        Self::with_limit(LIMIT)
    }
}

impl Table {
    fn with_limit(limit: usize) -> Self {
        Self {
            rows: Vec::new(),
            places: HashMap::new(),
            limit,
            left_out: 0,
        }
    }

    /// A descriptor, with what its socket was when it was seen.
    pub fn descriptor(&mut self, descriptor: Descriptor) {
        let Descriptor {
            pid,
            fd,
            of_thread,
            socket,
        } = descriptor;
        let seen = Seen {
            pid,
            fd: (!of_thread).then_some(fd),
        };
        if let Some(row) = self.row(socket) {
            row.seen.push(seen);
        }
    }

    /// A descriptor of which only the inode of the socket is known; nothing where that is not here.
    pub fn place(&mut self, place: Place) {
        let Place { inode, pid, fd } = place;
        let place = self.places.get(&Identity::Inode(inode));
        if let Some(row) = place.and_then(|&place| self.rows.get_mut(place)) {
            row.seen.push(Seen { pid, fd });
        }
    }

    /// A socket as sock_diag shows it. Of one that is here already, it tells the cookie, and options that
    /// the other side does not know. `ends`: when it leaves TIME_WAIT.
    pub fn socket(&mut self, socket: Holder, ends: Option<Instant>) {
        let Socket {
            cookie,
            options:
                SocketOptions {
                    v6only,
                    freebind,
                    transparent,
                    bind_no_port,
                    ..
                },
            ..
        } = socket.socket;
        if let Some(row) = self.row(socket) {
            let own = &mut row.socket.socket;
            own.cookie = own.cookie.or(cookie);
            let known = &mut own.options;
            known.v6only = known.v6only.or(v6only);
            known.freebind = known.freebind.or(freebind);
            known.transparent = known.transparent.or(transparent);
            known.bind_no_port = known.bind_no_port.or(bind_no_port);
            row.ends = ends;
        }
    }

    /// The row of a socket, new if there is none; `None` where there is no room.
    fn row(&mut self, socket: Holder) -> Option<&mut Row> {
        let identity = Identity::of(&socket);
        let place = identity.and_then(|identity| self.places.get(&identity).copied());
        let place = match place {
            Some(place) => place,
            None if self.rows.len() < self.limit => {
                let place = self.rows.len();
                if let Some(identity) = identity {
                    self.places.insert(identity, place);
                }
                self.rows.push(Row {
                    socket,
                    seen: Vec::new(),
                    ends: None,
                });
                place
            }
            None => {
                self.left_out += 1;
                return None;
            }
        };
        self.rows.get_mut(place)
    }

    /// Inodes of the sockets found so far.
    #[must_use]
    pub fn inodes(&self) -> Vec<u64> {
        let rows = self.rows.iter();
        rows.filter_map(|row| row.socket.socket.inode).collect()
    }

    /// Inodes of those that nobody was seen to have.
    #[must_use]
    pub fn unowned(&self) -> Vec<u64> {
        let rows = self.rows.iter().filter(|row| row.seen.is_empty());
        rows.filter_map(|row| row.socket.socket.inode).collect()
    }

    /// All of it, and how many sockets there was no room for, at least.
    #[must_use]
    pub fn finish(mut self) -> (Vec<Row>, usize) {
        for row in &mut self.rows {
            row.seen.sort_unstable();
            row.seen.dedup();
        }
        (self.rows, self.left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Endpoint, Family, TcpState, Transport};

    fn socket(inode: Option<u64>, cookie: Option<u64>) -> Holder {
        Holder {
            socket: Socket {
                inode,
                cookie,
                ..Socket::default()
            },
            ..Holder::new(
                Transport::Tcp,
                Family::Ipv4,
                TcpState::Listen,
                Endpoint {
                    address: None,
                    port: Some(80),
                },
            )
        }
    }

    fn descriptor(pid: u32, fd: u32, inode: u64) -> Descriptor {
        Descriptor {
            pid,
            fd,
            of_thread: false,
            socket: Holder {
                chose_port: true,
                ..socket(Some(inode), None)
            },
        }
    }

    fn seen(pid: u32, fd: u32) -> Seen {
        Seen { pid, fd: Some(fd) }
    }

    #[test]
    fn one_socket_of_several_processes_is_one_row() {
        let mut table = Table::default();
        for (pid, fd) in [(20, 3), (10, 3), (10, 7), (20, 3)] {
            table.descriptor(descriptor(pid, fd, 7));
        }
        table.descriptor(descriptor(20, 4, 8));
        table.descriptor(Descriptor {
            of_thread: true,
            ..descriptor(30, 5, 7)
        });
        let (rows, left_out) = table.finish();
        assert_eq!((rows.len(), left_out), (2, 0));
        let of_thread = Seen { pid: 30, fd: None };
        assert_eq!(
            rows[0].seen,
            [seen(10, 3), seen(10, 7), seen(20, 3), of_thread]
        );
        assert_eq!(rows[1].seen, [seen(20, 4)]);
    }

    #[test]
    fn what_sock_diag_shows_is_joined_by_inode_and_else_added() {
        let mut table = Table::default();
        let mut seen = descriptor(10, 3, 7);
        seen.socket.socket.options.reuseaddr = Some(true);
        table.descriptor(seen);
        let mut listed = socket(Some(7), Some(70));
        listed.socket.options.freebind = Some(true);
        table.socket(listed, None);
        table.socket(socket(None, Some(80)), None);
        table.socket(socket(None, Some(80)), None);
        table.socket(socket(None, None), None);
        table.socket(socket(None, None), None);
        let (rows, _) = table.finish();
        assert_eq!(rows.len(), 4);
        assert_eq!(rows[0].socket.socket.cookie, Some(70));
        assert!(rows[0].socket.chose_port, "what only the other side tells");
        let options = rows[0].socket.socket.options;
        assert_eq!(
            (options.reuseaddr, options.freebind),
            (Some(true), Some(true))
        );
        assert!(rows[1..].iter().all(|row| row.seen.is_empty()));
    }

    #[test]
    fn descriptors_without_a_socket_lead_nowhere() {
        let mut table = Table::default();
        table.socket(socket(Some(7), None), None);
        assert_eq!(table.inodes(), [7]);
        assert_eq!(table.unowned(), [7]);
        for (inode, fd) in [(7, Some(3)), (9, Some(4)), (7, None)] {
            table.place(Place { inode, pid: 10, fd });
        }
        assert_eq!(table.unowned(), [0u64; 0]);
        let (rows, _) = table.finish();
        assert_eq!(rows.len(), 1);
        let of_thread = Seen { pid: 10, fd: None };
        assert_eq!(rows[0].seen, [of_thread, seen(10, 3)]);
    }

    #[test]
    fn there_is_an_end_to_it() {
        let mut table = Table::with_limit(3);
        for inode in 1..=5 {
            table.descriptor(descriptor(10, 3, inode));
        }
        // One that is there gets its processes still.
        table.descriptor(descriptor(11, 3, 2));
        let (rows, left_out) = table.finish();
        assert_eq!((rows.len(), left_out), (3, 2));
        assert_eq!(rows[1].seen.len(), 2);
    }
}
