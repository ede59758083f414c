//! Sockets by raw system calls, and everything they tell about themselves.

use std::{
    cell::Cell,
    net::SocketAddr,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    time::Duration,
};

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::{
    addr::{self, Address},
    check,
};

/// IPPROTO_MPTCP (include/uapi/linux/in.h).
const IPPROTO_MPTCP: i32 = 262;
/// IP_LOCAL_PORT_RANGE (include/uapi/linux/in.h), Linux 6.3.
pub(crate) const IP_LOCAL_PORT_RANGE: i32 = 51;
/// TCP_CLOSE (include/net/tcp_states.h).
pub(crate) const TCP_CLOSE: u8 = 7;

/// A kind of socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    Tcp4,
    Tcp6,
    Udp4,
    Udp6,
    UdpLite4,
    Mptcp4,
    Mptcp6,
    Sctp4,
}

impl Kind {
    const fn numbers(self) -> (i32, i32, i32) {
        match self {
            Self::Tcp4 => (libc::AF_INET, libc::SOCK_STREAM, 0),
            Self::Tcp6 => (libc::AF_INET6, libc::SOCK_STREAM, 0),
            Self::Udp4 => (libc::AF_INET, libc::SOCK_DGRAM, 0),
            Self::Udp6 => (libc::AF_INET6, libc::SOCK_DGRAM, 0),
            Self::UdpLite4 => (libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE),
            Self::Mptcp4 => (libc::AF_INET, libc::SOCK_STREAM, IPPROTO_MPTCP),
            Self::Mptcp6 => (libc::AF_INET6, libc::SOCK_STREAM, IPPROTO_MPTCP),
            Self::Sctp4 => (libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP),
        }
    }

    /// `network.transport`
    pub(crate) const fn transport(self) -> &'static str {
        match self {
            Self::Tcp4 | Self::Tcp6 | Self::Mptcp4 | Self::Mptcp6 => "tcp",
            Self::Udp4 | Self::Udp6 => "udp",
            Self::UdpLite4 => "udplite",
            Self::Sctp4 => "sctp",
        }
    }

    /// Whether it is an IPv6 socket.
    pub(crate) const fn is_v6(self) -> bool {
        matches!(self, Self::Tcp6 | Self::Udp6 | Self::Mptcp6)
    }

    /// `socket.mptcp`
    pub(crate) const fn is_mptcp(self) -> bool {
        matches!(self, Self::Mptcp4 | Self::Mptcp6)
    }
}

/// Who decided on the local port, as far as this process knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Origin {
    /// No bind() yet.
    Nobody,
    /// bind() with this port.
    Caller,
    /// bind() with port 0.
    Kernel,
}

/// An IP socket.
#[derive(Debug)]
pub(crate) struct Sock {
    fd: OwnedFd,
    /// What kind.
    pub(crate) kind: Kind,
    /// Where the port comes from.
    pub(crate) origin: Cell<Origin>,
    /// The process that made it.
    pub(crate) creator: u32,
}

/// `SO_*`, `IP_*` and `IPV6_*` that appear in events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Options {
    pub(crate) reuseaddr: Option<bool>,
    pub(crate) reuseport: Option<bool>,
    pub(crate) v6only: Option<bool>,
    pub(crate) freebind: Option<bool>,
    pub(crate) transparent: Option<bool>,
    pub(crate) bind_no_port: Option<bool>,
}

/// An MPTCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MptcpInfo {
    /// TCP connections beside the first one.
    pub(crate) subflows: u8,
    /// Addresses that the peer has told of, and that were taken up.
    pub(crate) accepted: u8,
}

impl Sock {
    /// socket(), close-on-exec.
    pub(crate) fn new(kind: Kind) -> Result<Self, Errno> {
        let (family, kind_number, protocol) = kind.numbers();
        // SAFETY: takes and returns integers.
        let fd =
            check(unsafe { libc::socket(family, kind_number | libc::SOCK_CLOEXEC, protocol) })?;
        Ok(Self::from_raw(fd, kind, Origin::Nobody))
    }

    /// A connection that was accepted in some other way.
    pub(crate) fn of_accepted(fd: RawFd, kind: Kind) -> Self {
        Self::from_raw(fd, kind, Origin::Caller)
    }

