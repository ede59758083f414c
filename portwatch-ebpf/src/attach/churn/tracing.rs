//! fentry and fexit.

use aya_ebpf::programs::{FEntryContext, FExitContext};
use portwatch_ebpf::abi::calls::Function;

use crate::{
    attach::{
        kprobe::First,
        tracing::{Tracing, request, sk_of},
    },
    emit,
    hook::{Returned, churn},
    kernel::{
        generation::Generation,
        memory::{Ptr, Typed},
        task,
    },
    state::calls::{start, take_start},
};

/// The result of a call that began then.
#[inline(always)]
fn returned(code: i32, started: u64) -> Returned {
    Returned {
        code,
        started,
        refused_by_policy: false,
    }
}

/// fentry of inet_hash_connect or inet6_hash_connect.
#[inline(always)]
pub(crate) fn searches(_ctx: &FEntryContext, function: Function) {
    start(task::ids(), function, emit::now());
}

/// fexit of the same; the socket is the second argument.
#[inline(always)]
pub(crate) fn connected<G: Generation>(ctx: &FExitContext, function: Function, family: u16) {
    let started = take_start(task::ids(), function);
    churn::connected::<Tracing<G>>(ctx.arg(1), family, returned(ctx.arg(2), started));
}

/// fexit of inet_csk_get_port.
#[inline(always)]
pub(crate) fn listens<G: Generation>(ctx: &FExitContext) {
    churn::listens::<Tracing<G>>(ctx.arg(0), ctx.arg::<u32>(1) as u16, ctx.arg(2));
}

/// fexit of inet_bind_sk, inet6_bind_sk, inet_bind or inet6_bind.
#[inline(always)]
pub(crate) fn bound<G: Generation>(ctx: &FExitContext) {
    let first: Ptr = ctx.arg(0);
    let sk = match First::of_bind() {
        First::Sock => first,
        First::Socket => sk_of(first),
    };
    let address: Ptr = ctx.arg(1);
    let len = ctx.arg::<u32>(2);
    churn::bound::<Tracing<G>>(sk, returned(ctx.arg(3), 0), || request::<G>(address, len));
}

/// fexit of inet_autobind.
#[inline(always)]
pub(crate) fn autobound<G: Generation>(ctx: &FExitContext) {
    churn::autobound::<Tracing<G>>(ctx.arg(0), returned(ctx.arg(1), 0));
}

/// fentry of inet_put_port or udp_lib_unhash.
#[inline(always)]
pub(crate) fn given(ctx: &FEntryContext) {
    churn::given::<Typed>(ctx.arg(0));
}

/// fentry of inet_twsk_hashdance or inet_twsk_hashdance_schedule.
#[inline(always)]
pub(crate) fn waits<G: Generation>(ctx: &FEntryContext) {
    churn::waits::<Tracing<G>>(ctx.arg(0), ctx.arg(1));
}

/// fentry of inet_twsk_kill.
#[inline(always)]
pub(crate) fn waited<G: Generation>(ctx: &FEntryContext) {
    churn::waited::<Tracing<G>>(ctx.arg(0));
}
