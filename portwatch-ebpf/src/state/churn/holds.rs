//! Automatic ports that are held, by the address of the socket that has each: its own, then that of what
//! the kernel keeps of it in TIME_WAIT.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::map,
    maps::{Array, HashMap},
};
use portwatch_ebpf::abi::churn::Hold;

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

/// Remembers that a socket has a port.
#[inline(always)]
pub(crate) fn keep(sk: u64, hold: &Hold) -> Kept {
    match HOLDS.insert(sk, hold, u64::from(BPF_NOEXIST)) {
        Ok(()) => Kept::New,
        Err(EXISTS) => Kept::Known,
        Err(_) => Kept::Full,
    }
}

/// What is remembered of a socket. Only who has its lock, or has just found it in TIME_WAIT, takes it out.
#[inline(always)]
pub(crate) fn of(sk: u64) -> Option<*mut Hold> {
    HOLDS.get_ptr_mut(sk)
}

/// Forgets a socket.
#[inline(always)]
pub(crate) fn drop(sk: u64) {
    let _ = HOLDS.remove(sk);
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
