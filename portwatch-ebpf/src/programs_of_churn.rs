//! The list of `churn`'s programs. They are never loaded beside those of the other list, and use the rooms
//! of their like there.

use core::ffi::c_void;

use aya_ebpf::programs::{
    FEntryContext, FExitContext, ProbeContext, RawTracePointContext, RetProbeContext,
};

use portwatch_ebpf::abi::calls::Function;

use crate::{
    attach::{
        churn::{
            iter::{self, TcpContext},
            kprobe, raw_tp, tracing,
        },
        iter::IterContext,
        kprobe as trace_kprobe,
    },
    kernel::{
        generation::{Bounded, Casting, Looped, NO_ROOM},
        request::{AF_INET, AF_INET6},
    },
    programs::{Room, program},
};

program!(fentry, churn_search4_tracing, FEntryContext, |ctx| {
    tracing::searches(&ctx, Function::Connect4)
});
program!(fentry, churn_search6_tracing, FEntryContext, |ctx| {
    tracing::searches(&ctx, Function::Connect6)
});
program!(
    fexit,
    churn_connect4_tracing in Connect4,
    FExitContext,
    |ctx, G| tracing::connected::<G>(&ctx, Function::Connect4, AF_INET)
);
program!(
    fexit,
    churn_connect6_tracing in Connect6,
    FExitContext,
    |ctx, G| tracing::connected::<G>(&ctx, Function::Connect6, AF_INET6)
);
program!(
    fexit,
    churn_listen_tracing in Listen,
    FExitContext,
    |ctx, G| tracing::listens::<G>(&ctx)
);
program!(
    fexit,
    churn_bind4_tracing in Bind4,
    FExitContext,
    |ctx, G| tracing::bound::<G>(&ctx)
);
program!(
    fexit,
    churn_bind6_tracing in Bind6,
    FExitContext,
    |ctx, G| tracing::bound::<G>(&ctx)
);
program!(
    fexit,
    churn_autobind_tracing in Autobind,
    FExitContext,
    |ctx, G| tracing::autobound::<G>(&ctx)
);
program!(fentry, churn_put_tracing, FEntryContext, |ctx| {
    tracing::given(&ctx)
});
program!(fentry, churn_unhash_tracing, FEntryContext, |ctx| {
    tracing::given(&ctx)
});
program!(fentry, churn_wait_tracing, FEntryContext, |ctx, G| {
    tracing::waits::<G>(&ctx)
});
program!(fentry, churn_waited_tracing, FEntryContext, |ctx, G| {
    tracing::waited::<G>(&ctx)
});

program!(kprobe, churn_connect4_enter_kprobe, ProbeContext, |ctx| {
    trace_kprobe::entered(&ctx, Function::Connect4)
});
program!(kprobe, churn_connect6_enter_kprobe, ProbeContext, |ctx| {
    trace_kprobe::entered(&ctx, Function::Connect6)
});
program!(
    kretprobe,
    churn_connect4_kprobe in Connect4,
    RetProbeContext,
    |ctx, G| kprobe::connected::<G>(&ctx, Function::Connect4, AF_INET)
);
program!(
    kretprobe,
    churn_connect6_kprobe in Connect6,
    RetProbeContext,
    |ctx, G| kprobe::connected::<G>(&ctx, Function::Connect6, AF_INET6)
);
program!(kprobe, churn_listen_enter_kprobe, ProbeContext, |ctx| {
    trace_kprobe::entered(&ctx, Function::Listen)
});
program!(
    kretprobe,
    churn_listen_kprobe in Listen,
    RetProbeContext,
    |ctx, G| kprobe::listens::<G>(&ctx)
);
program!(kprobe, churn_bind_enter_kprobe, ProbeContext, |ctx| {
    trace_kprobe::entered(&ctx, Function::Bind)
});
program!(
    kretprobe,
    churn_bind_kprobe in Bind4,
    RetProbeContext,
    |ctx, G| kprobe::bound::<G>(&ctx)
);
program!(kprobe, churn_autobind_enter_kprobe, ProbeContext, |ctx| {
    trace_kprobe::entered(&ctx, Function::Autobind)
});
program!(
    kretprobe,
    churn_autobind_kprobe in Autobind,
    RetProbeContext,
    |ctx, G| kprobe::autobound::<G>(&ctx)
);
program!(kprobe, churn_put_kprobe, ProbeContext, |ctx, G| {
    kprobe::given::<G>(&ctx)
});
program!(kprobe, churn_unhash_kprobe, ProbeContext, |ctx, G| {
    kprobe::given::<G>(&ctx)
});
program!(kprobe, churn_wait_kprobe, ProbeContext, |ctx, G| {
    kprobe::waits::<G>(&ctx)
});
program!(kprobe, churn_waited_kprobe, ProbeContext, |ctx, G| {
    kprobe::waited::<G>(&ctx)
});

program!(
    raw_tp,
    churn_sys_exit_raw in SysExit,
    RawTracePointContext,
    |ctx, G| raw_tp::sys_exit::<G>(&ctx)
);
program!(
    raw_tp,
    churn_state_raw in State,
    RawTracePointContext,
    |ctx, G| raw_tp::state_changed::<G>(&ctx)
);

program!(iter, churn_descriptors, IterContext, |ctx, G| {
    iter::descriptor::<G>(&ctx)
});
program!(iter, churn_connections, TcpContext, |ctx, G| {
    iter::connection::<G>(&ctx)
});