    /// Another descriptor of the same socket.
    pub(crate) fn copy(&self) -> Result<Self, Errno> {
        // SAFETY: takes a descriptor, which is open.
        let fd = check(unsafe { libc::dup(self.fd()) })?;
        Ok(Self::from_raw(fd, self.kind, self.origin.get()))
    }

    /// One that came from another process, which had its port in that way.
    pub(crate) fn of_received(fd: OwnedFd, kind: Kind, origin: Origin) -> Self {
        Self {
            fd,
            kind,
            origin: Cell::new(origin),
            creator: std::process::id(),
        }
    }

    /// accept(), the call that is older than accept4().
    pub(crate) fn accept_plainly(&self) -> Result<Self, Errno> {
        let null = std::ptr::null_mut();
        // SAFETY: null means "do not tell the peer".
        let fd = check(unsafe { libc::accept(self.fd(), null, null.cast()) })?;
        Ok(Self::from_raw(fd, self.kind, Origin::Caller))
    }

    fn from_raw(fd: RawFd, kind: Kind, origin: Origin) -> Self {
        // SAFETY: the kernel has just returned this descriptor; nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Self::of_received(fd, kind, origin)
    }

    /// Descriptor number.
    pub(crate) fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Lets programs that this process starts have it too.
    pub(crate) fn stay_open_on_exec(&self) -> Result<(), Errno> {
        // SAFETY: takes integers.
        check(unsafe { libc::fcntl(self.fd(), libc::F_SETFD, 0) }).map(drop)
    }

    /// bind()
    pub(crate) fn bind(&self, address: &Address) -> Result<(), Errno> {
        let (pointer, len) = address.raw();
        // SAFETY: `address` outlives the call and `len` is its length.
        check(unsafe { libc::bind(self.fd(), pointer, len) }).map(drop)
    }

    /// listen()
    pub(crate) fn listen(&self, backlog: i32) -> Result<(), Errno> {
        // SAFETY: takes integers.
        check(unsafe { libc::listen(self.fd(), backlog) }).map(drop)
    }

    /// connect()
    pub(crate) fn connect(&self, address: &Address) -> Result<(), Errno> {
        let (pointer, len) = address.raw();
        // SAFETY: `address` outlives the call and `len` is its length.
        check(unsafe { libc::connect(self.fd(), pointer, len) }).map(drop)
    }

    /// accept4(), close-on-exec.
    pub(crate) fn accept(&self) -> Result<Self, Errno> {
        // SAFETY: null means "do not tell the peer".
        let fd = check(unsafe {
            libc::accept4(
                self.fd(),
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                libc::SOCK_CLOEXEC,
            )
        })?;
        Ok(Self::from_raw(fd, self.kind, Origin::Caller))
    }

    /// sendto() of a few bytes, with `MSG_NOSIGNAL`.
    pub(crate) fn send_to(&self, address: &Address, flags: i32) -> Result<(), Errno> {
        let (pointer, len) = address.raw();
        let payload = b"portwatch";
        // SAFETY: payload and address outlive the call; the lengths are theirs.
        let ret = unsafe {
            libc::sendto(
                self.fd(),
                payload.as_ptr().cast(),
                payload.len(),
                flags | libc::MSG_NOSIGNAL,
                pointer,
                len,
            )
        };
        if ret < 0 { Err(Errno::last()) } else { Ok(()) }
    }

    /// send() with `MSG_NOSIGNAL`; how much of it fitted.
    pub(crate) fn send(&self, bytes: &[u8]) -> Result<usize, Errno> {
        // SAFETY: the buffer is as long as said.
        let sent = unsafe {
            libc::send(
                self.fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                libc::MSG_NOSIGNAL,
            )
        };
        usize::try_from(sent).map_err(|_| Errno::last())
    }

