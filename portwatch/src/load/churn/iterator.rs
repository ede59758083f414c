//! An iterator over sockets that can run in several network namespaces.

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
    sync::Arc,
};

use aya::programs::{Iter, ProgramError};

/// An iterator, ready to run in any network namespace.
#[derive(Clone)]
pub struct Link(Arc<OwnedFd>);

pub(super) fn link_iterator(program: &mut Iter) -> Result<Link, ProgramError> {
    const BPF_LINK_CREATE: libc::c_long = 28;
    const BPF_TRACE_ITER: u32 = 28;
    let program = program.fd()?.as_fd().as_raw_fd();
    let attr = [program.cast_unsigned(), 0, BPF_TRACE_ITER, 0];
    let fd = bpf(BPF_LINK_CREATE, &attr).map_err(ProgramError::IOError)?;
    Ok(Link(Arc::new(fd)))
}

impl Link {
    /// Runs it in the network namespace of the calling thread, to the end.
    ///
    /// # Errors
    /// When the kernel cannot make or read the file.
    pub fn run(&self) -> io::Result<()> {
        const BPF_ITER_CREATE: libc::c_long = 33;
        let attr = [self.0.as_raw_fd().cast_unsigned(), 0];
        let mut file = File::from(bpf(BPF_ITER_CREATE, &attr)?);
        // The programs write nothing; what is read is the end.
        let mut nothing = [0; 4096];
        while file.read(&mut nothing)? != 0 {}
        Ok(())
    }
}

/// bpf(2), which returns a descriptor. aya has these two calls too, but not so that an iterator can run in
/// several network namespaces.
fn bpf(command: libc::c_long, attr: &[u32]) -> io::Result<OwnedFd> {
    // SAFETY: the attributes are as long as told.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_ptr(), size_of_val(attr)) };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just returned this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
