//! System calls of a 32-bit program, made by a 64-bit one through `int 0x80`.

use anyhow::{Result, ensure};
use nix::errno::Errno;

use super::task;

/// How a 32-bit program asks for something of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Convention {
    /// A number for each call.
    Numbers,
    /// socketcall(), as programs of before Linux 4.3 make it.
    Socketcall,
}

/// socketcall() in arch/x86/entry/syscalls/syscall_32.tbl.
const SOCKETCALL: u32 = 102;

/// A call, by its number there, and by its number of include/uapi/linux/net.h.
#[derive(Clone, Copy)]
struct Number(u32, u32);

const BIND: Number = Number(361, 2);
const CONNECT: Number = Number(362, 3);
const LISTEN: Number = Number(363, 4);
const ACCEPT4: Number = Number(364, 18);

#[cfg(target_arch = "x86_64")]
const LOW: i32 = libc::MAP_32BIT;
#[cfg(not(target_arch = "x86_64"))]
const LOW: i32 = 0;

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
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | LOW,
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

#[cfg(not(target_arch = "x86_64"))]
fn int80(_: u32, _: [u32; 4]) -> Result<i32, Errno> {
    Err(Errno::ENOSYS)
}

/// `int 0x80`; what it returns. A kernel without it kills the process, so call it from a fork.
#[cfg(target_arch = "x86_64")]
fn int80(number: u32, [first, second, third, fourth]: [u32; 4]) -> Result<i32, Errno> {
    let ret: i32;
    // SAFETY: system calls that only read what the arguments point to. rbx is the compiler's own,
    // so it is swapped in and out; the kernel clears r8 to r11.
    unsafe {
        std::arch::asm!(
            "xchg {first:r}, rbx",
            "int 0x80",
            "xchg {first:r}, rbx",
            first = inout(reg) u64::from(first) => _,
            inlateout("eax") number => ret,
            in("ecx") second,
            in("edx") third,
            in("esi") fourth,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    if ret < 0 {
        Err(Errno::from_raw(-ret))
    } else {
        Ok(ret)
    }
}

impl Convention {
    fn call(self, page: &LowPage, number: Number, args: [u32; 4]) -> Result<i32, Errno> {
        match self {
            Self::Numbers => int80(number.0, args),
            Self::Socketcall => {
                let bytes: Vec<u8> = args.iter().flat_map(|arg| arg.to_ne_bytes()).collect();
                int80(SOCKETCALL, [number.1, page.put(256, &bytes), 0, 0])
            }
        }
    }

    /// bind()
    pub(crate) fn bind(self, page: &LowPage, fd: i32, address: &[u8]) -> Result<(), Errno> {
        self.with_address(page, BIND, fd, address)
    }

    /// connect()
    pub(crate) fn connect(self, page: &LowPage, fd: i32, address: &[u8]) -> Result<(), Errno> {
        self.with_address(page, CONNECT, fd, address)
    }

    fn with_address(
        self,
        page: &LowPage,
        number: Number,
        fd: i32,
        address: &[u8],
    ) -> Result<(), Errno> {
        let pointer = page.put(0, address);
        let args = [fd.cast_unsigned(), pointer, address.len() as u32, 0];
        self.call(page, number, args).map(drop)
    }

    /// listen()
    pub(crate) fn listen(self, page: &LowPage, fd: i32, backlog: i32) -> Result<(), Errno> {
        let args = [fd.cast_unsigned(), backlog.cast_unsigned(), 0, 0];
        self.call(page, LISTEN, args).map(drop)
    }

    /// accept4(), close-on-exec: the new descriptor.
    pub(crate) fn accept(self, page: &LowPage, fd: i32) -> Result<i32, Errno> {
        let args = [fd.cast_unsigned(), 0, 0, libc::SOCK_CLOEXEC.cast_unsigned()];
        self.call(page, ACCEPT4, args)
    }
}

/// Why this kernel has no such calls; `None` where it has. The trial is a bind() of no socket.
pub(crate) fn missing() -> Result<Option<String>> {
    if !cfg!(target_arch = "x86_64") {
        return Ok(Some("32-bit calls are only made on x86-64".to_owned()));
    }
    // It may kill the caller: let that be somebody else.
    let (_, ended, _) = task::fork_with(None, || {
        let result = Convention::Numbers.bind(&LowPage::new()?, -1, &[]);
        ensure!(result == Err(Errno::EBADF), "{result:?}");
        Ok(())
    })?;
    Ok((ended != task::Ended::Code(0))
        .then(|| format!("no 32-bit system calls on this kernel ({ended:?})")))
}
