//! The list of programs.

use aya_ebpf::{
    macros::{btf_tracepoint, fentry, fexit, kprobe, kretprobe, raw_tracepoint},
    programs::{
        BtfTracePointContext, FEntryContext, FExitContext, ProbeContext, RawTracePointContext,
        RetProbeContext,
    },
};

use crate::{
    attach::{
        kprobe::{self, First},
        raw_tp, tracing,
    },
    state::Function,
};

/// One program: attribute, name, context, call.
macro_rules! program {
    ($attribute:ident, $name:ident, $context:ty, |$ctx:ident| $call:expr) => {
        #[$attribute]
        fn $name($ctx: $context) -> u32 {
            $call;
            0
        }
    };
}

program!(fentry, bind4_enter_tracing, FEntryContext, |ctx| tracing::entered(&ctx, Function::Bind));
program!(fentry, bind6_enter_tracing, FEntryContext, |ctx| tracing::entered(&ctx, Function::Bind));
program!(fexit, bind4_tracing, FExitContext, |ctx| tracing::bind(&ctx));
program!(fexit, bind6_tracing, FExitContext, |ctx| tracing::bind(&ctx));
program!(fexit, bind_refused_tracing, FExitContext, |ctx| tracing::bind_refused(&ctx));
program!(fentry, listen_enter_tracing, FEntryContext, |ctx| tracing::entered(&ctx, Function::Listen));
program!(fexit, listen_tracing, FExitContext, |ctx| tracing::listen(&ctx));
program!(fexit, listen_refused_tracing, FExitContext, |ctx| tracing::listen_refused(&ctx));
program!(fentry, connect_stream_enter_tracing, FEntryContext, |ctx| tracing::connect_stream_entered(&ctx));
program!(fexit, connect_stream_tracing, FExitContext, |ctx| tracing::connect_stream(&ctx));
program!(fentry, connect_datagram_enter_tracing, FEntryContext, |ctx| tracing::connect_datagram_entered(&ctx));
program!(fexit, connect_datagram_tracing, FExitContext, |ctx| tracing::connect_datagram(&ctx));
program!(fexit, connect_refused_tracing, FExitContext, |ctx| tracing::connect_refused(&ctx));
program!(fentry, autobind_enter_tracing, FEntryContext, |ctx| tracing::entered(&ctx, Function::Autobind));
program!(fexit, autobind_tracing, FExitContext, |ctx| tracing::autobind(&ctx));
program!(btf_tracepoint, state_tracing, BtfTracePointContext, |ctx| tracing::state_changed(&ctx));
program!(btf_tracepoint, fork_tracing, BtfTracePointContext, |ctx| tracing::forked(&ctx));
program!(btf_tracepoint, free_tracing, BtfTracePointContext, |ctx| tracing::freed(&ctx));

program!(kprobe, bind4_enter_kprobe, ProbeContext, |ctx| kprobe::entered(&ctx, Function::Bind, First::of_bind()));
program!(kprobe, bind6_enter_kprobe, ProbeContext, |ctx| kprobe::entered(&ctx, Function::Bind, First::of_bind()));
program!(kretprobe, bind4_kprobe, RetProbeContext, |ctx| kprobe::bind(&ctx));
program!(kretprobe, bind6_kprobe, RetProbeContext, |ctx| kprobe::bind(&ctx));
program!(kprobe, bind_refused_enter_kprobe, ProbeContext, |ctx| kprobe::entered(&ctx, Function::RefuseBind, First::Socket));
program!(kretprobe, bind_refused_kprobe, RetProbeContext, |ctx| kprobe::bind_refused(&ctx));
program!(kprobe, listen_enter_kprobe, ProbeContext, |ctx| kprobe::entered(&ctx, Function::Listen, First::of_listen()));
program!(kretprobe, listen_kprobe, RetProbeContext, |ctx| kprobe::listen(&ctx));
program!(kprobe, listen_refused_enter_kprobe, ProbeContext, |ctx| kprobe::entered(&ctx, Function::RefuseListen, First::Socket));
program!(kretprobe, listen_refused_kprobe, RetProbeContext, |ctx| kprobe::listen_refused(&ctx));
program!(kprobe, connect4_enter_kprobe, ProbeContext, |ctx| kprobe::entered(&ctx, Function::Connect4, First::Sock));
program!(kretprobe, connect4_kprobe, RetProbeContext, |ctx| kprobe::connect_stream(&ctx, Function::Connect4));
program!(kprobe, connect6_enter_kprobe, ProbeContext, |ctx| kprobe::entered(&ctx, Function::Connect6, First::Sock));
program!(kretprobe, connect6_kprobe, RetProbeContext, |ctx| kprobe::connect_stream(&ctx, Function::Connect6));
program!(kprobe, pre_connect4_enter_kprobe, ProbeContext, |ctx| kprobe::entered(&ctx, Function::PreConnect, First::Sock));
program!(kretprobe, pre_connect4_kprobe, RetProbeContext, |ctx| kprobe::connect_gate(&ctx));
program!(kprobe, pre_connect6_enter_kprobe, ProbeContext, |ctx| kprobe::entered(&ctx, Function::PreConnect, First::Sock));
program!(kretprobe, pre_connect6_kprobe, RetProbeContext, |ctx| kprobe::connect_gate(&ctx));
program!(kprobe, connect_datagram_enter_kprobe, ProbeContext, |ctx| kprobe::entered(&ctx, Function::ConnectDatagram, First::Socket));
program!(kretprobe, connect_datagram_kprobe, RetProbeContext, |ctx| kprobe::connect_datagram(&ctx));
program!(kprobe, connect_refused_enter_kprobe, ProbeContext, |ctx| kprobe::entered(&ctx, Function::RefuseConnect, First::Socket));
program!(kretprobe, connect_refused_kprobe, RetProbeContext, |ctx| kprobe::connect_refused(&ctx));
program!(kprobe, autobind_enter_kprobe, ProbeContext, |ctx| kprobe::entered(&ctx, Function::Autobind, First::Sock));
program!(kretprobe, autobind_kprobe, RetProbeContext, |ctx| kprobe::autobind(&ctx));

program!(raw_tracepoint, sys_exit_raw, RawTracePointContext, |ctx| raw_tp::sys_exit(&ctx));
program!(raw_tracepoint, state_raw, RawTracePointContext, |ctx| raw_tp::state_changed(&ctx));
program!(raw_tracepoint, fork_raw, RawTracePointContext, |ctx| raw_tp::forked(&ctx));
program!(raw_tracepoint, free_raw, RawTracePointContext, |ctx| raw_tp::freed(&ctx));
