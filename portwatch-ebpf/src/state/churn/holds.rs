//! Automatic ports that are held, by what holds them.
//!
//! A connection is told here four times (its port is taken, given back, or enters and leaves TIME_WAIT), and the
//! kernel's hash tables take some 250 instructions for a look and 400 for a change. So most are in places of our own, which
//! are found by a product, and only what finds those taken is in a hash table.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::map,
    maps::{Array, HashMap},
};
use portwatch_ebpf::abi::churn::{Bucket, GONE, HOLD_BUCKETS, Hold, Holder, Slot, WAYS};

use crate::kernel::{
    memory::{Memory, Ptr, add, config, nothing, number, offset},
    sock,
};

/// BPF_F_MMAPABLE (include/uapi/linux/bpf.h)
const MAPPED: u32 = 1 << 10;

#[map]
static HOLD_SLOTS: Array<Bucket> = Array::with_max_entries(HOLD_BUCKETS, MAPPED);

/// What found no place there, and what was held before: see [`keep_older`].
#[map]
static HOLDS: HashMap<Holder, Hold> = HashMap::with_max_entries(1 << 17, 0);

/// Not 0 for each port that was ever held, in whatever network namespace, and after these for each that was ever
/// in [`HOLDS`]: most sockets that give a port back are connections that came in, whose port nobody has to look for.
#[map]
static HELD_PORTS: Array<[u8; 2 * PORTS]> = Array::with_max_entries(1, 0);

const PORTS: usize = 1 << 16;

/// Which half of [`HELD_PORTS`].
#[derive(Clone, Copy)]
enum Held {
    Somewhere,
    InTable,
}

/// The number of the last look at all sockets; user space writes it before it looks.
#[map]
static LOOK: Array<u32> = Array::with_max_entries(1, 0);

/// EEXIST, as helpers return it.
const EXISTS: i32 = -17;

/// What came of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// It is remembered.
    New,
    /// It was already.
    Known,
    /// There is no room.
    Full,
}

/// Where a port is remembered.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    /// What is remembered.
    pub(crate) hold: *mut Hold,
    /// Null of one in the hash table.
    slot: *mut Slot,
}

/// A socket that need not have a connection.
#[inline(always)]
pub(crate) fn socket(sk: Ptr) -> Holder {
    Holder {
        ends: number(sk),
        ports: 0,
        hash: 0,
        netns: nothing() as u32,
        reserved: 0,
    }
}

/// A connection, by its socket or by what stays of it. None of these members changes between the return of
/// inet_hash_connect() and the end of TIME_WAIT (`inet_twsk_alloc` copies them), but by ip_dynaddr, which is off
/// unless somebody dials up (Documentation/networking/ip_dynaddr.rst): such a port is found gone by the next look.
#[inline(always)]
pub(crate) fn connection<M: Memory>(sk: Ptr) -> Holder {
    let [to, from] = [offset!(skc_daddr), offset!(skc_rcv_saddr)].map(|at| M::load::<u32>(sk, at));
    let peer_port = M::load::<u16>(sk, offset!(skc_dport));
    Holder {
        ends: u64::from(to) << 32 | u64::from(from),
        ports: u32::from(peer_port) << 16 | u32::from(sock::port::<M>(sk)),
        hash: M::load(sk, offset!(skc_hash)),
        netns: sock::netns::<M>(sk),
        reserved: 0,
    }
}

/// The byte of a port.
#[inline(always)]
fn held(port: u16, half: Held) -> Option<*mut u8> {
    let ports = HELD_PORTS.get_ptr_mut(0)?.cast::<u8>();
    // SAFETY: within our map: there is one for each number, twice.
    Some(unsafe { ports.add(half as usize * PORTS).add(port.into()) })
}

/// Whether it may be held, or was.
#[inline(always)]
fn was_held(port: u16, half: Held) -> bool {
    // SAFETY: a byte of our map.
    held(port, half).is_some_and(|byte| unsafe { byte.read_volatile() } != 0)
}

/// From now on it may.
#[inline(always)]
fn will_be_held(port: u16, half: Held) {
    if let Some(byte) = held(port, half) {
        // SAFETY: as above; only ever set.
        unsafe { byte.write_volatile(1) };
    }
}

/// Whether anything may hold that port, or have held it.
#[inline(always)]
pub(crate) fn may_be_held(port: u16) -> bool {
    was_held(port, Held::Somewhere)
}

/// The places that a holder can have.
#[inline(always)]
fn places(holder: &Holder) -> Option<*mut Slot> {
    let Holder {
        ends,
        ports,
        hash,
        netns: _,
        reserved: _,
    } = *holder;
    // Fibonacci hashing: the upper bits of a product depend on all of the word.
    let word = ends ^ u64::from(ports).rotate_left(32) ^ u64::from(hash);
    let bucket = (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 51) as u32
        & config!(hold_buckets).wrapping_sub(1);
    HOLD_SLOTS.get_ptr_mut(bucket).map(<*mut Bucket>::cast)
}

const _: () = assert!(HOLD_BUCKETS == 1 << (64 - 51));

