//! Programs of a few instructions, which need no loader.

use std::{
    ffi::CStr,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use nix::{errno::Errno, sys::resource::Resource};

use super::{super::check_long, PROG_LOAD, bpf};

const RAW_TRACEPOINT_OPEN: i32 = 17;

/// Kinds (`enum bpf_prog_type`).
pub(crate) mod kind {
    pub(crate) const KPROBE: u32 = 2;
    pub(crate) const RAW_TRACEPOINT: u32 = 17;
    pub(crate) const TRACING: u32 = 26;
}

/// Where a program of kind `TRACING` goes (`enum bpf_attach_type`).
pub(crate) mod at {
    pub(crate) const TRACEPOINT: u32 = 23;
    pub(crate) const ENTRY: u32 = 24;
    pub(crate) const RETURN: u32 = 25;
    /// Before a function, whose place it takes if it returns something else than 0.
    pub(crate) const INSTEAD: u32 = 26;
}

/// r0 = 0; exit
pub(crate) const NOTHING: [u64; 2] = [0xb7, 0x95];

/// What the kernel is to load.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Program<'a> {
    /// One of [`kind`], or another.
    pub(crate) kind: u32,
    /// `expected_attach_type`: one of [`at`], or another.
    pub(crate) at: u32,
    /// Id of a function or tracepoint in the kernel's BTF; 0 without one.
    pub(crate) target: u32,
    /// Its instructions.
    pub(crate) code: &'a [u64],
    /// Its name, NUL-padded.
    pub(crate) name: [u8; 16],
}

impl Program<'_> {
    /// Loads it.
    pub(crate) fn load(&self) -> Result<OwnedFd, Errno> {
        #[repr(C)]
        #[derive(Default)]
        struct Attr {
            prog_type: u32,
            insn_cnt: u32,
            insns: u64,
            license: u64,
            log_level: u32,
            log_size: u32,
            log_buf: u64,
            kern_version: u32,
            prog_flags: u32,
            prog_name: [u8; 16],
            prog_ifindex: u32,
            expected_attach_type: u32,
            prog_btf_fd: u32,
            func_info_rec_size: u32,
            func_info: u64,
            func_info_cnt: u32,
            line_info_rec_size: u32,
            line_info: u64,
            line_info_cnt: u32,
            attach_btf_id: u32,
        }
        let mut attr = Attr {
            prog_type: self.kind,
            insn_cnt: self.code.len() as u32,
            insns: self.code.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            prog_name: self.name,
            expected_attach_type: self.at,
            attach_btf_id: self.target,
            ..Attr::default()
        };
        let fd = match bpf(PROG_LOAD, &mut attr) {
            // Before 5.11 programs count as locked memory.
            Err(Errno::EPERM) => {
                let all = libc::RLIM_INFINITY;
                nix::sys::resource::setrlimit(Resource::RLIMIT_MEMLOCK, all, all)?;
                bpf(PROG_LOAD, &mut attr)?
            }
            loaded => loaded?,
        };
        // SAFETY: the kernel has just returned this descriptor.
        Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
    }
}

/// Attaches a program: of kind `RAW_TRACEPOINT` to the tracepoint of that name, of kind `TRACING` to what it was loaded
/// for. As long as the value lives.
pub(crate) fn attach(program: &OwnedFd, tracepoint: Option<&CStr>) -> Result<OwnedFd, Errno> {
    #[repr(C)]
    struct Attr {
        name: u64,
        prog_fd: u32,
        reserved: u32,
    }
    let mut attr = Attr {
        name: tracepoint.map_or(0, |name| name.as_ptr() as u64),
        prog_fd: program.as_raw_fd().cast_unsigned(),
        reserved: 0,
    };
    let fd = bpf(RAW_TRACEPOINT_OPEN, &mut attr)?;
    // SAFETY: the kernel has just returned this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Attaches a program of kind `KPROBE` to a function (perf_event_open(2), and `pmu`, the number of the kernel's PMU for
/// kprobes). As long as the value lives.
pub(crate) fn attach_probe(
    program: &OwnedFd,
    function: &CStr,
    at_return: bool,
    pmu: u32,
) -> Result<OwnedFd, Errno> {
    const SIZE: usize = 128;
    // include/uapi/linux/perf_event.h
    const SET_BPF: libc::Ioctl = 0x4004_2408_u32 as libc::Ioctl;
    const ENABLE: libc::Ioctl = 0x2400;
    const CLOEXEC: u64 = 1 << 3;
    // struct perf_event_attr: type and size, config, and config1, which is the name.
    let mut attr = [0_u64; SIZE / 8];
    attr[0] = u64::from(pmu) | (SIZE as u64) << 32;
    attr[1] = at_return.into();
    attr[7] = function.as_ptr() as u64;
    // SAFETY: a valid structure of that size; any process, CPU 0, no group.
    let fd = check_long(unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attr,
            -1,
            0,
            -1,
            CLOEXEC,
        )
    })?;
    // SAFETY: the kernel has just returned this descriptor.
    let event = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    for (request, argument) in [(SET_BPF, program.as_raw_fd()), (ENABLE, 0)] {
        // SAFETY: a descriptor of ours, and requests that take a number.
        check_long(unsafe { libc::ioctl(event.as_raw_fd(), request, argument) }.into())?;
    }
    Ok(event)
}
