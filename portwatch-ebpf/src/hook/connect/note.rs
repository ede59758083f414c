//! What the end of an attempt leaves for the return of its call.

use super::{Backend, Far};
use crate::{
    emit,
    kernel::{
        memory::{Memory, Ptr, config, number_in, offset},
        sock,
    },
    state::attempts::{Note, note_of, outcome},
};

/// Notes how an attempt has ended: its socket forgets.
#[inline(always)]
pub(super) fn leave<B: Backend>(sk: Ptr, end: u32, error: u32, began: u64) {
    let own = number_in(B::ROOM, sk);
    let note = note_of(own);
    let whose = &raw mut note.sk;
    // SAFETY: a member of ours.
    unsafe { whose.write_volatile(0) };
    note.at = emit::now();
    note.began = began;
    note.outcome = end;
    note.error = error;
    local_address::<B>(note, sk);
    note.port = u32::from(if end == outcome::ESTABLISHED {
        sock::port::<B::Memory>(sk)
    } else {
        sock::source_port::<Far<B>>(sk)
    });
    // SAFETY: as above.
    unsafe { whose.write_volatile(own) };
}

/// The note about a socket, if no other socket's has taken its place.
#[inline(always)]
pub(super) fn about<B: Backend>(sk: Ptr) -> Option<&'static mut Note> {
    let own = number_in(B::ROOM, sk);
    let note = note_of(own);
    (note.sk == own).then_some(note)
}

/// The note of an attempt that has ended since its call began. Where attempts wait from SYN_SENT on a
/// note is always of the call that returns; elsewhere one without a beginning fits none.
#[inline(always)]
pub(super) fn of_call<B: Backend>(sk: Ptr, started: u64) -> Option<&'static mut Note> {
    about::<B>(sk).filter(|note| {
        config!(connect_returns_by_syscall) != 0 || started != 0 && note.at >= started
    })
}

/// Forgets a note that was about `own`; false if another socket has taken its place meanwhile, and what
/// was read from it may be of that one.
#[inline(always)]
pub(super) fn forget(note: &mut Note, own: u64) -> bool {
    let whose = &raw mut note.sk;
    // SAFETY: a member of ours.
    unsafe {
        let still = whose.read_volatile() == own;
        if still {
            whose.write_volatile(0);
        }
        still
    }
}

/// Writes the local address as a record has it, from where the family keeps it.
#[inline(always)]
pub(super) fn local_address<B: Backend>(note: &mut Note, sk: Ptr) {
    note.address = [0; 2];
    let family = B::Memory::load::<u16>(sk, offset!(skc_family));
    let (v4, v6) = (offset!(skc_rcv_saddr), offset!(skc_v6_rcv_saddr));
    let address = (&raw mut note.address).cast();
    let _ = sock::address::<B::Memory>(address, sk, family, v4, v6);
}
