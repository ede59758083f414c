//! What this kernel lets us load, found out by loading a few instructions: asked, not guessed from a
//! version number.

use std::{
    io,
    os::fd::{FromRawFd as _, OwnedFd},
};

use portwatch_ebpf::abi::config::helper;

use crate::plan::generation::Cast;

/// bpf(2), BPF_PROG_LOAD
const PROG_LOAD: i32 = 5;

/// A kind of program, `enum bpf_prog_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramKind {
    /// BPF_PROG_TYPE_KPROBE
    Kprobe,
    /// BPF_PROG_TYPE_RAW_TRACEPOINT
    RawTracepoint,
    /// BPF_PROG_TYPE_TRACING, fexit of the function with this BTF id.
    Tracing(u32),
    /// BPF_PROG_TYPE_TRACING, the iterator whose function has this BTF id.
    Iterator(u32),
}

impl ProgramKind {
    fn numbers(self) -> (u32, u32, u32) {
        const TRACE_FEXIT: u32 = 25;
        const TRACE_ITER: u32 = 28;
        match self {
            Self::Kprobe => (2, 0, 0),
            Self::RawTracepoint => (17, 0, 0),
            Self::Tracing(id) => (26, TRACE_FEXIT, id),
            Self::Iterator(id) => (26, TRACE_ITER, id),
        }
    }
}

/// `struct bpf_insn`
type Instruction = [u8; 8];

/// The first part of `union bpf_attr` for BPF_PROG_LOAD (include/uapi/linux/bpf.h).
#[repr(C)]
#[derive(Default)]
struct ProgLoad {
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
    attach_prog_fd: u32,
    padding: u32,
}

const _: () = assert!(size_of::<ProgLoad>() == 120);

/// r0 = 0
const RETURN_ZERO: Instruction = [0xb7, 0, 0, 0, 0, 0, 0, 0];
/// exit
const EXIT: Instruction = [0x95, 0, 0, 0, 0, 0, 0, 0];

fn load(kind: ProgramKind, instructions: &[Instruction], log: &mut [u8]) -> io::Result<OwnedFd> {
    let (prog_type, expected_attach_type, attach_btf_id) = kind.numbers();
    let attr = ProgLoad {
        prog_type,
        insn_cnt: instructions.len() as u32,
        insns: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: u32::from(!log.is_empty()),
        log_size: log.len() as u32,
        log_buf: if log.is_empty() {
            0
        } else {
            log.as_mut_ptr() as u64
        },
        expected_attach_type,
        attach_btf_id,
        ..ProgLoad::default()
    };
    // SAFETY: attr and what it points to live until the call returns; its size is told.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            PROG_LOAD,
            &raw const attr,
            size_of::<ProgLoad>(),
        )
    };
    match i32::try_from(fd) {
        // SAFETY: the kernel has just given us this descriptor.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether programs of a kind may be loaded.
///
/// # Errors
/// The reason, in words.
pub fn program(kind: ProgramKind) -> Result<(), String> {
    load(kind, &[RETURN_ZERO, EXIT], &mut [])
        .map(drop)
        .map_err(|error| {
            let what = match kind {
                ProgramKind::Kprobe => "kprobe programs",
                ProgramKind::RawTracepoint => "raw tracepoint programs",
                ProgramKind::Tracing(_) => "tracing programs (fentry, fexit)",
                ProgramKind::Iterator(_) => "iterators",
            };
            match error.raw_os_error() {
                Some(libc::EPERM) => format!("the kernel does not permit {what}"),
                Some(libc::EINVAL) => format!("the kernel does not know {what}"),
                _ => format!("the kernel refuses {what}: {error}"),
            }
        })
}

/// Helpers newer than 5.10 that programs of a kind may call: bits of
/// `portwatch_ebpf::abi::config::helper`.
#[must_use]
pub fn helpers(kind: ProgramKind) -> u32 {
    // enum bpf_func_id (include/uapi/linux/bpf.h)
    const HELPERS: [(i32, u32); 4] = [
        (158, helper::TASK_BTF),
        (46, helper::SOCKET_COOKIE),
        (123, helper::ANCESTOR_CGROUP),
        (175, helper::TASK_PT_REGS),
    ];
    HELPERS
        .iter()
        .filter(|(id, _)| knows_helper(kind, *id))
        .fold(0, |bits, (_, bit)| bits | bit)
}

/// Whether programs of a kind may call bpf_loop().
#[must_use]
pub fn loops(kind: ProgramKind) -> bool {
    const BPF_LOOP: i32 = 181;
    knows_helper(kind, BPF_LOOP)
}

/// Whether programs of a kind may load words from any address by `bpf_rdonly_cast()`.
#[must_use]
pub fn casts(kind: ProgramKind, cast: Cast) -> bool {
    let immediate = |code: u8, registers: u8, value: u32| {
        let mut instruction: Instruction = [code, registers, 0, 0, 0, 0, 0, 0];
        instruction[4..].copy_from_slice(&value.to_ne_bytes());
        instruction
    };
    let program = [
        immediate(0xb7, 1, 0),                // r1 = 0
        immediate(0xb7, 2, cast.word),        // r2 = the struct
        immediate(0x85, 0x20, cast.function), // a function of the kernel
        immediate(0x79, 0, 0),                // r0 = *(u64 *)(r0 + 0)
        RETURN_ZERO,
        EXIT,
    ];
    load(kind, &program, &mut []).is_ok()
}

/// The verifier looks up a helper before it checks its arguments, and says so when there is none.
fn knows_helper(kind: ProgramKind, id: i32) -> bool {
    const UNKNOWN: [&str; 3] = [
        "unknown func",
        "invalid func",
        "program of this type cannot use helper",
    ];
    let mut call: Instruction = [0x85, 0, 0, 0, 0, 0, 0, 0];
    call[4..].copy_from_slice(&id.to_ne_bytes());
    let mut log = [0u8; 2048];
    match load(kind, &[call, RETURN_ZERO, EXIT], &mut log) {
        Ok(_) => true,
        Err(_) => {
            let log = String::from_utf8_lossy(&log);
            let log = log.trim_end_matches('\0');
            !log.is_empty() && !UNKNOWN.iter().any(|text| log.contains(text))
        }
    }
}
