//! System calls of a 32-bit program, made by a 64-bit one through `int 0x80`.

use std::arch::asm;

use anyhow::{Result, ensure};
use nix::errno::Errno;

/// Numbers of arch/x86/entry/syscalls/syscall_32.tbl.
const SOCKETCALL: u32 = 102;
const BIND: u32 = 361;
/// SYS_BIND of include/uapi/linux/net.h.
const SOCKETCALL_BIND: u32 = 2;

/// A page that 32-bit pointers reach.
pub(crate) struct LowPage(*mut u8);

impl LowPage {
    /// Maps one below 2 GiB.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: an anonymous mapping wherever the kernel likes.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                4096,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT,
                -1,
                0,
            )
        };
        ensure!(page != libc::MAP_FAILED, "mmap: {}", Errno::last());
        Ok(Self(page.cast()))
    }

    /// Copies bytes into it and says where they are.
    fn put(&self, offset: usize, bytes: &[u8]) -> u32 {
        assert!(offset + bytes.len() <= 4096, "one page");
        // SAFETY: within the page, as checked; nothing else refers to it.
        unsafe {
            let to = self.0.add(offset);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
            to as u32
        }
    }
}

/// `int 0x80`. A kernel without it kills the process, so call it from a fork.
fn int80(number: u32, first: u32, second: u32, third: u32) -> Result<(), Errno> {
    let ret: i32;
    // SAFETY: system calls that only read what the arguments point to. rbx is the compiler's own,
    // so it is swapped in and out; the kernel clears r8 to r11.
    unsafe {
        asm!(
            "xchg {first:r}, rbx",
            "int 0x80",
            "xchg {first:r}, rbx",
            first = inout(reg) u64::from(first) => _,
            inlateout("eax") number => ret,
            in("ecx") second,
            in("edx") third,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    if ret < 0 {
        Err(Errno::from_raw(-ret))
    } else {
        Ok(())
    }
}

/// bind() by its own number.
pub(crate) fn bind(page: &LowPage, fd: i32, address: &[u8]) -> Result<(), Errno> {
    let pointer = page.put(0, address);
    int80(BIND, fd.cast_unsigned(), pointer, address.len() as u32)
}

/// bind() through socketcall(), as 32-bit programs of before Linux 4.3 make it.
pub(crate) fn socketcall_bind(page: &LowPage, fd: i32, address: &[u8]) -> Result<(), Errno> {
    let pointer = page.put(0, address);
    let mut args = Vec::with_capacity(12);
    args.extend(fd.to_ne_bytes());
    args.extend(pointer.to_ne_bytes());
    args.extend((address.len() as u32).to_ne_bytes());
    let args = page.put(256, &args);
    int80(SOCKETCALL, SOCKETCALL_BIND, args, 0)
}
