//! Socket addresses, right ones and wrong ones.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What is handed to bind() or connect(): the bytes, and what they ask for where that is clear.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    bytes: Vec<u8>,
    /// The IP address asked for.
    pub(crate) ip: Option<IpAddr>,
    /// The port asked for; 0 leaves it to the kernel.
    pub(crate) port: Option<u16>,
}

impl Address {
    /// Pointer and length for the system call.
    pub(crate) fn raw(&self) -> (*const libc::sockaddr, libc::socklen_t) {
        (
            self.bytes.as_ptr().cast(),
            libc::socklen_t::try_from(self.bytes.len()).unwrap_or(libc::socklen_t::MAX),
        )
    }

    /// The bytes as the kernel reads them.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The same address, cut short: what it asks for is no longer clear.
    pub(crate) fn cut(mut self, len: usize) -> Self {
        self.bytes.truncate(len);
        self.ip = None;
        self.port = None;
        self
    }

    /// The same bytes under another family.
    pub(crate) fn with_family(mut self, family: i32) -> Self {
        let family = u16::try_from(family).unwrap_or(u16::MAX);
        self.bytes.splice(0..2, family.to_ne_bytes());
        self
    }

    /// AF_UNSPEC: to connect(), "forget the peer".
    pub(crate) fn unspec() -> Self {
        Self {
            bytes: vec![0; 16],
            ip: None,
            port: None,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        let mut bytes = Vec::with_capacity(28);
        match address {
            SocketAddr::V4(v4) => {
                bytes.extend(2_u16.to_ne_bytes());
                bytes.extend(v4.port().to_be_bytes());
                bytes.extend(v4.ip().octets());
                bytes.extend([0; 8]);
            }
            SocketAddr::V6(v6) => {
                bytes.extend(10_u16.to_ne_bytes());
                bytes.extend(v6.port().to_be_bytes());
                bytes.extend(v6.flowinfo().to_be_bytes());
                bytes.extend(v6.ip().octets());
                bytes.extend(v6.scope_id().to_ne_bytes());
            }
        }
        Self {
            bytes,
            ip: Some(address.ip()),
            port: Some(address.port()),
        }
    }
}

impl From<(Ipv4Addr, u16)> for Address {
    fn from((ip, port): (Ipv4Addr, u16)) -> Self {
        SocketAddr::from((ip, port)).into()
    }
}

impl From<(Ipv6Addr, u16)> for Address {
    fn from((ip, port): (Ipv6Addr, u16)) -> Self {
        SocketAddr::from((ip, port)).into()
    }
}

impl From<(IpAddr, u16)> for Address {
    fn from(address: (IpAddr, u16)) -> Self {
        SocketAddr::from(address).into()
    }
}

/// An address from what getsockname() or getpeername() filled in; `None` where it is no IP address.
pub(crate) fn parse(bytes: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(bytes.get(0..2)?.try_into().ok()?);
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    match i32::from(family) {
        libc::AF_INET => {
            let ip: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
            Some((Ipv4Addr::from(ip), port).into())
        }
        libc::AF_INET6 => {
            let ip: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
            Some((Ipv6Addr::from(ip), port).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_reads_back_what_from_wrote() {
        for address in [
            "127.0.0.7:8080",
            "[2001:db8::1]:65535",
            "[::ffff:1.2.3.4]:1",
        ] {
            let address: SocketAddr = address.parse().expect("a literal of this test");
            assert_eq!(parse(Address::from(address).bytes()), Some(address));
        }
        assert_eq!(parse(&[1, 0, 0, 0]), None);
        assert_eq!(parse(&[]), None);
    }

    #[test]
    fn a_cut_address_asks_for_nothing() {
        let cut = Address::from((Ipv4Addr::LOCALHOST, 8080)).cut(4);
        assert_eq!((cut.bytes().len(), cut.ip, cut.port), (4, None, None));
    }
}
