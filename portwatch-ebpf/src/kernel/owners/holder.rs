//! What a holder of a port is.

use portwatch_ebpf::abi::record::{FoundRecord, HolderRecord, present};

use crate::{
    kernel::{
        found,
        memory::{Memory, Ptr, set, zero},
        sock::{self, IPPROTO_TCP, state},
    },
    state::{closers, takers},
};

/// A function of its own: inlined, the compiler carries an uninitialised register through the loop.
/// It returns a number because the verifier looks at what is left in the register for one.
#[inline(never)]
pub(super) fn describe<F: Memory>(holder: &mut HolderRecord, sk: Ptr) -> u32 {
    // SAFETY: a record of the ABI: plain integers, a multiple of eight bytes.
    unsafe { zero(&raw mut *holder) };
    // Who accepts a connection is not noted; what is found there is of an earlier socket.
    if found::describe::<F>(&mut holder.found, sk) != 0 {
        let noted = takers::copy(holder.found.inode, &mut holder.noted, &mut holder.task);
        if noted != 0 {
            set(&mut holder.found.present, noted | present::TAKER);
        }
    } else if is_closed(&holder.found) {
        let place = sock::place::<F>(sk, holder.found.local_port, IPPROTO_TCP);
        let (noted, _) = closers::copy(place, &mut holder.noted, &mut holder.task);
        if noted != 0 {
            set(&mut holder.found.present, noted | present::CLOSER);
        }
    }
    0
}

/// Whether a process has closed a connection of which the kernel keeps something still. Without a struct
/// socket are also those that nobody has accepted yet: they are established, or their peer has closed.
#[inline(always)]
fn is_closed(found: &FoundRecord) -> bool {
    const CLOSED: u32 = 1 << state::FIN_WAIT1
        | 1 << state::FIN_WAIT2
        | 1 << state::TIME_WAIT
        | 1 << state::LAST_ACK
        | 1 << state::CLOSING;
    found.present & present::INODE == 0 && CLOSED >> (found.state & 31) & 1 != 0
}
