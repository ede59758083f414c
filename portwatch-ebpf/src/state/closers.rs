//! Who closed which port: a note for each socket with a port whose last descriptor is closed. It tells
//! who left a TIME_WAIT, which has no process, and who had a port that is free again by the time its
//! owners are looked at.
//!
//! A slot by port and peer: of the sockets on a port without a peer (listening, bound) the last one that
//! was closed is here, of connections the last one with these ends.

use aya_ebpf::{macros::map, maps::Array};
use portwatch_ebpf::abi::record::TaskRecord;

use super::{
    notes::{self, Note, Who},
    takers,
};

/// Place, peer, inode.
type Closer = Note<3>;

const _: () = assert!(size_of::<Closer>() == 112);

#[map]
static CLOSERS: Array<Closer> = Array::with_max_entries(SLOTS, 0);

/// `present` of a note whose process stands among [`takers`]: no bit of a task.
const BY_TAKER: u32 = 1 << 31;

/// 1.75 MiB.
const SLOTS: u32 = 1 << 14;

/// Where a socket was.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    /// Inode of the network namespace.
    pub(crate) netns: u32,
    /// Local port, host byte order.
    pub(crate) port: u16,
    /// Peer port, network byte order; 0 without one.
    pub(crate) peer_port: u16,
    /// Both addresses in a word: see [`addresses`](portwatch_ebpf::abi::record::LastRecord::addresses).
    pub(crate) addresses: u64,
    /// Low byte of IPPROTO_*: the same of TCP and MPTCP.
    pub(crate) transport: u8,
}

impl Place {
    /// Different for different places, but for pairs of IPv6 addresses that give one word. The first word
    /// is never 0.
    #[inline(always)]
    fn key(self) -> [u64; 2] {
        let ports = u64::from(self.port) << 16 | u64::from(self.peer_port);
        let word = u64::from(self.netns) << 32 | ports;
        [word ^ transport_bits(self.transport) << 61, self.addresses]
    }
}

/// Three bits, different for the protocols that have ports. They go where they hide nothing: inodes of
/// namespaces begin at 0xefff_fff8 (include/uapi/linux/nsfs.h), before that at 0xf000_0000
/// (fs/proc/generic.c), so their first three bits are the same.
const fn transport_bits(transport: u8) -> u64 {
    (transport ^ transport >> 3) as u64 & 7
}

// include/uapi/linux/in.h: TCP, UDP, DCCP, SCTP, UDP-Lite
const _: () = assert!(
    (1u8 << transport_bits(6)
        | 1 << transport_bits(17)
        | 1 << transport_bits(33)
        | 1 << transport_bits(132)
        | 1 << transport_bits(136))
    .count_ones()
        == 5
);

/// The slot of a key. Without a peer the local address does not choose it.
#[inline(always)]
fn slot(key: [u64; 2]) -> Option<*mut Closer> {
    let [first, second] = key;
    let second = if has_peer(first) { second } else { 0 };
    // Fibonacci hashing: the upper bits of a product depend on all of the word.
    let word = (first ^ second.rotate_left(16)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    CLOSERS.get_ptr_mut((word >> 50) as u32 & (SLOTS - 1))
}

#[inline(always)]
fn has_peer(first: u64) -> bool {
    first as u16 != 0
}

/// Writes the note of a socket.
#[inline(always)]
pub(crate) fn note(place: Place, inode: u64, fill: impl FnOnce(&mut Who)) {
    let key = place.key();
    if let Some(slot) = slot(key) {
        // SAFETY: a slot of our map.
        unsafe { notes::write(slot, [key[0], key[1], inode], fill) };
    }
}

/// Writes the note of a socket that is closed, `at` that time, by the process that got its port: who that
/// is stands among [`takers`] already.
#[inline(always)]
pub(crate) fn note_taker(place: Place, inode: u64, leader: u64, at: u64) {
    let key = place.key();
    if let Some(slot) = slot(key) {
        // SAFETY: a slot of our map.
        unsafe {
            notes::write(slot, [key[0], key[1], inode], |closer| {
                closer.at = at;
                closer.leader = leader;
                closer.present = BY_TAKER;
            });
        }
    }
}

/// Copies the note of the last socket that was closed there, if it is there still; the bits of `present`
/// of its task, else 0. Without a peer the one on that port, whose addresses are the second value.
#[inline(always)]
pub(crate) fn copy(place: Place, closed: &mut u64, task: &mut TaskRecord) -> (u32, u64) {
    let [first, second] = place.key();
    let Some(slot) = slot([first, second]) else {
        return (0, 0);
    };
    // SAFETY: a slot of our map.
    let (addresses, inode) = unsafe { (notes::word::<1, _>(slot), notes::word::<2, _>(slot)) };
    let addresses = if has_peer(first) { second } else { addresses };
    // SAFETY: a slot of our map.
    let noted = unsafe { notes::copy(slot, [first, addresses, inode], closed, task) };
    if noted != BY_TAKER {
        return (noted, addresses);
    }
    let mut taken = 0;
    (takers::copy(inode, &mut taken, task), addresses)
}

/// The main thread of the process that closes, or has closed, this very socket; 0 where that is not noted.
#[inline(always)]
pub(crate) fn leader(place: Place, inode: u64) -> u64 {
    let key = place.key();
    // SAFETY: a slot of our map.
    slot(key).map_or(0, |slot| unsafe {
        notes::leader(slot, [key[0], key[1], inode])
    })
}
