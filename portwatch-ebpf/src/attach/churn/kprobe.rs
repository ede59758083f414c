//! kprobes and kretprobes. None of these functions sleeps for long.

use aya_ebpf::programs::{ProbeContext, RetProbeContext};
use portwatch_ebpf::abi::calls::Function;

use crate::{
    attach::{
        kprobe::{First, Kept, request, returned},
        raw_tp::Raw,
    },
    hook::churn,
    kernel::{generation::Generation, memory::Ptr},
};

/// Return of inet_hash_connect or inet6_hash_connect; the socket is the second argument.
#[inline(always)]
pub(crate) fn connected<G: Generation>(ctx: &RetProbeContext, function: Function, family: u16) {
    if let Some(Kept { entry, returned }) = returned(ctx, function) {
        churn::connected::<Raw<G>>(entry.second as Ptr, family, returned);
    }
}

/// Return of inet_csk_get_port.
#[inline(always)]
pub(crate) fn listens<G: Generation>(ctx: &RetProbeContext) {
    if let Some(Kept { entry, returned }) = returned(ctx, Function::Listen) {
        churn::listens::<Raw<G>>(entry.first as Ptr, entry.second as u16, returned.code);
    }
}

/// Return of inet_bind_sk, inet6_bind_sk, inet_bind or inet6_bind.
#[inline(always)]
pub(crate) fn bound<G: Generation>(ctx: &RetProbeContext) {
    if let Some(call) = returned(ctx, Function::Bind) {
        churn::bound::<Raw<G>>(call.sk::<G>(First::of_bind()), call.returned, || {
            request::<G>(&call.entry)
        });
    }
}

/// Return of inet_autobind.
#[inline(always)]
pub(crate) fn autobound<G: Generation>(ctx: &RetProbeContext) {
    if let Some(Kept { entry, returned }) = returned(ctx, Function::Autobind) {
        churn::autobound::<Raw<G>>(entry.first as Ptr, returned);
    }
}

/// Entry of inet_put_port or udp_lib_unhash.
#[inline(always)]
pub(crate) fn given<G: Generation>(ctx: &ProbeContext) {
    if let Some(sk) = ctx.arg::<Ptr>(0) {
        churn::given::<G::Far>(sk);
    }
}

/// Entry of inet_twsk_hashdance or inet_twsk_hashdance_schedule.
#[inline(always)]
pub(crate) fn waits<G: Generation>(ctx: &ProbeContext) {
    if let (Some(tw), Some(sk)) = (ctx.arg::<Ptr>(0), ctx.arg::<Ptr>(1)) {
        churn::waits::<Raw<G>>(tw, sk);
    }
}

/// Entry of inet_twsk_kill.
#[inline(always)]
pub(crate) fn waited<G: Generation>(ctx: &ProbeContext) {
    if let Some(tw) = ctx.arg::<Ptr>(0) {
        churn::waited::<Raw<G>>(tw);
    }
}
