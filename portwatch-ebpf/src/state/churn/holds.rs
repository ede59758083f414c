//! Automatic ports that are held, by the address of the socket that has each: its own, then that of what
//! the kernel keeps of it in TIME_WAIT.
//!
//! A connection is told here up to six times, and the kernel's hash tables take some 250 instructions for a look
//! and 400 for a change. So those of connections are in places of our own, side by side in a bucket. What finds those
//! taken, or is told of without the socket's lock, is in a hash table; a bucket says how much of its own is there. The
//! bucket is that of the port, which a socket and what stays of it have in common: only the address in its place
//! changes then.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::map,
    maps::{Array, HashMap},
};
use portwatch_ebpf::abi::churn::{self, Bucket, Hold, Slot};

use super::slots::{among, bucket, claim, empty, reclaim, spilled};
use crate::kernel::memory::{Ptr, add, config};

/// What found no place there, and what [`keep_unlocked`] was called for.
#[map]
static HOLDS: HashMap<u64, Hold> = HashMap::with_max_entries(1 << 17, 0);

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
    /// The socket has a port already.
    Known,
    /// There is no room.
    Full,
}

/// Whose port it is.
#[derive(Clone, Copy)]
pub(crate) struct Holder {
    /// The address that it goes by.
    sk: u64,
    /// What its bucket is found by: the same as long as it has the port.
    at: u32,
    /// 0 where it has none yet.
    port: u16,
}

impl Holder {
    /// A socket, or what stays of one, that has this port.
    #[inline(always)]
    pub(crate) fn of_port(sk: Ptr, port: u16) -> Self {
        Self {
            sk: sk as u64,
            at: u32::from(port),
            port,
        }
    }

    /// A socket that has none yet.
    #[inline(always)]
    pub(crate) fn without_port(sk: Ptr) -> Self {
        // Sockets lie a thousand bytes or two apart.
        Self {
            sk: sk as u64,
            at: (sk as u64 >> 8) as u32,
            port: 0,
        }
    }

    /// The number of its bucket.
    #[inline(always)]
    fn home(self) -> u32 {
        churn::home(self.at, config!(hold_buckets))
    }

    /// Whether this is its own, and not that of a socket that had the same address: the end of that one was missed.
    #[inline(always)]
    fn has(self, hold: *const Hold) -> bool {
        // SAFETY: words of an entry of our map.
        let (port, home) = unsafe {
            (
                (&raw const (*hold).port).read_volatile(),
                (&raw const (*hold).home).read_volatile(),
            )
        };
        u32::from(home) == self.home() && (self.port == 0 || port == self.port)
    }
}

/// Where a port is remembered.
#[derive(Clone, Copy)]
pub(crate) struct Found {
    /// What is remembered.
    pub(crate) hold: *mut Hold,
    /// Null of one in the hash table.
    slot: *mut Slot,
}

/// Puts it into the hash table. What a socket of the same address has left there goes to `gone`.
#[inline(always)]
fn spill(holder: Holder, bucket: *mut Bucket, hold: &Hold, gone: impl FnOnce(&Hold)) -> Kept {
    let sk = holder.sk;
    // SAFETY: a word of our map.
    unsafe { add(&raw mut (*bucket).spilled, 1) };
    let mut inserted = HOLDS.insert(sk, hold, u64::from(BPF_NOEXIST));
    if inserted == Err(EXISTS)
        && let Some(other) = HOLDS.get_ptr_mut(sk)
    {
        if holder.has(other) {
            // Who finds it is alive.
            // SAFETY: a word of an entry of our map.
            unsafe { (&raw mut (*other).look).write_volatile(hold.look) };
        } else {
            // SAFETY: an entry of our map, which goes below.
            let other = unsafe { *other };
            if unspill(sk, other.home) {
                gone(&other);
            }
            inserted = HOLDS.insert(sk, hold, u64::from(BPF_NOEXIST));
        }
    }
    let kept = match inserted {
        Ok(()) => return Kept::New,
        Err(EXISTS) => Kept::Known,
        Err(_) => Kept::Full,
    };
    // SAFETY: as above.
    unsafe { add(&raw mut (*bucket).spilled, u64::MAX) };
    kept
}

/// Takes it out of the hash table, where it counts for that bucket; whether it was there.
#[inline(always)]
fn unspill(sk: u64, home: u16) -> bool {
    if HOLDS.remove(sk).is_err() {
        return false;
    }
    if let Some(bucket) = bucket(home.into()) {
        // SAFETY: a word of our map.
        unsafe { add(&raw mut (*bucket).spilled, u64::MAX) };
    }
    true
}

