//! Sockets that were looked up, joined with the names of their processes.

use std::{collections::HashMap, io, time::Instant};

use super::{options, table::Row};
use crate::{
    enrich::{
        clock::Clock,
        descriptors::{Entry, OpenTable},
        ephemeral,
        image::Images,
        netns::{self, Namespaces},
        owners::INIT,
        process::Processes,
        service::Services,
        socket_unit::SocketUnits,
        task,
    },
    event::{Listing, Occupant, Owner, PortFacts, Task, Time},
    host::namespaces::{self, Kind},
};

/// Joins them.
#[derive(Debug)]
pub struct Lister {
    clock: Clock,
    processes: Processes,
    services: Services,
    namespaces: Namespaces,
    units: SocketUnits,
    own: Option<u32>,
}

impl Lister {
    /// `numeric`: no names of services and users.
    ///
    /// # Errors
    /// Clocks that cannot be read.
    pub fn new(numeric: bool) -> io::Result<Self> {
        Ok(Self {
            clock: Clock::new()?,
            processes: Processes::new(numeric, true),
            services: if numeric {
                Services::default()
            } else {
                Services::read()
            },
            namespaces: Namespaces::new(),
            units: SocketUnits::default(),
            own: namespaces::inode(Kind::Net).and_then(|inode| u32::try_from(inode).ok()),
        })
    }

    /// Both clocks now.
    ///
    /// # Errors
    /// A clock that cannot be read.
    pub fn now(&self) -> io::Result<Time> {
        self.clock.now()
    }

    /// Names the processes of sockets, and completes their options; `before`: what they ran before the
    /// sockets were looked up; `complete`: every process was looked at.
    ///
    /// # Errors
    /// A clock that cannot be read.
    pub fn list(
        &mut self,
        mut rows: Vec<Row>,
        before: &Images,
        complete: bool,
    ) -> io::Result<Vec<Listing>> {
        let now = Now {
            boot: self.now()?.boot,
            instant: Instant::now(),
        };
        let name = |rows: &[Row]| self.occupants(rows, before);
        // What is missed stays unknown, and each socket says so.
        let (_, occupants) = options::complete(&mut rows, options::PATIENCE, name);
        let mut places = Places::new();
        Ok(rows
            .into_iter()
            .zip(occupants)
            .map(|(row, processes)| self.listing(row, processes, complete, now, &mut places))
            .collect())
    }

    fn listing(
        &mut self,
        row: Row,
        processes: Vec<Occupant>,
        complete: bool,
        now: Now,
        places: &mut Places,
    ) -> Listing {
        let Row {
            socket,
            seen: _,
            ends,
        } = row;
        let netns = socket.socket.netns;
        // Through one of its processes, or by a name.
        let nobody = Task::default();
        let task = processes.first().map_or(&nobody, |occupant| &occupant.task);
        let place = netns.map_or_else(netns::Place::default, |netns| {
            let device = socket.socket.device;
            let asked = places.entry((netns, device, task.pid));
            asked
                .or_insert_with(|| self.namespaces.place(netns, task, device, now.boot))
                .clone()
        });
        let peer = socket.peer.and_then(|peer| peer.port);
        let owner = Owner {
            since: None,
            closer: None,
            expires: ends.map(|ends| self.clock.time(now.boot_at(ends))),
            incomplete: !complete,
            parent: None,
            creator: None,
            local: PortFacts {
                ephemeral: ephemeral(socket.local.port, place.range),
                ..self.services.facts(socket.transport, socket.local.port)
            },
            peer: self.services.facts(socket.transport, peer),
            interface: place.interface.map(|name| (*name).to_owned()),
            systemd_unit: processes.first().and_then(|first| {
                if first.task.pid == INIT {
                    self.units.of(&socket)
                } else {
                    first.process.systemd_unit.clone()
                }
            }),
            processes,
        };
        Listing {
            socket,
            owner,
            elsewhere: netns.is_some() && netns != self.own,
        }
    }

    /// The processes that have each socket still, in order of pid, pid 1 last. Each process is read once:
    /// there may be thousands of sockets of one.
    fn occupants(&mut self, rows: &[Row], before: &Images) -> Vec<Vec<Occupant>> {
        let mut occupants = vec![Vec::new(); rows.len()];
        for of_process in by_process(rows).chunk_by(|one, other| one.pid == other.pid) {
            let Some(pid) = of_process.first().map(|place| place.pid) else {
                continue;
            };
            // Its pid may become another's, or exec close the descriptor. So the table is opened before the
            // names are read, and read after that; unless nothing of the kind has happened.
            let Some(table) = OpenTable::of(pid) else {
                continue;
            };
            let Some(task) = task::of(pid) else {
                continue;
            };
            let process = self.processes.of(&task, u64::MAX, &self.clock);
            let is_same = before.still(pid);
            for of_socket in of_process.chunk_by(|one, other| one.row == other.row) {
                let has_it = is_same
                    || of_socket.iter().any(|place| {
                        place
                            .fd
                            .is_none_or(|fd| table.has(fd, place.inode) != Some(false))
                    });
                let row = of_socket
                    .first()
                    .and_then(|place| occupants.get_mut(place.row));
                if let Some(row) = row.filter(|_| has_it) {
                    row.push(Occupant {
                        task: task.clone(),
                        process: process.clone(),
                    });
                }
            }
        }
        for of_socket in &mut occupants {
            of_socket.sort_by_key(|occupant| (occupant.task.pid == INIT, occupant.task.pid));
        }
        occupants
    }
}

