//! Raw tracepoints: `sys_exit` for bind() and listen(), changes of state for connect().

use core::ffi::c_void;

use aya_ebpf::{EbpfContext as _, programs::RawTracePointContext};

use crate::{
    attach::raw_tp::Raw,
    hook::{
        Returned,
        churn::{self, partial},
    },
    kernel::{
        generation::Generation,
        memory::Ptr,
        request::{Request, Space},
        sock,
        syscall::{self, Call, Finished},
    },
};

/// `sys_exit(regs, ret)`.
#[inline(always)]
pub(crate) fn sys_exit<G: Generation>(ctx: &RawTracePointContext) {
    if syscall::may_be_followed(syscall::number_of::<G::Far>(ctx.arg(0))) {
        returned::<G>(ctx.as_ptr());
    }
}

/// A function of its own, as in `attach::raw_tp`.
#[inline(never)]
fn returned<G: Generation>(ctx: *mut c_void) -> u32 {
    let ctx = RawTracePointContext::new(ctx);
    let Some(Finished {
        call,
        sk,
        second,
        third,
    }) = syscall::finished::<G>(ctx.arg(0))
    else {
        return 0;
    };
    let returned = Returned {
        code: ctx.arg::<i64>(1) as i32,
        started: 0,
        refused_by_policy: false,
    };
    let sk = sock::acting::<G::Far>(sk);
    match call {
        Call::Bind => churn::bound::<Raw<G>>(sk, returned, || {
            Request::read(G::ROOM, second as Ptr, third as u32, Space::User)
        }),
        Call::Listen => partial::listened::<Raw<G>>(sk, returned.error()),
        Call::Connect => {}
    }
    0
}

/// `inet_sock_set_state(sk, old, new)`.
#[inline(always)]
pub(crate) fn state_changed<G: Generation>(ctx: &RawTracePointContext) {
    let old = ctx.arg::<u32>(1) as u8;
    let new = ctx.arg::<u32>(2) as u8;
    partial::state_changed::<Raw<G>>(ctx.arg(0), old, new);
}
