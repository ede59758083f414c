//! What the programs of `churn` count: automatic ports, by who took them and where they lead. User
//! space reads the tables where they lie; nothing goes through the ring.
//!
//! All counters only grow. They are added to atomically: programs of several CPUs share a row, and a
//! program in a softirq may come between the instructions of another.

/// How a port was taken, [`Key::how`].
pub mod how {
    /// By connect().
    pub const CONNECT: u8 = 1;
    /// By bind() to port 0, TCP.
    pub const BIND: u8 = 2;
    /// By listen() without bind().
    pub const LISTEN: u8 = 3;
    /// By connect() or a send on a UDP socket that was not bound.
    pub const AUTOBIND: u8 = 4;
    /// By bind() to port 0, UDP.
    pub const UDP_BIND: u8 = 5;
    /// Before portwatch looked.
    pub const BEFORE: u8 = 6;
    /// Slots of an array by these.
    pub const SLOTS: usize = 8;
}

/// What a port is taken from, how, and by whom.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// `TaskRecord::process_key` of the process; 0 where none is known.
    pub process: u64,
    /// Local address in network byte order, IPv4 in the first four bytes.
    pub local: [u64; 2],
    /// Peer's address, of how::CONNECT alone: no other choice of a port depends on it.
    pub peer: [u64; 2],
    /// Inode of the network namespace.
    pub netns: u32,
    /// Range of the socket (IP_LOCAL_PORT_RANGE): low | high << 16; 0 where it has none.
    pub range: u32,
    /// Peer's port, host byte order, as `peer`.
    pub peer_port: u16,
    /// AF_INET or AF_INET6.
    pub family: u16,
    /// IPPROTO_*, the low byte.
    pub transport: u8,
    /// One of [`how`].
    pub how: u8,
    /// Must be 0.
    pub reserved: u16,
}

const _: () = assert!(size_of::<Key>() == 56);

/// Counters of a row.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Ports taken.
    pub taken: u64,
    /// Ports that were held already when portwatch looked.
    pub found: u64,
    /// Ports given back, from TIME_WAIT or without.
    pub given: u64,
    /// Connections that have entered TIME_WAIT (or FIN_WAIT2 without a process, which the kernel keeps
    /// and counts in the same way), those that were in it when portwatch looked too.
    pub waited: u64,
    /// Of `given` those that came out of it.
    pub ended: u64,
    /// Times that no port was left.
    pub failed: u64,
    /// Odd ones of `taken` and `found`.
    pub odd: u64,
    /// Odd ones of `given`.
    pub odd_given: u64,
    /// Ports given back whose time of taking is known.
    pub timed: u64,
    /// The sum of the times these were held, ns.
    pub held: u64,
    /// Searches for a port by connect(), successful or not, whose beginning was seen.
    pub searches: u64,
    /// The sum of their times, ns.
    pub searched: u64,
}

/// The state of a row, [`Row::state`].
pub mod state {
    /// Nobody's.
    pub const FREE: u64 = 0;
    /// Filled in: counted in from now on.
    pub const READY: u64 = 1;
    /// Given up: its tuple gets another one, and what is counted here still is of ports that are held.
    pub const LEFT: u64 = 2;
}

/// One tuple and process.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// How many programs want it at this moment, or have it: 1 where it is somebody's.
    pub claims: u64,
    /// One of [`state`].
    pub state: u64,
    /// What it is about.
    pub key: Key,
    /// Name of the process.
    pub comm: [u8; 16],
    /// When the process started, CLOCK_BOOTTIME, ns.
    pub started: u64,
    /// Id of its cgroup; 0 where that is not known.
    pub cgroup: u64,
    /// Process id; 0 where none is known.
    pub pid: u32,
    /// Errno of the last failure, positive.
    pub errno: u32,
    /// What has happened.
    pub counts: Counts,
}

const _: () = assert!(size_of::<Row>() == 208);

/// The first rows are for what found no row of its own, one for each slot of a network namespace: summed,
/// not lost. Nothing but `counts` of them is meant.
pub const TAILS: u32 = PLACES;

/// Buckets of a histogram of times.
pub const BUCKETS: usize = 64;
/// Times below are in the first bucket: 2¹⁰ ns, a microsecond.
pub const LEAST_BITS: u32 = 10;