/// What is known already in this look of a namespace and one of its interfaces, through a process: whether
/// that is still in it is asked once, not for each of its sockets.
type Places = HashMap<(u32, Option<u32>, u32), netns::Place>;

/// Where to look whether a process has a socket still.
#[must_use]
pub fn entries(rows: &[Row]) -> Vec<Entry> {
    let of_row = |row: &Row| {
        let inode = row.socket.socket.inode;
        let seen = row.seen.iter();
        seen.filter_map(|seen| {
            Some(Entry {
                inode: inode?,
                pid: seen.pid,
                fd: seen.fd?,
            })
        })
        .collect::<Vec<_>>()
    };
    rows.iter().flat_map(of_row).collect()
}

/// The same moment on two clocks.
#[derive(Clone, Copy, Debug)]
struct Now {
    /// CLOCK_BOOTTIME, ns.
    boot: u64,
    instant: Instant,
}

impl Now {
    /// CLOCK_BOOTTIME at a moment to come, ns.
    fn boot_at(self, moment: Instant) -> u64 {
        let left = moment.saturating_duration_since(self.instant);
        let left = u64::try_from(left.as_nanos()).unwrap_or(u64::MAX);
        self.boot.saturating_add(left)
    }
}

/// Where a process has a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    pid: u32,
    row: usize,
    inode: u64,
    fd: Option<u32>,
}

/// All places of the sockets, those of one process together.
fn by_process(rows: &[Row]) -> Vec<Place> {
    let mut places = Vec::with_capacity(rows.len());
    for (row, Row { socket, seen, .. }) in rows.iter().enumerate() {
        let inode = socket.socket.inode.unwrap_or_default();
        places.extend(seen.iter().map(|seen| Place {
            pid: seen.pid,
            row,
            inode,
            fd: seen.fd,
        }));
    }
    places.sort_unstable();
    places
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::{net::UdpSocket, os::fd::AsRawFd as _, os::unix::fs::MetadataExt as _};

    use super::*;
    use crate::{
        event::{Endpoint, Family, Holder, Socket, TcpState, Transport},
        sockets::table::Seen,
    };

    fn row(socket: &UdpSocket, seen: Vec<Seen>) -> Row {
        let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
        Row {
            socket: Holder {
                socket: Socket {
                    inode: Some(std::fs::metadata(path).unwrap().ino()),
                    ..Socket::default()
                },
                ..Holder::new(
                    Transport::Udp,
                    Family::Ipv4,
                    TcpState::Closed,
                    Endpoint {
                        address: None,
                        port: Some(socket.local_addr().unwrap().port()),
                    },
                )
            },
            seen,
            ends: None,
        }
    }

    fn pids(lister: &mut Lister, row: Row) -> Vec<u32> {
        let listings = lister.list(vec![row], &Images::default(), true).unwrap();
        let processes = &listings[0].owner.processes;
        processes.iter().map(|one| one.task.pid).collect()
    }

    #[test]
    fn a_process_is_named_if_it_has_the_socket_still() {
        let mut lister = Lister::new(true).unwrap();
        let (one, other) = (
            UdpSocket::bind("127.0.0.1:0").unwrap(),
            UdpSocket::bind("127.0.0.1:0").unwrap(),
        );
        let own = std::process::id();
        let at = |socket: &UdpSocket| Seen {
            pid: own,
            fd: u32::try_from(socket.as_raw_fd()).ok(),
        };
        assert_eq!(pids(&mut lister, row(&one, vec![at(&one)])), [own]);
        // As if the descriptor had been closed, and its number given out again.
        assert_eq!(pids(&mut lister, row(&one, vec![at(&other)])), [0u32; 0]);
        // Seen twice, of which one is gone.
        let both = vec![at(&one), at(&other)];
        assert_eq!(pids(&mut lister, row(&one, both)), [own]);
        // Not to be looked at again.
        let of_thread = Seen { pid: own, fd: None };
        assert_eq!(pids(&mut lister, row(&one, vec![of_thread])), [own]);
        let gone = Seen {
            pid: 4_194_305,
            fd: Some(3),
        };
        assert_eq!(pids(&mut lister, row(&one, vec![gone])), [0u32; 0]);
    }

    #[test]
    fn a_socket_whose_owner_may_be_hidden_says_so() {
        let mut lister = Lister::new(true).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut listing = |row, complete| {
            lister
                .list(vec![row], &Images::default(), complete)
                .unwrap()
                .remove(0)
        };
        let hidden = listing(row(&socket, vec![]), false);
        assert!(hidden.is_hidden());
        assert_eq!(
            hidden.missing(),
            ["process", "socket.reuseaddr", "socket.reuseport"]
        );
        let nobodys = listing(row(&socket, vec![]), true);
        assert!(!nobodys.is_hidden());
        assert_eq!(nobodys.missing(), ["socket.reuseaddr", "socket.reuseport"]);
        let mut ended = row(&socket, vec![]);
        ended.socket.socket.inode = None;
        ended.socket.remnant = true;
        assert_eq!(listing(ended, false).missing(), [""; 0]);
    }

    #[test]
    fn time_wait_ends_when_the_kernel_says() {
        let mut lister = Lister::new(true).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let now = lister.now().unwrap().boot;
        let mut ended = row(&socket, vec![]);
        ended.ends = Some(Instant::now() + std::time::Duration::from_secs(30));
        let listings = lister.list(vec![ended], &Images::default(), true).unwrap();
        let left = listings[0].owner.expires.unwrap().boot - now;
        assert!((29..=31).contains(&(left / 1_000_000_000)), "{left}");
    }
}
