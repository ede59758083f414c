//! What portwatch never does once a trace has begun, made impossible: a seccomp filter.
//!
//! CAP_SYS_ADMIN is kept for setns(2), and allows more than that. The filter takes the rest away: new
//! programs, other ids, mounts, modules, more of bpf(2), other people's memory. It refuses by name what is
//! not needed, instead of allowing what is: what a C library or a resolver of user names calls is not ours to
//! know, and a trace must not break by an update of theirs. What is refused gets EPERM.
//!
//! No Landlock: it also keeps a process from looking at those outside its domain
//! (security/landlock/ptrace.c, `hook_ptrace_access_check`), which is how holders are named: measured on 6.18,
//! root in a domain that forbids nothing but to write files cannot read `/proc/PID/exe` of its own child.

use std::{collections::BTreeMap, io};

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule,
};

/// Refused whatever the arguments.
const NEVER: &[libc::c_long] = &[
    // Other programs, other ids.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    // Other people's memory and signals.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_userfaultfd,
    // Namespaces and file systems. Threads enter network namespaces, see below.
    libc::SYS_unshare,
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_mknodat,
    libc::SYS_quotactl,
    libc::SYS_acct,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    // The kernel itself.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_perf_event_open,
    libc::SYS_syslog,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // What could take the filter's measure of it away from under it.
    libc::SYS_io_uring_setup,
];

/// Commands of bpf(2) that are allowed: elements of maps, what is attached to a cgroup, what that is, and one more
/// run of an iterator that is loaded already (include/uapi/linux/bpf.h, `enum bpf_cmd`).
const BPF_ALLOWED: &[u64] = &[
    1,  // MAP_LOOKUP_ELEM
    2,  // MAP_UPDATE_ELEM
    3,  // MAP_DELETE_ELEM
    4,  // MAP_GET_NEXT_KEY
    13, // PROG_GET_FD_BY_ID
    15, // OBJ_GET_INFO_BY_FD
    16, // PROG_QUERY
    33, // ITER_CREATE
];

/// A rule that holds where an argument is none of these.
fn none_of(argument: u8, allowed: &[u64]) -> Result<SeccompRule, BackendError> {
    let differs = |&value: &u64| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, value)
    };
    SeccompRule::new(allowed.iter().map(differs).collect::<Result<_, _>>()?)
}

fn filter() -> Result<BpfProgram, BackendError> {
    // What has no rule of its own is refused in any case.
    let mut rules: BTreeMap<_, _> = NEVER.iter().map(|&call| (call, Vec::new())).collect();
    rules.insert(libc::SYS_bpf, vec![none_of(0, BPF_ALLOWED)?]);
    let network = [libc::CLONE_NEWNET.unsigned_abs().into()];
    rules.insert(libc::SYS_setns, vec![none_of(1, &network)?]);
    SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM.unsigned_abs()),
        std::env::consts::ARCH.try_into()?,
    )?
    .try_into()
}

/// Puts it in force for the calling thread, and for each that it starts from now on. For good. Sets
/// no_new_privs.
///
/// # Errors
/// Where the kernel has no seccomp filters, or portwatch none for this architecture.
pub fn put_in_force() -> io::Result<()> {
    let program = filter().map_err(io::Error::other)?;
    seccompiler::apply_filter(&program).map_err(|error| match error {
        seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => error,
        error => io::Error::other(error),
    })
}

/// Whether it can be put in force: the kernel is asked, and nothing changes (seccomp(2),
/// SECCOMP_GET_ACTION_AVAIL).
#[must_use]
pub fn is_available() -> bool {
    const GET_ACTION_AVAIL: libc::c_uint = 2; // include/uapi/linux/seccomp.h
    let action: u32 = libc::SECCOMP_RET_ERRNO;
    // SAFETY: one word, only read.
    let answer =
        unsafe { libc::syscall(libc::SYS_seccomp, GET_ACTION_AVAIL, 0, &raw const action) };
    answer == 0 && filter().is_ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::{fs::File, os::fd::AsRawFd as _, process::Command};

    use nix::{errno::Errno, sched};

    use super::*;

    fn errno(result: libc::c_long) -> Option<Errno> {
        (result < 0).then(Errno::last)
    }

    #[test]
    fn what_is_never_done_is_refused_and_the_rest_goes_on() {
        if !is_available() {
            println!("skip: no seccomp filters here");
            return;
        }
        // Of one thread: the others of this test program go on without.
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                put_in_force().unwrap();
                let error = Command::new("/bin/true").status().unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::EPERM));
                // SAFETY: refused before they look at anything.
                unsafe {
                    assert_eq!(
                        errno(libc::syscall(libc::SYS_ptrace, 0)),
                        Some(Errno::EPERM)
                    );
                    // BPF_PROG_LOAD, and a lookup in what is no map.
                    let attr = [u64::MAX; 4];
                    let bpf = |command: u32| {
                        errno(libc::syscall(libc::SYS_bpf, command, attr.as_ptr(), 32))
                    };
                    assert_eq!(bpf(5), Some(Errno::EPERM));
                    if nix::unistd::geteuid().is_root() {
                        assert_ne!(bpf(1), Some(Errno::EPERM));
                    }
                }
                let own = File::open("/proc/self/ns/uts").unwrap();
                let refused = sched::setns(&own, sched::CloneFlags::CLONE_NEWUTS);
                assert_eq!(refused, Err(Errno::EPERM));
                // Of the wrong kind, which the kernel itself says.
                let refused = sched::setns(&own, sched::CloneFlags::CLONE_NEWNET);
                assert_eq!(refused, Err(Errno::EINVAL));
                assert!(own.as_raw_fd() > 2);
                std::thread::spawn(|| File::open("/proc/self/status").unwrap())
                    .join()
                    .unwrap();
            });
            thread.join().unwrap();
        });
    }
}
