//! Descriptors that travel from process to process (unix(7), `SCM_RIGHTS`).

use std::{
    io::{IoSlice, IoSliceMut, Read as _, Write as _},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
};

use anyhow::{Context as _, Result, bail};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

use super::check;

/// A way for descriptors, with a near and a far end: whoever forks has both, a program that is started
/// has the far one.
pub(crate) struct Mailbox {
    near: UnixStream,
    far: UnixStream,
}

impl Mailbox {
    /// An empty one.
    pub(crate) fn new() -> Result<Self> {
        let (near, far) = UnixStream::pair().context("socketpair")?;
        // SAFETY: takes integers.
        check(unsafe { libc::fcntl(far.as_raw_fd(), libc::F_SETFD, 0) }).context("fcntl")?;
        Ok(Self { near, far })
    }

    /// Sends a descriptor: it is nobody's until it is received, once the sender has closed its own.
    pub(crate) fn send(&self, fd: RawFd) -> Result<()> {
        let rights = [fd];
        sendmsg::<()>(
            self.near.as_raw_fd(),
            &[IoSlice::new(b".")],
            &[ControlMessage::ScmRights(&rights)],
            MsgFlags::empty(),
            None,
        )
        .context("sendmsg")?;
        Ok(())
    }

    /// Takes the next one out of it.
    pub(crate) fn receive(&self) -> Result<OwnedFd> {
        receive(self.far.as_raw_fd())
    }

    /// The number of the far end in programs that this process starts.
    pub(crate) fn far(&self) -> RawFd {
        self.far.as_raw_fd()
    }

    /// Waits until the other side has said that it is done.
    pub(crate) fn wait(&mut self) -> Result<()> {
        self.near.read_exact(&mut [0]).context("no word came")
    }
}

/// Takes the next descriptor out of a mailbox by its far end.
fn receive(far: RawFd) -> Result<OwnedFd> {
    let mut room = nix::cmsg_space!([RawFd; 1]);
    let mut byte = [0];
    let mut bytes = [IoSliceMut::new(&mut byte)];
    let message = recvmsg::<()>(far, &mut bytes, Some(&mut room), MsgFlags::MSG_CMSG_CLOEXEC)
        .context("recvmsg")?;
    for message in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = message
            && let Some(&fd) = fds.first()
        {
            // SAFETY: the kernel has just put it into the table of this process.
            return Ok(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
    bail!("no descriptor came")
}

/// The far end of a mailbox in a program that was started with it.
pub(crate) struct Inherited(UnixStream);

impl Inherited {
    /// By its number, which the program was told.
    pub(crate) fn new(number: RawFd) -> Self {
        // SAFETY: whoever starts the program leaves it this descriptor, and says so once.
        Self(UnixStream::from(unsafe { OwnedFd::from_raw_fd(number) }))
    }

    /// Takes the next one out of it.
    pub(crate) fn receive(&self) -> Result<OwnedFd> {
        receive(self.0.as_raw_fd())
    }

    /// Tells the other side that it has what it wanted.
    pub(crate) fn done(&mut self) -> Result<()> {
        self.0.write_all(b"!").context("nobody listens")
    }
}
