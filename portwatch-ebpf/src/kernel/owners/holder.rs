//! What a holder of a port is.

use portwatch_ebpf::abi::record::{HolderRecord, present};

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
    } else if holder.found.state == state::TIME_WAIT {
        let place = sock::place::<F>(sk, holder.found.local_port, IPPROTO_TCP);
        let noted = closers::copy(place, &mut holder.noted, &mut holder.task);
        if noted != 0 {
            set(&mut holder.found.present, noted | present::CLOSER);
        }
    }
    0
}
