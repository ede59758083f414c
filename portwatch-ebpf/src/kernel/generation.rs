//! What kernels let programs do, where that has grown. A program that so much as mentions what an older
//! kernel does not know is refused there, so every program exists once for each generation, and the
//! plan takes one.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;

use super::{
    image,
    memory::{Cast, Memory, Probed},
    owners,
};

/// One round of a loop. What goes on from round to round lies in the record that is being written:
/// memory that the verifier does not follow, so that to it one round is like the other.
pub(crate) trait Step {
    /// The record.
    type Record;
    /// Rounds at most where the verifier walks them all.
    const BOUND: u32;
    /// Rounds at most with the helper.
    const LIMIT: u32;

    /// Does a round, counted from 0; false ends the loop.
    fn step(record: &mut Self::Record, round: u32) -> bool;
}

/// What a program has to work with, and which room.
pub(crate) trait Generation {
    /// The slot of per-CPU maps that this program has to itself. The kernel does not start a program
    /// that is running already on that CPU (raw tracepoints since 6.1, 05b24ff9b2cf), but where it may be
    /// preempted (7.x, preempt=full) another one may run in between.
    const ROOM: u32;

    /// Whether bpf_get_current_task_btf (5.11) and bpf_task_pt_regs (5.15) are there for certain; in the
    /// first generation, and others in all, the configuration tells.
    const HELPERS: bool;

    /// How it reads what it has but the address of.
    type Far: Memory;

    /// Sends the running process; 0 when it is sent.
    fn send_image() -> i32;

    /// Sends the owners of a port: of a sock, see [`owners::asked`], the words of the address asked for.
    fn send_owners(own: u64, asked: u64, first: u64, second: u64);

    /// The class of a socket on a port beside one that claims this, see
    /// [`owners::portwatch_class_of_owner_probed`].
    fn class_of_owner(sk: u64, claim: u64, first: u64, second: u64, uid: u64) -> i32;

    /// Does rounds until one ends the loop or there were enough.
    fn repeat<S: Step>(record: &mut S::Record);
}

/// Rooms there are: more than any way in has programs that use one.
pub(crate) const ROOMS: u32 = 31;

/// For functions that programs share: no map has such a slot.
pub(crate) const NO_ROOM: u32 = ROOMS;

/// Before bpf_loop() (5.17): the verifier walks every round of a loop, so rounds are few.
pub(crate) struct Bounded<const ROOM: u32>;

impl<const ROOM: u32> Generation for Bounded<ROOM> {
    const ROOM: u32 = ROOM;
    const HELPERS: bool = false;

    type Far = Probed;

    #[inline(always)]
    fn send_image() -> i32 {
        image::portwatch_send_image_bounded()
    }

    #[inline(always)]
    fn send_owners(own: u64, asked: u64, first: u64, second: u64) {
        owners::portwatch_send_owners_bounded(own, asked, first, second);
    }

    #[inline(always)]
    fn class_of_owner(sk: u64, claim: u64, first: u64, second: u64, uid: u64) -> i32 {
        owners::portwatch_class_of_owner_probed(sk, claim, first, second, uid)
    }

    #[inline(always)]
    fn repeat<S: Step>(record: &mut S::Record) {
        for round in 0..S::BOUND {
            if !S::step(record, round) {
                break;
            }
        }
    }
}

/// With bpf_loop(): the body is looked at once and rounds are cheap.
pub(crate) struct Looped<const ROOM: u32>;

impl<const ROOM: u32> Generation for Looped<ROOM> {
    const ROOM: u32 = ROOM;
    const HELPERS: bool = true;

    type Far = Probed;

    #[inline(always)]
    fn send_image() -> i32 {
        image::portwatch_send_image_looped()
    }

    #[inline(always)]
    fn send_owners(own: u64, asked: u64, first: u64, second: u64) {
        owners::portwatch_send_owners_looped(own, asked, first, second);
    }

    #[inline(always)]
    fn class_of_owner(sk: u64, claim: u64, first: u64, second: u64, uid: u64) -> i32 {
        owners::portwatch_class_of_owner_probed(sk, claim, first, second, uid)
    }

    #[inline(always)]
    fn repeat<S: Step>(record: &mut S::Record) {
        repeat_by_helper::<S>(record);
    }
}

/// With bpf_rdonly_cast() too (6.2; used since 6.11).
pub(crate) struct Casting<const ROOM: u32>;

impl<const ROOM: u32> Generation for Casting<ROOM> {
    const ROOM: u32 = ROOM;
    const HELPERS: bool = true;

    type Far = Cast;

    #[inline(always)]
    fn send_image() -> i32 {
        image::portwatch_send_image_casting()
    }

    #[inline(always)]
    fn send_owners(own: u64, asked: u64, first: u64, second: u64) {
        owners::portwatch_send_owners_casting(own, asked, first, second);
    }

    #[inline(always)]
    fn class_of_owner(sk: u64, claim: u64, first: u64, second: u64, uid: u64) -> i32 {
        owners::portwatch_class_of_owner_cast(sk, claim, first, second, uid)
    }

    #[inline(always)]
    fn repeat<S: Step>(record: &mut S::Record) {
        repeat_by_helper::<S>(record);
    }
}

#[inline(always)]
fn repeat_by_helper<S: Step>(record: &mut S::Record) {
    let callback: unsafe extern "C" fn(u32, *mut c_void) -> i64 = round::<S>;
    let mut context = Context::<S> { record };
    // SAFETY: the callback gets back the pointer it expects, while the loop runs.
    unsafe {
        bpf_loop(
            S::LIMIT,
            callback as *mut c_void,
            (&raw mut context).cast(),
            0,
        );
    }
}

/// What a callback is given: it has to lie on the stack.
struct Context<S: Step> {
    record: *mut S::Record,
}

#[inline(never)]
unsafe extern "C" fn round<S: Step>(index: u32, context: *mut c_void) -> i64 {
    // SAFETY: `repeat_by_helper` passes a pointer to such a context, and nobody else uses the record meanwhile.
    let record = unsafe { &mut *(*context.cast::<Context<S>>()).record };
    i64::from(!S::step(record, index))
}
