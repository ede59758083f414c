//! The kernel programs: one function an attach point, nothing else. Which of them are loaded, and on
//! which function, is decided by `portwatch/src/plan/`; the prototypes they rely on stand there.
//!
//! Licence: tracing helpers are given to GPL-compatible programs only, so the object declares
//! "Dual MIT/GPL"; see LICENSE-GPL-2.0.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
// For one instruction (`kernel::memory::add`). The target's own library is built with unstable means anyway.
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[cfg(not(target_arch = "bpf"))]
fn main() {
    // The programs exist for the bpf target alone; this lets tools run over the whole workspace.
}

#[cfg(target_arch = "bpf")]
mod attach;
#[cfg(target_arch = "bpf")]
mod diagnose;
#[cfg(target_arch = "bpf")]
mod emit;
#[cfg(target_arch = "bpf")]
mod filter;
#[cfg(target_arch = "bpf")]
mod hook;
#[cfg(target_arch = "bpf")]
mod kernel;
#[cfg(target_arch = "bpf")]
mod programs;
#[cfg(target_arch = "bpf")]
mod programs_of_churn;
#[cfg(target_arch = "bpf")]
mod state;

#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Never linked: xtask checks that the object holds no panic.
    loop {}
}
