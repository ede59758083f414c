//! What happens when a port is asked for: the logic, once for all ways in.

use portwatch_ebpf::abi::{
    config::detail,
    record::{
        SocketRecord,
        op::{BIND, LISTEN},
        present, unknown, via,
    },
};

use crate::{
    kernel::{
        generation::Generation,
        memory::{Memory, Ptr, detailed, set, zero},
        sock::{self, Handle, Kind, state as tcp},
        syscall,
        task::{Caller, Current},
    },
    state::attempts::{ever, happened},
};

pub(crate) mod accept;
pub(crate) mod autobind;
pub(crate) mod bind;
pub(crate) mod churn;
pub(crate) mod closed;
pub(crate) mod connect;
pub(crate) mod listen;
pub(crate) mod process;
pub(crate) mod release;
pub(crate) mod taken;

/// What a way in knows besides the arguments of the call.
pub(crate) trait Backend {
    /// How it may read the socket it is given.
    type Memory: Memory;
    /// What it has to work with.
    type Generation: Generation;
    /// The room of the program.
    const ROOM: u32 = <Self::Generation as Generation>::ROOM;

    /// The cookie of the socket the program holds. `sk` is an argument of the hook, `held` may have
    /// been reached through it.
    fn cookie(sk: Ptr, held: Ptr) -> u64;
}

/// How a way in reads what it has but the address of.
pub(crate) type Far<B> = <<B as Backend>::Generation as Generation>::Far;

/// A call that has returned.
#[derive(Clone, Copy)]
pub(crate) struct Returned {
    /// 0 or a negative errno.
    pub(crate) code: i32,
    /// When it began, CLOCK_BOOTTIME.
    /// 0 where that is not known: an absent payload would be an uninitialised word, which verifiers
    /// refuse to see copied.
    pub(crate) started: u64,
    /// It was refused before the socket layer's own code ran.
    pub(crate) refused_by_policy: bool,
}

impl Returned {
    /// Whether the call has neither worked nor failed: a BPF program (in the place of a security hook, or on a cgroup) may
    /// answer with a number above 0, which ends the call, but is no errno. The call returns that number, and its socket is
    /// as it was.
    pub(crate) const fn is_neither(&self) -> bool {
        self.code > 0
    }

    /// 0 or a positive errno. 5.10's port allocators return 1 for EADDRINUSE; the functions hooked
    /// here do not.
    pub(crate) fn error(&self) -> u32 {
        if self.code < 0 {
            self.code.unsigned_abs()
        } else {
            0
        }
    }
}

/// Whether a security hook has refused a call.
pub(crate) const fn is_refusal(code: i32) -> bool {
    code < 0
}

/// Who asked; 0 where nobody wants to know.
#[inline(always)]
pub(crate) fn who_asked<G: Generation>(op: u8, task: Current<G>, handle: &Handle) -> u8 {
    if task.is_kernel_thread() || handle.is_of_kernel() {
        return via::KERNEL;
    }
    if !detailed(detail::REST) {
        return 0;
    }
    if task.is_io_worker() {
        return via::IO_URING;
    }
    // Requests also run in the submitting task, inside io_uring_enter() or at the end of whatever
    // system call comes next.
    if syscall::asks(op, task.syscall()) || !task.has_io_uring() {
        return via::SYSCALL;
    }
    via::IO_URING
}

/// The parts of a record that every operation has. The process is announced before.
#[inline(always)]
pub(crate) fn common<B: Backend>(
    record: &mut SocketRecord,
    op: u8,
    sk: Ptr,
    kind: Kind,
    caller: &Caller<B::Generation>,
) {
    // SAFETY: a record of the ABI: plain integers, a multiple of eight bytes.
    unsafe { zero(&raw mut *record) };
    record.op = op;
    caller.describe(&mut record.task, &mut record.present);
    let handle = Handle::of::<B::Memory>(sk);
    sock::describe::<B::Memory, Far<B>>(record, sk, &handle, kind);
    if detailed(detail::REST) {
        sock::put_cookie(record, B::cookie(sk, handle.sk));
    } else if op == BIND || op == LISTEN {
        // What a bind() that was refused leads to is told from the next call of the same socket.
        sock::put_inode(record, sock::inode::<B::Memory, Far<B>>(sk));
    }
    record.via = who_asked(op, caller.task, &handle);
}

/// Writes when it ended and how long it took.
#[inline(always)]
pub(crate) fn timed(record: &mut SocketRecord, now: u64, started: u64) {
    record.time = now;
    if started != 0 {
        record.duration = now.saturating_sub(started);
        set(&mut record.present, present::DURATION);
    }
}

/// Marks an outcome that nobody will know.
pub(crate) fn unknown(record: &mut SocketRecord) {
    record.unknown = unknown::CLOSED;
}

/// A TCP socket changes state (net/ipv4/af_inet.c, `inet_sk_set_state`). Most changes are none of
/// ours and leave at the first comparison.
#[inline(always)]
pub(crate) fn state_changed<B: Backend>(sk: Ptr, old: u8, new: u8) {
    if old == tcp::SYN_SENT && new == tcp::SYN_RECV {
        connect::meets(sk);
    } else if old == tcp::SYN_RECV {
        // Whatever comes then but the connection: also FIN_WAIT1, of a socket that is closed.
        if happened::<{ ever::MET }>() && connect::waits(sk) {
            connect::ends::<B>(sk, new == tcp::ESTABLISHED);
        }
    } else if old == tcp::SYN_SENT {
        if new == tcp::ESTABLISHED || new == tcp::CLOSE {
            connect::ends::<B>(sk, new == tcp::ESTABLISHED);
        }
    } else if new == tcp::SYN_SENT {
        taken::by_connect::<B>(sk);
        connect::begins::<B>(sk);
    }
}
