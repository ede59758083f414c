//! The address a caller asked for: a sockaddr, in kernel or in user memory.

use core::ffi::c_void;

use aya_ebpf::helpers::{
    bpf_probe_read_kernel_buf, bpf_probe_read_user_buf,
};

use super::memory::Ptr;

/// Where a sockaddr lies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Space {
    Kernel,
    User,
}

/// `sizeof(struct sockaddr_in6)`, the longest one read here.
const LONGEST: usize = 28;

/// AF_INET
pub(crate) const AF_INET: u16 = 2;
/// AF_INET6
pub(crate) const AF_INET6: u16 = 10;

/// The parts of a sockaddr (RFC 3493); `len` says how much of it is real.
#[derive(Clone, Copy)]
pub(crate) struct Request {
    bytes: [u8; LONGEST],
    len: u32,
}

impl Request {
    /// Reads the sockaddr; nothing beyond `len` is looked at, since the kernel leaves whatever was
    /// on its stack there.
    #[inline(always)]
    pub(crate) fn read(address: Ptr, len: u32, space: Space) -> Option<Self> {
        let mut bytes = [0u8; LONGEST];
        // Fixed sizes keep old verifiers content; sockaddr_in and sockaddr_in6 are all there is.
        if len >= 28 {
            copy::<28>(&mut bytes, address, space)?;
        } else if len >= 24 {
            copy::<24>(&mut bytes, address, space)?;
        } else if len >= 8 {
            copy::<8>(&mut bytes, address, space)?;
        } else if len >= 4 {
            copy::<4>(&mut bytes, address, space)?;
        } else if len >= 2 {
            copy::<2>(&mut bytes, address, space)?;
        } else {
            return None;
        }
        Some(Self { bytes, len })
    }

    /// AF_*
    pub(crate) fn family(&self) -> u16 {
        let [low, high, ..] = self.bytes;
        u16::from_ne_bytes([low, high])
    }

    fn is_inet(&self) -> bool {
        // bind() of an AF_INET socket takes AF_UNSPEC for AF_INET (net/ipv4/af_inet.c).
        matches!(self.family(), AF_INET | AF_INET6 | 0)
    }

    /// The port, host byte order.
    pub(crate) fn port(&self) -> Option<u16> {
        let [_, _, high, low, ..] = self.bytes;
        (self.len >= 4 && self.is_inet()).then(|| u16::from_be_bytes([high, low]))
    }

    /// The address and its family, IPv4 in the first four bytes.
    pub(crate) fn address(&self) -> Option<(u16, [u8; 16])> {
        let mut address = [0u8; 16];
        if self.family() == AF_INET6 {
            if self.len < 24 {
                return None;
            }
            address.copy_from_slice(self.bytes.get(8..24)?);
            Some((AF_INET6, address))
        } else if self.is_inet() && self.len >= 8 {
            address.get_mut(..4)?.copy_from_slice(self.bytes.get(4..8)?);
            Some((AF_INET, address))
        } else {
            None
        }
    }
}

#[inline(always)]
fn copy<const N: usize>(to: &mut [u8; LONGEST], from: *const c_void, space: Space) -> Option<()> {
    let to = to.get_mut(..N)?;
    // SAFETY: the helpers check the address and fail instead of faulting.
    match space {
        Space::Kernel => unsafe { bpf_probe_read_kernel_buf(from.cast(), to) },
        Space::User => unsafe { bpf_probe_read_user_buf(from.cast(), to) },
    }
    .ok()
}
