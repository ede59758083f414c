//! Diagnostics for `-vv`, through aya-log. Without `-vv` the verifier sees constants and drops every
//! call from here.

use aya_log_ebpf::debug;
pub(crate) use portwatch_ebpf::abi::note;

use crate::kernel::{memory::config, task};

/// Says what happened (one of [`note`]), with a number that belongs to it.
#[inline(always)]
pub(crate) fn say(what: u32, number: u64) {
    if config!(diagnostics) != 0 {
        portwatch_say(u64::from(what), number);
    }
}

/// A global function: the verifier looks at it once a program, not once for every way to get here.
/// One line of numbers for everything: each text is three thousand instructions for the verifier, so
/// the words are user space's.
#[unsafe(no_mangle)]
extern "C" fn portwatch_say(what: u64, number: u64) -> i32 {
    debug!((), "{} {} {}", what, task::ids().tgid, number);
    0
}