/// The bucket of a time in ns: two for each power of two.
#[must_use]
#[inline(always)]
pub const fn bucket(time: u64) -> usize {
    if time >> LEAST_BITS == 0 {
        return 0;
    }
    let log = 63 - time.leading_zeros();
    let half = (time >> (log - 1)) as u32 & 1;
    let at = ((log - LEAST_BITS) * 2 + half) as usize;
    if at < BUCKETS { at } else { BUCKETS - 1 }
}

/// One network namespace, on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Ports taken, by [`how`].
    pub taken: [u64; how::SLOTS],
    /// Ports given back, by how they were taken.
    pub given: [u64; how::SLOTS],
    /// Times that no port was left, by [`how`].
    pub failed: [u64; how::SLOTS],
    /// Connections that have entered TIME_WAIT, whatever their port.
    pub waited: u64,
    /// Connections that have left it.
    pub ended: u64,
    /// Ports taken that there was no room to remember.
    pub forgotten: u64,
    /// Of `taken` those that are odd.
    pub odd: u64,
    /// Times that ports were held, of those given back.
    pub held: [u64; BUCKETS],
    /// Times that connect() has searched for a port.
    pub searched: [u64; BUCKETS],
}

/// Network namespaces that are told apart; the first slot is for all others.
pub const PLACES: u32 = 256;

/// A port that is held, by the address of its socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Since when, CLOCK_BOOTTIME, ns; 0 where that is not known.
    pub since: u64,
    /// Index of the row.
    pub row: u32,
    /// The look at all sockets that has seen it, or that was the last when it was taken.
    pub look: u32,
    /// The port.
    pub port: u16,
    /// Slot of the network namespace.
    pub place: u16,
    /// One of [`how`].
    pub how: u8,
    /// 1: in TIME_WAIT.
    pub waits: u8,
    /// The bucket that it belongs to, see [`home`].
    pub home: u16,
}

const _: () = assert!(size_of::<Hold>() == 24);

/// A place for a port that is held.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// In the lower half how many programs want it at this moment, or have it: 1 where something is held. In the
    /// upper half [`ENDED`] while user space is taking it out, and how often it has been emptied.
    pub claims: u64,
    /// Address of the socket; 0 where nothing is held.
    pub sk: u64,
    /// The port.
    pub hold: Hold,
}

const _: () = assert!(size_of::<Slot>() == 40);

/// Bit of [`Slot::claims`].
pub const ENDED: u64 = 1 << 32;

/// Added to [`Slot::claims`] by who empties the slot, so that user space does not take what has come after for what
/// it has looked at.
pub const EMPTIED: u64 = ENDED << 1;

/// Places of a bucket.
pub const WAYS: usize = 8;

/// The places that a port can have.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    /// How many that belong here are in the hash table.
    pub spilled: u64,
    /// The places.
    pub slots: [Slot; WAYS],
}

const _: () = assert!(size_of::<Bucket>() == 328);

/// Buckets at most: 2.6 MiB.
pub const HOLD_BUCKETS: u32 = 1 << 13;

const _: () = assert!(HOLD_BUCKETS <= 1 << 16);

/// The bucket of a port, of so many.
#[must_use]
#[inline(always)]
pub const fn home(port: u32, buckets: u32) -> u32 {
    // Fibonacci hashing: the upper bits of the product spread numbers that follow each other evenly, and every
    // other one too, which connect() takes.
    ((port.wrapping_mul(0x9e37_79b9) as u64 * buckets as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    #![expect(clippy::indexing_slicing, reason = "tests panic")]
    use super::*;

    /// They find most of the buckets, and few of them the same one.
    #[test]
    fn ports_of_one_parity_spread() {
        let mut held = [0_u8; HOLD_BUCKETS as usize];
        for port in (32_768..61_000).step_by(2) {
            held[home(port, HOLD_BUCKETS) as usize] += 1;
        }
        let used = held.iter().filter(|&&count| count != 0).count();
        assert!(used > 7_000, "{used} buckets of 14,116 ports");
        assert!(held.iter().all(|&count| count <= 3));
    }
}