    /// recv() of whatever is there, up to a page of it; how much that was.
    pub(crate) fn receive(&self) -> Result<usize, Errno> {
        let mut bytes = [0_u8; 4096];
        // SAFETY: the buffer is as long as said.
        let got = unsafe { libc::recv(self.fd(), bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        usize::try_from(got).map_err(|_| Errno::last())
    }

    /// The beginning of what MPTCP_INFO gives (include/uapi/linux/mptcp.h, struct mptcp_info).
    pub(crate) fn mptcp_info(&self) -> Result<MptcpInfo, Errno> {
        const SOL_MPTCP: i32 = 284;
        const MPTCP_INFO: i32 = 1;
        let [subflows, _, accepted, _] = self.option(SOL_MPTCP, MPTCP_INFO)?.to_ne_bytes();
        Ok(MptcpInfo { subflows, accepted })
    }

    /// shutdown() of this side's direction.
    pub(crate) fn shutdown_write(&self) -> Result<(), Errno> {
        // SAFETY: takes integers.
        check(unsafe { libc::shutdown(self.fd(), libc::SHUT_WR) }).map(drop)
    }

    /// `tcpi_state`: the first byte of what TCP_INFO gives.
    pub(crate) fn tcp_state(&self) -> Result<u8, Errno> {
        let [state, ..] = self
            .option(libc::IPPROTO_TCP, libc::TCP_INFO)?
            .to_ne_bytes();
        Ok(state)
    }

    /// Waits until the socket is writable or in error; `false` on timeout.
    pub(crate) fn wait_writable(&self, timeout: Duration) -> bool {
        self.wait(libc::POLLOUT, timeout)
    }

    /// Waits until there is something to read or accept, or an error; `false` on timeout.
    pub(crate) fn wait_readable(&self, timeout: Duration) -> bool {
        self.wait(libc::POLLIN, timeout)
    }

    fn wait(&self, events: i16, timeout: Duration) -> bool {
        let mut poll = libc::pollfd {
            fd: self.fd(),
            events,
            revents: 0,
        };
        let timeout = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one valid pollfd.
        unsafe { libc::poll(&raw mut poll, 1, timeout) > 0 }
    }

    /// SO_ERROR, which it also clears.
    pub(crate) fn take_error(&self) -> Result<(), Errno> {
        match self.option(libc::SOL_SOCKET, libc::SO_ERROR)? {
            0 => Ok(()),
            code => Err(Errno::from_raw(code)),
        }
    }

    /// O_NONBLOCK
    pub(crate) fn set_nonblocking(&self, on: bool) -> Result<(), Errno> {
        let flags = if on { libc::O_NONBLOCK } else { 0 };
        // SAFETY: takes integers. A fresh socket has no other status flag to keep.
        check(unsafe { libc::fcntl(self.fd(), libc::F_SETFL, flags) }).map(drop)
    }

    /// An integer option.
    pub(crate) fn option(&self, level: i32, name: i32) -> Result<i32, Errno> {
        let mut value: i32 = 0;
        let mut len: libc::socklen_t = 4;
        // SAFETY: `value` is four bytes, as `len` says.
        check(unsafe {
            libc::getsockopt(
                self.fd(),
                level,
                name,
                (&raw mut value).cast(),
                &raw mut len,
            )
        })?;
        Ok(value)
    }

    /// Sets an integer option.
    pub(crate) fn set_option(&self, level: i32, name: i32, value: i32) -> Result<(), Errno> {
        // SAFETY: `value` is four bytes.
        check(unsafe { libc::setsockopt(self.fd(), level, name, (&raw const value).cast(), 4) })
            .map(drop)
    }

    /// SO_REUSEADDR
    pub(crate) fn reuseaddr(self) -> Result<Self, Errno> {
        self.set_option(libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        Ok(self)
    }

    /// SO_REUSEPORT
    pub(crate) fn reuseport(self) -> Result<Self, Errno> {
        self.set_option(libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        Ok(self)
    }

    /// IPV6_V6ONLY
    pub(crate) fn v6only(self) -> Result<Self, Errno> {
        self.set_option(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
        Ok(self)
    }

    /// SO_BINDTODEVICE
    pub(crate) fn bind_to_device(&self, name: &str) -> Result<(), Errno> {
        let len = libc::socklen_t::try_from(name.len()).map_err(|_| Errno::ENODEV)?;
        // SAFETY: `name` is `len` bytes; the kernel wants no NUL.
        check(unsafe {
            libc::setsockopt(
                self.fd(),
                libc::SOL_SOCKET,
                libc::SO_BINDTODEVICE,
                name.as_ptr().cast(),
                len,
            )
        })
        .map(drop)
    }

    /// SO_LINGER with 0 s: close() resets the connection, and nothing stays in TIME_WAIT.
    pub(crate) fn reset_on_close(&self) -> Result<(), Errno> {
        self.set_linger(true)
    }

    /// No SO_LINGER: the kernel ends the connection in good order after close().
    pub(crate) fn end_on_close(&self) -> Result<(), Errno> {
        self.set_linger(false)
    }

    fn set_linger(&self, on: bool) -> Result<(), Errno> {
        let linger = libc::linger {
            l_onoff: on.into(),
            l_linger: 0,
        };
        // SAFETY: a valid struct linger of that size.
        check(unsafe {
            libc::setsockopt(
                self.fd(),
                libc::SOL_SOCKET,
                libc::SO_LINGER,
                (&raw const linger).cast(),
                size_of::<libc::linger>() as libc::socklen_t,
            )
        })
        .map(drop)
    }

    /// The options events carry; `None` where this socket has no such option.
    pub(crate) fn options(&self) -> Options {
        let flag = |level, name| self.option(level, name).ok().map(|value| value != 0);
        Options {
            reuseaddr: flag(libc::SOL_SOCKET, libc::SO_REUSEADDR),
            reuseport: flag(libc::SOL_SOCKET, libc::SO_REUSEPORT),
            v6only: if self.kind.is_v6() {
                flag(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY)
            } else {
                None
            },
            freebind: flag(libc::IPPROTO_IP, libc::IP_FREEBIND),
            transparent: flag(libc::IPPROTO_IP, libc::IP_TRANSPARENT),
            bind_no_port: flag(libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT),
        }
    }

    /// SO_COOKIE. Asking makes the kernel assign one.
    pub(crate) fn cookie(&self) -> Result<u64, Errno> {
        let mut cookie: u64 = 0;
        let mut len: libc::socklen_t = 8;
        // SAFETY: `cookie` is eight bytes, as `len` says.
        check(unsafe {
            libc::getsockopt(
                self.fd(),
                libc::SOL_SOCKET,
                libc::SO_COOKIE,
                (&raw mut cookie).cast(),
                &raw mut len,
            )
        })?;
        Ok(cookie)
    }

    /// Inode and owner of the socket file.
    pub(crate) fn inode_and_uid(&self) -> Result<(u64, u32), Errno> {
        let mut stat = std::mem::MaybeUninit::<libc::stat>::zeroed();
        // SAFETY: a buffer of the right size.
        check(unsafe { libc::fstat(self.fd(), stat.as_mut_ptr()) })?;
        // SAFETY: zeroed, then filled by a successful fstat(); all its fields are integers.
        let stat = unsafe { stat.assume_init() };
        Ok((stat.st_ino, stat.st_uid))
    }

    /// getsockname()
    pub(crate) fn local(&self) -> Option<SocketAddr> {
        self.name(libc::getsockname)
    }

    /// getpeername()
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        self.name(libc::getpeername)
    }

    fn name(
        &self,
        call: unsafe extern "C" fn(i32, *mut libc::sockaddr, *mut libc::socklen_t) -> i32,
    ) -> Option<SocketAddr> {
        let mut bytes = [0_u8; 128];
        let mut len: libc::socklen_t = 128;
        // SAFETY: the buffer is `len` bytes.
        check(unsafe { call(self.fd(), bytes.as_mut_ptr().cast(), &raw mut len) }).ok()?;
        addr::parse(&bytes)
    }
}

/// A socket whose port is nobody's business: raw, ICMP and the like, or not even IP.
pub(crate) fn other(family: i32, kind: i32, protocol: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: takes and returns integers.
    let fd = check(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) })?;
    // SAFETY: the kernel has just returned this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// bind() of any descriptor to any address.
pub(crate) fn bind_raw(fd: RawFd, pointer: *const libc::sockaddr, len: u32) -> Result<(), Errno> {
    // SAFETY: the kernel checks the pointer itself: a bad one is the point of EFAULT's scenario.
    check(unsafe { libc::bind(fd, pointer, len) }).map(drop)
}

/// connect() of any descriptor to any address.
pub(crate) fn connect_raw(fd: RawFd, address: &Address) -> Result<(), Errno> {
    let (pointer, len) = address.raw();
    // SAFETY: `address` outlives the call and `len` is its length.
    check(unsafe { libc::connect(fd, pointer, len) }).map(drop)
}
