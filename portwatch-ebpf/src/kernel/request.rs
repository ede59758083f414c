//! The address a caller asked for: a sockaddr, in kernel or in user memory.

use aya_ebpf::{
    helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_user},
    macros::map,
    maps::PerCpuArray,
};

use super::{
    generation::ROOMS,
    memory::{Ptr, zero},
};

/// Where a sockaddr lies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Space {
    Kernel,
    User,
}

/// AF_INET
pub(crate) const AF_INET: u16 = 2;
/// AF_INET6
pub(crate) const AF_INET6: u16 = 10;

/// `sizeof(struct sockaddr_in6)`, the longest one read here.
const LONGEST: u32 = 28;

/// A sockaddr (RFC 3493), and how much of it is real.
///
/// It lies in a map, not on the stack: the verifier follows what it knows of stack slots through
/// every later branch, and the ways an address can be short or of another family would multiply
/// with everything that comes after.
#[repr(C)]
pub(crate) struct Request {
    family: u16,
    port: [u8; 2],
    v4: u32,
    v6: [u64; 2],
    scope: u32,
    len: u32,
    reserved: u64,
}

const _: () = assert!(size_of::<Request>() == 40);

#[map]
static REQUEST: PerCpuArray<Request> = PerCpuArray::with_max_entries(ROOMS, 0);

impl Request {
    /// Reads the sockaddr; nothing beyond `len` is looked at, since the kernel leaves whatever was
    /// on its stack there. What cannot be read has length 0.
    #[inline(always)]
    pub(crate) fn read(room: u32, address: Ptr, len: u32, space: Space) -> Option<&'static Self> {
        let request = REQUEST.get_ptr_mut(room)?;
        // SAFETY: the room of this program on this CPU, which it has to itself while it runs.
        let request = unsafe { &mut *request };
        // SAFETY: plain integers, a multiple of eight bytes; map values are aligned.
        unsafe { zero(&raw mut *request) };
        let size = if len > LONGEST { LONGEST } else { len };
        let to = (&raw mut *request).cast();
        // SAFETY: the helpers check the address and fail instead of faulting; size is at most what
        // lies before `len`.
        let failed = unsafe {
            match space {
                Space::Kernel => bpf_probe_read_kernel(to, size, address),
                Space::User => bpf_probe_read_user(to, size, address),
            }
        };
        if failed == 0 {
            request.len = size;
        }
        Some(request)
    }

    /// AF_*
    pub(crate) fn family(&self) -> u16 {
        self.family
    }

    /// Whether there is a port.
    pub(crate) fn has_port(&self) -> bool {
        // bind() of an AF_INET socket takes AF_UNSPEC for AF_INET (net/ipv4/af_inet.c).
        self.len >= 4 && matches!(self.family, AF_INET | AF_INET6 | 0)
    }

    /// The port, host byte order; 0 also where there is none.
    pub(crate) fn port(&self) -> u16 {
        if self.has_port() {
            u16::from_be_bytes(self.port)
        } else {
            0
        }
    }

    /// The address as its two words in memory, IPv4 in the first half of the first; zeros, which are the
    /// wildcard, where there is none.
    #[inline(always)]
    pub(crate) fn words(&self) -> [u64; 2] {
        if self.family == AF_INET6 {
            self.v6
        } else {
            [u64::from(self.v4), 0]
        }
    }

    /// Writes the address to zeroed memory, IPv4 in the first four bytes, and returns its family;
    /// `None` where there is no address.
    #[inline(always)]
    pub(crate) fn address(&self, to: &mut [u8; 16]) -> Option<u16> {
        let to = (&raw mut *to).cast::<u64>();
        if self.family == AF_INET6 {
            if self.len < 24 {
                return None;
            }
            let [high, low] = self.v6;
            // SAFETY: the two halves of sixteen bytes; records keep addresses aligned.
            unsafe {
                to.write_volatile(high);
                to.add(1).write_volatile(low);
            }
            Some(AF_INET6)
        } else {
            if self.len < 8 || !self.has_port() {
                return None;
            }
            // SAFETY: the first four of sixteen bytes.
            unsafe { to.cast::<u32>().write_volatile(self.v4) };
            Some(AF_INET)
        }
    }
}