/// Remembers that a socket has a port. Who calls has its lock. What a socket of the same address has left goes to
/// `gone`.
#[inline(always)]
pub(crate) fn keep(holder: Holder, hold: Hold, gone: impl FnOnce(&Hold)) -> Kept {
    let home = holder.home();
    let Some(bucket) = bucket(home) else {
        return Kept::Full;
    };
    let mut hold = Hold {
        home: home as u16,
        ..hold
    };
    let sk = holder.sk;
    if let Some(slot) = among(bucket, sk) {
        // SAFETY: a member of a slot of our map.
        let other = unsafe { &raw mut (*slot).hold };
        if holder.has(other) {
            return Kept::Known;
        }
        // SAFETY: an entry of our map, which goes below.
        let other = unsafe { *other };
        return if empty(slot, sk) {
            gone(&other);
            // Who is a stranger here is none in the hash table.
            spill(holder, bucket, &hold, |_| {})
        } else {
            spill(holder, bucket, &hold, gone)
        };
    }
    let Some(slot) = claim(bucket, sk, &hold) else {
        return spill(holder, bucket, &hold, gone);
    };
    // SAFETY: a word of our map. It is a barrier between what was written there and what is read here: see
    // `keep_unlocked`.
    unsafe { add(&raw mut (*slot).claims, 0) };
    if spilled(bucket) == 0 {
        return Kept::New;
    }
    let Some(other) = HOLDS.get_ptr(sk) else {
        return Kept::New;
    };
    // SAFETY: an entry of our map. Only one can take it out, and only then is it used.
    let other = unsafe { *other };
    if !unspill(sk, other.home) {
        return Kept::New;
    }
    if !holder.has(&raw const other) {
        gone(&other);
        return Kept::New;
    }
    // It is counted where the look has found it, so it has to be given back there. Another look may have begun.
    hold = Hold {
        look: other.look.max(hold.look),
        ..other
    };
    // User space may have taken it out, if this took longer than a look.
    if reclaim(slot, sk) {
        // SAFETY: a slot of ours.
        unsafe {
            (&raw mut (*slot).hold).write_volatile(hold);
            add(&raw mut (*slot).claims, u64::MAX);
        }
    }
    Kept::Known
}

/// The same for who has not its lock: two programs may tell of one socket at the same moment, [`keep`] may have been
/// called for it, or not have been called yet. So this goes into the hash table, which takes one of two, and that into
/// its place; each looks at the other's afterwards, and who has taken the entry out of the hash table leaves it to
/// the other to count it.
#[inline(always)]
pub(crate) fn keep_unlocked(holder: Holder, hold: Hold, gone: impl FnOnce(&Hold)) -> Kept {
    let home = holder.home();
    let Some(bucket) = bucket(home) else {
        return Kept::Full;
    };
    let hold = Hold {
        home: home as u16,
        ..hold
    };
    let sk = holder.sk;
    let kept = spill(holder, bucket, &hold, gone);
    if kept != Kept::New {
        return kept;
    }
    // SAFETY: a word of our map. A barrier between what was inserted and what is read.
    unsafe { add(&raw mut (*bucket).spilled, 0) };
    let Some(slot) = among(bucket, sk) else {
        return kept;
    };
    // SAFETY: a member of a slot of our map.
    if !holder.has(unsafe { &raw const (*slot).hold }) || !unspill(sk, hold.home) {
        return kept;
    }
    // What took it may have asked for the number before this look began.
    // SAFETY: a word of our map; should it become another's at this moment, that one was taken since.
    unsafe { (&raw mut (*slot).hold.look).write_volatile(hold.look) };
    Kept::Known
}

/// What is remembered of a socket. Only who has its lock, or has just found it in TIME_WAIT, takes it out.
#[inline(always)]
pub(crate) fn of(holder: Holder) -> Option<Found> {
    let bucket = bucket(holder.home())?;
    let sk = holder.sk;
    if let Some(slot) = among(bucket, sk) {
        // SAFETY: a member of a slot of our map.
        let hold = unsafe { &raw mut (*slot).hold };
        return Some(Found { hold, slot });
    }
    if spilled(bucket) == 0 {
        return None;
    }
    let hold = HOLDS.get_ptr_mut(sk)?;
    holder.has(hold).then_some(Found {
        hold,
        slot: core::ptr::null_mut(),
    })
}

/// Forgets a socket, of which that is remembered; false where somebody else did so at the same moment.
#[inline(always)]
pub(crate) fn forget(holder: Holder, found: Found, hold: &Hold) -> bool {
    if found.slot.is_null() {
        unspill(holder.sk, hold.home)
    } else {
        empty(found.slot, holder.sk)
    }
}

/// Leaves the port of a socket to what stays of it in TIME_WAIT; `None` where somebody else has forgotten it at the
/// same moment.
#[inline(always)]
pub(crate) fn pass(from: Holder, found: Found, tw: Ptr, gone: impl FnOnce(&Hold)) -> Option<Kept> {
    let Found { hold, slot } = found;
    // A look may come between the two, and it is alive.
    let look = look();
    if slot.is_null() {
        // SAFETY: an entry of our map, which goes below.
        let mut hold = unsafe { *hold };
        hold.waits = 1;
        hold.look = look;
        let to = Holder {
            sk: tw as u64,
            ..from
        };
        return forget(from, found, &hold).then(|| keep(to, hold, gone));
    }
    if !reclaim(slot, from.sk) {
        return None;
    }
    // SAFETY: words of a slot of our map, which is ours.
    unsafe {
        (&raw mut (*hold).waits).write_volatile(1);
        (&raw mut (*hold).look).write_volatile(look);
        (&raw mut (*slot).sk).write_volatile(tw as u64);
        add(&raw mut (*slot).claims, u64::MAX);
    }
    Some(Kept::New)
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
