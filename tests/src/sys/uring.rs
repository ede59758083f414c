//! io_uring: one request at a time.

use std::os::fd::RawFd;

use anyhow::{Context as _, Result};
use io_uring::{IoUring, Probe, opcode, squeue, types};
use nix::errno::Errno;

use super::addr::Address;

/// A ring.
pub(crate) struct Ring {
    ring: IoUring,
}

impl Ring {
    /// A ring whose requests are submitted by the caller.
    pub(crate) fn new() -> Result<Self> {
        let ring = IoUring::new(8).context("cannot make an io_uring")?;
        Ok(Self { ring })
    }

    /// A ring whose requests are submitted by a kernel thread of this process.
    pub(crate) fn with_kernel_thread() -> Result<Self> {
        let ring = IoUring::builder()
            .setup_sqpoll(1000)
            .build(8)
            .context("cannot make an io_uring with a submission thread")?;
        Ok(Self { ring })
    }

    /// Whether this kernel knows an operation.
    pub(crate) fn supports(&self, code: u8) -> bool {
        let mut probe = Probe::new();
        self.ring.submitter().register_probe(&mut probe).is_ok() && probe.is_supported(code)
    }

    /// IORING_OP_BIND
    pub(crate) fn bind(&mut self, fd: RawFd, address: &Address) -> Result<Result<(), Errno>> {
        let (pointer, len) = address.raw();
        self.run(&opcode::Bind::new(types::Fd(fd), pointer, len).build())
    }

    /// IORING_OP_LISTEN
    pub(crate) fn listen(&mut self, fd: RawFd, backlog: i32) -> Result<Result<(), Errno>> {
        self.run(&opcode::Listen::new(types::Fd(fd), backlog).build())
    }

    /// IORING_OP_CONNECT
    pub(crate) fn connect(&mut self, fd: RawFd, address: &Address) -> Result<Result<(), Errno>> {
        let (pointer, len) = address.raw();
        self.run(&opcode::Connect::new(types::Fd(fd), pointer, len).build())
    }

    /// IORING_OP_ACCEPT
    pub(crate) fn accept(&mut self, listener: RawFd) -> Result<Result<RawFd, Errno>> {
        let null = std::ptr::null_mut();
        let entry = opcode::Accept::new(types::Fd(listener), null, null.cast()).build();
        self.result_of(&entry)
    }

    /// Submits a request and waits for its end.
    fn run(&mut self, entry: &squeue::Entry) -> Result<Result<(), Errno>> {
        Ok(self.result_of(entry)?.map(drop))
    }

    /// Submits a request and waits for it. What it points to lives until then, because the callers
    /// above hold it borrowed.
    fn result_of(&mut self, entry: &squeue::Entry) -> Result<Result<i32, Errno>> {
        // SAFETY: the request's pointers stay valid until its completion is read below.
        unsafe { self.ring.submission().push(entry) }.context("the submission queue is full")?;
        self.ring
            .submit_and_wait(1)
            .context("io_uring_enter failed")?;
        let completion = self
            .ring
            .completion()
            .next()
            .context("io_uring returned without a completion")?;
        Ok(match completion.result() {
            code if code < 0 => Err(Errno::from_raw(-code)),
            result => Ok(result),
        })
    }
}
