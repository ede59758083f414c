//! System calls as the raw tracepoint `sys_exit` sees them: number, arguments, the socket behind a
//! descriptor.

use portwatch_ebpf::abi::{layout::ABSENT, record::op};

use super::{
    generation::Generation,
    memory::{Memory, Ptr, offset},
    sock,
    task::Current,
};

/// The calls that are followed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Bind,
    Listen,
    Connect,
}

/// Numbers of the 64-bit calls (arch/x86/entry/syscalls/syscall_64.tbl).
mod number {
    pub(super) const CONNECT: u64 = 42;
    pub(super) const BIND: u64 = 49;
    pub(super) const LISTEN: u64 = 50;
    pub(super) const SENDTO: u64 = 44;
    pub(super) const SENDMSG: u64 = 46;
    pub(super) const SENDMMSG: u64 = 307;
    /// Numbers of the 32-bit calls (syscall_32.tbl); no 64-bit call has them.
    pub(super) const BIND_32: u64 = 361;
    pub(super) const CONNECT_32: u64 = 362;
    pub(super) const LISTEN_32: u64 = 363;
    pub(super) const SENDTO_32: u64 = 369;
    pub(super) const SENDMSG_32: u64 = 370;
    pub(super) const SENDMMSG_32: u64 = 345;
    pub(super) const SOCKETCALL_32: u64 = 102;
    pub(super) const ACCEPT: u64 = 43;
    pub(super) const ACCEPT4: u64 = 288;
    pub(super) const ACCEPT4_32: u64 = 364;
}

/// Whether a system call of this number does such a thing by itself.
#[inline(always)]
pub(crate) fn asks(op: u8, number: u64) -> bool {
    if op == op::ACCEPT {
        is_accept(number) || number == number::SOCKETCALL_32
    } else {
        is_socket_call(number)
    }
}

/// Whether a system call of this number is accept() or accept4().
#[inline(always)]
pub(crate) fn is_accept(number: u64) -> bool {
    matches!(
        number,
        number::ACCEPT | number::ACCEPT4 | number::ACCEPT4_32
    )
}

/// Whether a system call of this number asks for a port by itself.
fn is_socket_call(number: u64) -> bool {
    use number::*;
    matches!(
        number,
        CONNECT
            | BIND
            | LISTEN
            | SENDTO
            | SENDMSG
            | SENDMMSG
            | BIND_32
            | CONNECT_32
            | LISTEN_32
            | SENDTO_32
            | SENDMSG_32
            | SENDMMSG_32
            | SOCKETCALL_32
    )
}

/// Whether a system call of this number is connect().
pub(crate) fn is_connect(number: u64) -> bool {
    matches!(number, number::CONNECT | number::CONNECT_32)
}

/// What a finished call was about.
pub(crate) struct Finished {
    pub(crate) call: Call,
    pub(crate) sk: Ptr,
    /// Second and third argument.
    pub(crate) second: u64,
    pub(crate) third: u64,
}

/// Number of a system call that has just returned.
#[inline(always)]
pub(crate) fn number_of<F: Memory>(regs: Ptr) -> u64 {
    F::load(regs, offset!(regs_orig_ax))
}

/// Whether a call may be one that is followed: two comparisons, by which nearly every system call of
/// the machine leaves.
#[inline(always)]
pub(crate) fn may_be_followed(number: u64) -> bool {
    use number::*;
    number.wrapping_sub(CONNECT) <= LISTEN - CONNECT
        || number.wrapping_sub(BIND_32) <= LISTEN_32 - BIND_32
}

/// Looks at the registers of a system call that has just returned.
#[inline(always)]
pub(crate) fn finished<G: Generation>(regs: Ptr) -> Option<Finished> {
    let (call, compat) = match number_of::<G::Far>(regs) {
        number::CONNECT => (Call::Connect, false),
        number::BIND => (Call::Bind, false),
        number::LISTEN => (Call::Listen, false),
        number::CONNECT_32 => (Call::Connect, true),
        number::BIND_32 => (Call::Bind, true),
        number::LISTEN_32 => (Call::Listen, true),
        _ => return None,
    };
    let task = Current::<G>::get();
    if task.is_compat() != compat {
        return None;
    }
    let (first, second, third) = if compat {
        (offset!(regs_bx), offset!(regs_cx), offset!(regs_dx))
    } else {
        (offset!(regs_di), offset!(regs_si), offset!(regs_dx))
    };
    if first == ABSENT || second == ABSENT || third == ABSENT {
        return None;
    }
    let width = if compat { 0xffff_ffff } else { u64::MAX };
    let fd = G::Far::load::<u64>(regs, first) as u32;
    Some(Finished {
        call,
        sk: socket(task, fd)?,
        second: G::Far::load::<u64>(regs, second) & width,
        third: G::Far::load::<u64>(regs, third) & width,
    })
}

/// The socket that a finished accept() is about: the connection that it returns the descriptor of, or,
/// where it has failed, the listener.
#[inline(always)]
pub(crate) fn accepting<G: Generation>(regs: Ptr, result: i64) -> Option<Ptr> {
    let number = number_of::<G::Far>(regs);
    let task = Current::<G>::get();
    let compat = number == number::ACCEPT4_32;
    if task.is_compat() != compat {
        return None;
    }
    if result >= 0 {
        return socket(task, result as u32);
    }
    let first = if compat {
        offset!(regs_bx)
    } else {
        offset!(regs_di)
    };
    if first == ABSENT {
        return None;
    }
    socket(task, G::Far::load::<u64>(regs, first) as u32)
}

/// The socket behind a descriptor of the running task (fs/file.c).
#[inline(always)]
fn socket<G: Generation>(task: Current<G>, fd: u32) -> Option<Ptr> {
    let files = task.pointer(offset!(task_files));
    let table = G::Far::load::<Ptr>(files, offset!(files_fdt));
    if fd >= G::Far::load::<u32>(table, offset!(fdt_max_fds)) {
        return None;
    }
    let array = G::Far::load::<Ptr>(table, offset!(fdt_fd));
    let file = G::Far::load::<Ptr>(array.wrapping_byte_add(fd as usize * 8), 0);
    let sk = sock::of_file::<G::Far>(file);
    (!sk.is_null()).then_some(sk)
}