/// The one of these places that a holder has.
#[inline(always)]
fn among(slots: *mut Slot, holder: &Holder) -> Option<*mut Slot> {
    const { assert!(size_of::<Holder>() == 3 * 8) };
    let wanted = (&raw const *holder).cast::<u64>();
    // SAFETY: whole words of it.
    let [ends, second, third] =
        unsafe { [wanted.read(), wanted.add(1).read(), wanted.add(2).read()] };
    for way in 0..WAYS {
        // SAFETY: a slot of the bucket, and whole words of it.
        unsafe {
            let slot = slots.add(way);
            let there = (&raw const (*slot).holder).cast::<u64>();
            if there.read_volatile() != ends {
                continue;
            }
            // Together: see `rows::is_of`.
            let differ =
                there.add(1).read_volatile() ^ second | there.add(2).read_volatile() ^ third;
            if differ != 0 {
                continue;
            }
            if (&raw const (*slot).hold.look).read_volatile() == GONE {
                continue;
            }
            return Some(slot);
        }
    }
    None
}

/// Makes one of these places a holder's.
#[inline(always)]
fn claim(slots: *mut Slot, holder: &Holder, hold: &Hold) -> Option<*mut Slot> {
    for way in 0..WAYS {
        // SAFETY: a slot of the bucket. Whoever has added the only claim, and nobody else, writes it until it takes its
        // claim back.
        unsafe {
            let slot = slots.add(way);
            let claims = &raw mut (*slot).claims;
            if claims.read_volatile() != 0 {
                continue;
            }
            add(claims, 1);
            // A full barrier on x86: of two at least one sees the other (see `state::calls`).
            if claims.read_volatile() == 1 {
                (&raw mut (*slot).hold).write_volatile(*hold);
                (&raw mut (*slot).holder).write_volatile(*holder);
                return Some(slot);
            }
            add(claims, u64::MAX);
        }
    }
    None
}

/// Empties a place that is somebody's.
#[inline(always)]
fn empty(slot: *mut Slot) {
    // SAFETY: a slot of our map, which its holder has until the last line.
    unsafe {
        let holder = &raw mut (*slot).holder;
        (&raw mut (*holder).ends).write_volatile(0);
        (&raw mut (*holder).ports).write_volatile(0);
        add(&raw mut (*slot).claims, u64::MAX);
    }
}

/// Puts it into the hash table.
#[inline(always)]
fn spill(holder: &Holder, hold: &Hold) -> Kept {
    will_be_held(hold.port, Held::InTable);
    match HOLDS.insert(holder, hold, u64::from(BPF_NOEXIST)) {
        Ok(()) => Kept::New,
        Err(EXISTS) => Kept::Known,
        Err(_) => Kept::Full,
    }
}

/// Remembers that a port is held from now on. Who calls has the lock of the socket.
#[inline(always)]
pub(crate) fn keep(holder: &Holder, hold: &Hold) -> Kept {
    will_be_held(hold.port, Held::Somewhere);
    let Some(slots) = places(holder) else {
        return spill(holder, hold);
    };
    if among(slots, holder).is_some() {
        return Kept::Known;
    }
    let Some(slot) = claim(slots, holder, hold) else {
        return spill(holder, hold);
    };
    // SAFETY: a word of our map. It is a barrier between what was written there and what is read here: see `keep_older`.
    unsafe { add(&raw mut (*slot).claims, 0) };
    if was_held(hold.port, Held::InTable) && HOLDS.remove(holder).is_ok() {
        return Kept::Known;
    }
    Kept::New
}

/// Remembers a port that a look at all sockets has found. It may be taken at the same moment, and [`keep`] not have
/// been called yet: so this goes into the hash table and that into its place, each looks at the other's afterwards, and who
/// has taken the entry out of the hash table leaves it to the other to count it.
#[inline(always)]
pub(crate) fn keep_older(holder: &Holder, hold: &Hold) -> Kept {
    will_be_held(hold.port, Held::Somewhere);
    let kept = spill(holder, hold);
    // The insertion was under a lock: a barrier.
    if kept == Kept::New
        && places(holder).is_some_and(|slots| among(slots, holder).is_some())
        && HOLDS.remove(holder).is_ok()
    {
        return Kept::Known;
    }
    kept
}

/// What is remembered of it and its port. Only who has the lock of its socket, or has just found it in TIME_WAIT,
/// takes it out.
#[inline(always)]
pub(crate) fn of(holder: &Holder, port: u16) -> Option<Place> {
    let place = in_slot(holder);
    if place.is_some() {
        return place;
    }
    if was_held(port, Held::InTable) {
        in_table(holder)
    } else {
        None
    }
}

/// The same, whatever its port.
#[inline(always)]
pub(crate) fn anywhere(holder: &Holder) -> Option<Place> {
    in_slot(holder).or_else(|| in_table(holder))
}

#[inline(always)]
fn in_slot(holder: &Holder) -> Option<Place> {
    let slot = places(holder).and_then(|slots| among(slots, holder))?;
    // SAFETY: a member of a slot of our map.
    let hold = unsafe { &raw mut (*slot).hold };
    Some(Place { hold, slot })
}

#[inline(always)]
fn in_table(holder: &Holder) -> Option<Place> {
    HOLDS.get_ptr_mut(holder).map(|hold| Place {
        hold,
        slot: core::ptr::null_mut(),
    })
}

/// Forgets it.
#[inline(always)]
pub(crate) fn drop(holder: &Holder, place: Place) {
    if place.slot.is_null() {
        let _ = HOLDS.remove(holder);
    } else {
        empty(place.slot);
    }
}

/// The number of the last look.
#[inline(always)]
pub(crate) fn look() -> u32 {
    match LOOK.get_ptr(0) {
        // SAFETY: a word of our map, which user space writes.
        Some(look) => unsafe { look.read_volatile() },
        None => 0,
    }
}
