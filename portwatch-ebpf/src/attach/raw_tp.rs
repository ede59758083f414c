//! Raw tracepoints: `sys_exit` for calls and their results, tracepoints for the rest. Pointers are
//! plain numbers.

use core::{ffi::c_void, marker::PhantomData};

use aya_ebpf::{EbpfContext as _, programs::RawTracePointContext};

use crate::{
    hook::{self, Backend, Returned, accept, bind, connect, listen},
    kernel::{
        generation::Generation,
        memory::{Probed, Ptr},
        request::{Request, Space},
        sock::{self, Kind},
        syscall::{self, Call, Finished},
    },
};

/// This way in; kprobes read memory the same way.
pub(crate) struct Raw<G>(PhantomData<G>);

impl<G: Generation> Backend for Raw<G> {
    type Memory = G::Far;
    type Generation = G;

    #[inline(always)]
    fn cookie(_sk: Ptr, held: Ptr) -> u64 {
        sock::existing_cookie::<G::Far>(held)
    }
}

/// `sys_exit(regs, ret)`.
#[inline(always)]
pub(crate) fn sys_exit<G: Generation>(ctx: &RawTracePointContext) {
    if syscall::may_be_followed(syscall::number_of::<G::Far>(ctx.arg(0))) {
        returned::<G>(ctx.as_ptr());
    }
}

/// A function of its own, so that the calls that are none of ours do not save its registers.
#[inline(never)]
fn returned<G: Generation>(ctx: *mut c_void) -> u32 {
    followed::<G>(&RawTracePointContext::new(ctx));
    0
}

#[inline(always)]
fn followed<G: Generation>(ctx: &RawTracePointContext) {
    let Some(Finished {
        call,
        sk,
        second,
        third,
    }) = syscall::finished::<G>(ctx.arg(0))
    else {
        return;
    };
    let returned = Returned {
        code: ctx.arg::<i64>(1) as i32,
        started: 0,
        refused_by_policy: false,
    };
    let request = || Request::read(G::ROOM, second as Ptr, third as u32, Space::User);
    match call {
        Call::Bind => bind::returned::<Raw<G>>(sock::acting::<G::Far>(sk), returned, request),
        Call::Listen => {
            let sk = sock::acting::<G::Far>(sk);
            listen::returned::<Raw<G>>(sk, sock::backlog::<G::Far>(sk, second as u32), returned);
        }
        Call::Connect => {
            let Some(kind) = Kind::of::<G::Far>(sk) else {
                return;
            };
            if kind.is_tcp() {
                connect::stream_returned_late::<Raw<G>>(
                    sock::acting::<G::Far>(sk),
                    returned,
                    request,
                );
            } else {
                connect::returned_at_once::<Raw<G>>(sk, returned, request);
            }
        }
    }
}

/// `sys_exit(regs, ret)`, of accept() and accept4() alone.
#[inline(always)]
pub(crate) fn accept_exit<G: Generation>(ctx: &RawTracePointContext) {
    if syscall::is_accept(syscall::number_of::<G::Far>(ctx.arg(0))) {
        accept_returned::<G>(ctx.as_ptr());
    }
}

/// See [`returned`].
#[inline(never)]
fn accept_returned<G: Generation>(ctx: *mut c_void) -> u32 {
    let ctx = RawTracePointContext::new(ctx);
    let result = ctx.arg::<i64>(1);
    let Some(sk) = syscall::accepting::<G>(ctx.arg(0), result) else {
        return 0;
    };
    if result >= 0 {
        accept::accepted::<Raw<G>>(sk, 0);
    } else {
        let returned = Returned {
            code: result as i32,
            started: 0,
            refused_by_policy: false,
        };
        accept::failed::<Raw<G>>(sk, returned);
    }
    0
}

/// `inet_sock_set_state(sk, old, new)`.
#[inline(always)]
pub(crate) fn state_changed<G: Generation>(ctx: &RawTracePointContext) {
    let old = ctx.arg::<u32>(1) as u8;
    let new = ctx.arg::<u32>(2) as u8;
    hook::state_changed::<Raw<G>>(ctx.arg(0), old, new);
}

/// `sched_process_fork(parent, child)`.
#[inline(always)]
pub(crate) fn forked(ctx: &RawTracePointContext) {
    hook::process::forked::<Probed>(ctx.arg(0), ctx.arg(1));
}

/// `sched_process_free(task)`.
#[inline(always)]
pub(crate) fn freed(ctx: &RawTracePointContext) {
    hook::process::freed::<Probed>(ctx.arg(0));
}
