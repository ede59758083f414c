//! What the configuration lets pass, decided before anything is reserved.

use aya_ebpf::{helpers::generated::bpf_get_current_ancestor_cgroup_id, maps::HashMap};
use portwatch_ebpf::abi::{
    config::{MAX_CGROUPS, filter, helper},
    record::op,
};

use crate::{
    kernel::{
        memory::{Memory, Ptr, config},
        sock, task,
    },
    state::{CGROUPS, DESCENDANTS, NETNS, PIDS, PORT_WORDS, PORTS, UIDS},
};

/// Whether an operation is wanted at all; the verifier drops what follows where it is not.
#[inline(always)]
pub(crate) fn op(op: u8) -> bool {
    config!(ops) >> op & 1 != 0
}

/// Whether it is noted who gets a port and who closes one: where a bind or listen can be told as refused
/// the owners of a port may be asked for, and a release names the last of them.
#[inline(always)]
pub(crate) fn notes() -> bool {
    op(op::BIND) || op(op::LISTEN) || op(op::RELEASE)
}

/// Whether only some processes are wanted. Of a release, whose process may be gone, a note tells.
#[inline(always)]
pub(crate) fn some_callers() -> bool {
    config!(filters) & (filter::PID | filter::DESCENDANTS | filter::UID | filter::CGROUP) != 0
}

/// Whether an outcome is wanted.
#[inline(always)]
pub(crate) fn outcome(error: u32) -> bool {
    config!(failed_only) == 0 || error != 0
}

/// Whether the running task is wanted.
#[inline(always)]
pub(crate) fn caller() -> bool {
    let filters = config!(filters);
    if filters & filter::PID != 0 && !is_among(config!(only_pid), &PIDS, task::ids().tgid) {
        return false;
    }
    if filters & filter::DESCENDANTS != 0 && DESCENDANTS.get_ptr(task::ids().tgid).is_none() {
        return false;
    }
    if filters & filter::UID != 0 && UIDS.get_ptr(task::uid()).is_none() {
        return false;
    }
    if filters & filter::CGROUP != 0 && config!(helpers) & helper::ANCESTOR_CGROUP != 0 {
        return cgroup();
    }
    true
}

#[inline(always)]
fn cgroup() -> bool {
    for at in 0..MAX_CGROUPS {
        let Some(&wanted) = CGROUPS.get(at) else {
            return false;
        };
        if wanted == 0 {
            return false;
        }
        let depth = (wanted >> 56) as i32;
        // SAFETY: no pointers.
        if unsafe { bpf_get_current_ancestor_cgroup_id(depth) } == wanted & (u64::MAX >> 8) {
            return true;
        }
    }
    false
}

/// Whether the socket's network namespace is wanted.
#[inline(always)]
pub(crate) fn netns<M: Memory>(sk: Ptr) -> bool {
    config!(filters) & filter::NETNS == 0
        || is_among(config!(only_netns), &NETNS, sock::netns::<M>(sk))
}

/// Whether a value is the only one that is wanted or, where `only` is 0, one of those.
#[inline(always)]
fn is_among(only: u32, wanted: &HashMap<u32, u8>, value: u32) -> bool {
    if only == 0 {
        wanted.get_ptr(value).is_some()
    } else {
        value == only
    }
}

/// Whether a local port is wanted; 0 where none was given or asked for.
#[inline(always)]
pub(crate) fn local_port(port: u16) -> bool {
    config!(filters) & filter::PORT == 0 || listed(port, 0)
}

/// Whether a peer port is wanted.
#[inline(always)]
pub(crate) fn peer_port(port: u16) -> bool {
    config!(filters) & filter::PEER_PORT == 0 || listed(port, PORT_WORDS)
}

/// Whether what has no peer is wanted.
#[inline(always)]
pub(crate) fn no_peer() -> bool {
    config!(filters) & filter::PEER_PORT == 0
}

#[inline(always)]
fn listed(port: u16, base: u32) -> bool {
    let port = u32::from(port);
    PORTS
        .get(base + port / 64)
        .is_some_and(|word| word >> (port % 64) & 1 != 0)
}
