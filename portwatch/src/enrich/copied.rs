//! A socket of another process, looked at through a copy of its descriptor (pidfd_getfd(2), since Linux
//! 5.6): its program can read options that sock_diag does not tell.
//!
//! The copy holds the socket open for the microseconds of a look. Whoever closes it meanwhile is not the
//! last one; we are.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use rustix::{
    fs::fstat,
    io::Errno,
    net::{AddressFamily, SocketAddrAny, SocketType, getpeername, getsockname, sockopt},
    process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open},
};

use crate::event::{Endpoint, Family, Holder, Missed, Socket, SocketOptions, TcpState, Transport};

nix::ioctl_none_bad!(
    /// A descriptor of the socket's network namespace (net/socket.c, `sock_ioctl`); needs CAP_NET_ADMIN
    /// there.
    socket_namespace,
    libc::SIOCGSKNS
);

/// A process to copy descriptors from.
#[derive(Debug)]
pub struct Lender(OwnedFd);

/// What keeps a descriptor from being copied: nothing where process or socket are gone.
fn missed(error: Errno) -> Missed {
    match error {
        Errno::SRCH | Errno::BADF => Missed::Nothing,
        Errno::PERM | Errno::ACCESS => Missed::Hidden,
        _ => Missed::Unread,
    }
}

impl Lender {
    /// A process by its pid.
    ///
    /// # Errors
    /// What is missed for it.
    pub fn open(pid: u32) -> Result<Self, Missed> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or(Missed::Nothing)?;
        let process = pidfd_open(pid, PidfdFlags::empty()).map_err(missed)?;
        Ok(Self(process))
    }

    /// A copy of a descriptor, if it is the one of that socket still. `cookie`: as sock_diag lists it, which
    /// is cheaper to ask for than the inode.
    ///
    /// # Errors
    /// What is missed: without the rights of ptrace (PTRACE_MODE_ATTACH_REALCREDS) the kernel refuses.
    pub fn copy(&self, fd: u32, inode: u64, cookie: Option<u64>) -> Result<Copy, Missed> {
        let fd = i32::try_from(fd).map_err(|_| Missed::Unread)?;
        let copy = pidfd_getfd(&self.0, fd, PidfdGetfdFlags::empty()).map_err(missed)?;
        if cookie.is_some() && sockopt::socket_cookie(&copy).ok() == cookie {
            return Ok(Copy {
                socket: copy,
                is_listed: true,
            });
        }
        let status = fstat(&copy).map_err(missed)?;
        let is_socket = status.st_mode & libc::S_IFMT == libc::S_IFSOCK;
        if status.st_ino != inode || !is_socket {
            return Err(Missed::Nothing);
        }
        Ok(Copy {
            socket: copy,
            is_listed: false,
        })
    }
}

/// A copy of a descriptor.
#[derive(Debug)]
pub struct Copy {
    socket: OwnedFd,
    /// It is the very socket that sock_diag lists. Never an MPTCP one: of these the TCP socket inside is listed.
    is_listed: bool,
}

impl Copy {
    /// The interface that it is bound to.
    fn device(&self) -> Option<u32> {
        let socket = self.socket.as_fd();
        let device = number(socket, libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX).ok()?;
        u32::try_from(device).ok().filter(|&device| device != 0)
    }

    /// What is known of the options of a socket, completed: only what is not known is asked, since each
    /// costs a call.
    pub fn complete(
        &self,
        known: SocketOptions,
        transport: Transport,
        family: Family,
    ) -> SocketOptions {
        let socket = self.socket.as_fd();
        let ip = |name| flag(socket, libc::IPPROTO_IP, name);
        let SocketOptions {
            reuseaddr,
            reuseport,
            v6only,
            freebind,
            transparent,
            bind_no_port,
            mptcp,
        } = known;
        SocketOptions {
            reuseaddr: reuseaddr.or_else(|| sockopt::socket_reuseaddr(socket).ok()),
            reuseport: reuseport.or_else(|| sockopt::socket_reuseport(socket).ok()),
            v6only: v6only.or_else(|| {
                let is_v6 = family == Family::Ipv6;
                is_v6.then(|| sockopt::ipv6_v6only(socket).ok()).flatten()
            }),
            freebind: freebind.or_else(|| ip(libc::IP_FREEBIND)),
            transparent: transparent.or_else(|| ip(libc::IP_TRANSPARENT)),
            bind_no_port: bind_no_port.or_else(|| ip(libc::IP_BIND_ADDRESS_NO_PORT)),
            mptcp: mptcp.or_else(|| match transport {
                Transport::Tcp if !self.is_listed => is_mptcp(socket),
                _ => Some(false),
            }),
        }
    }

    /// The whole of a TCP socket; `None` where it is something else or has no port.
    ///
    /// # Errors
    /// What it is cannot be read.
    pub fn tcp(&self) -> Result<Option<Holder>, Missed> {
        let socket = self.socket.as_fd();
        let family = match sockopt::socket_domain(socket).map_err(unread)? {
            AddressFamily::INET => Family::Ipv4,
            AddressFamily::INET6 => Family::Ipv6,
            _ => return Ok(None),
        };
        let protocol = number(socket, libc::SOL_SOCKET, libc::SO_PROTOCOL).map_err(unread)?;
        let is_tcp = protocol == libc::IPPROTO_TCP || protocol == libc::IPPROTO_MPTCP;
        if !is_tcp || sockopt::socket_type(socket) != Ok(SocketType::STREAM) {
            return Ok(None);
        }
        let local = getsockname(socket).map_err(unread)?;
        let local = endpoint(&local).ok_or(Missed::Unread)?;
        if local.port.is_none() {
            return Ok(None);
        }
        let peer = getpeername(socket)
            .ok()
            .flatten()
            .and_then(|peer| endpoint(&peer))
            .filter(|peer| peer.port.is_some());
        let state = state(socket).ok_or(Missed::Unread)?;
        let file = fstat(socket).map_err(unread)?;
        let transport = Transport::Tcp;
        let options = self.complete(SocketOptions::default(), transport, family);
        Ok(Some(Holder {
            peer,
            socket: Socket {
                cookie: sockopt::socket_cookie(socket).ok(),
                inode: Some(file.st_ino),
                netns: netns(socket),
                device: self.device(),
                // Its owner is that of the socket (net/socket.c, `sockfs_setattr`).
                uid: Some(file.st_uid),
                options,
            },
            ..Holder::new(transport, family, state, local)
        }))
    }
}

/// Whether a stream socket is one of MPTCP.
fn is_mptcp(socket: BorrowedFd<'_>) -> Option<bool> {
    let protocol = number(socket, libc::SOL_SOCKET, libc::SO_PROTOCOL).ok()?;
    Some(protocol == libc::IPPROTO_MPTCP)
}

/// It is there, and does not say what it is.
fn unread<E>(_: E) -> Missed {
    Missed::Unread
}

fn endpoint(address: &SocketAddrAny) -> Option<Endpoint> {
    let address = SocketAddr::try_from(address.clone()).ok()?;
    Some(Endpoint {
        address: Some(address.ip()),
        port: Some(address.port()).filter(|&port| port != 0),
    })
}

/// `tcpi_state`, the first byte of `struct tcp_info`.
fn state(socket: BorrowedFd<'_>) -> Option<TcpState> {
    let mut state = [0u8; 1];
    get(socket, libc::IPPROTO_TCP, libc::TCP_INFO, &mut state).ok()?;
    TcpState::from_kernel(state[0])
}

/// The inode of its network namespace.
fn netns(socket: BorrowedFd<'_>) -> Option<u32> {
    // SAFETY: the request takes no argument and reads nothing of ours; the descriptor is open.
    let namespace = unsafe { socket_namespace(socket.as_raw_fd()) }.ok()?;
    // SAFETY: the kernel has just opened it for us, and nobody else knows it.
    let namespace = unsafe { OwnedFd::from_raw_fd(namespace) };
    u32::try_from(fstat(&namespace).ok()?.st_ino).ok()
}

fn flag(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int) -> Option<bool> {
    number(socket, level, name).ok().map(|value| value != 0)
}

fn number(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
) -> io::Result<libc::c_int> {
    let mut value = libc::c_int::default().to_ne_bytes();
    get(socket, level, name, &mut value)?;
    Ok(libc::c_int::from_ne_bytes(value))
}

/// getsockopt(2), of options that the libraries do not have.
fn get(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    room: &mut [u8],
) -> io::Result<()> {
    let length = libc::socklen_t::try_from(room.len());
    let mut length = length.map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the room is as long as told, and `length` is ours too.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            name,
            room.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::{
        net::{TcpListener, TcpStream, UdpSocket},
        os::{fd::AsFd, unix::net::UnixStream},
    };

    use super::*;

    /// A socket of this process as others see it.
    fn copy(socket: &impl AsFd) -> Result<Copy, Missed> {
        let fd = socket.as_fd();
        let inode = fstat(fd).unwrap().st_ino;
        let number = u32::try_from(fd.as_raw_fd()).unwrap();
        Lender::open(std::process::id())?.copy(number, inode, None)
    }

    fn options(socket: &impl AsFd, family: Family) -> SocketOptions {
        let copy = copy(socket).unwrap();
        copy.complete(SocketOptions::default(), Transport::Udp, family)
    }

    #[test]
    fn options_are_those_of_the_socket() {
        let socket = UdpSocket::bind("[::1]:0").unwrap();
        let of = |socket| options(socket, Family::Ipv6);
        assert_eq!(of(&socket).reuseaddr, Some(false));
        assert_eq!(of(&socket).reuseport, Some(false));
        // By bind() of a specific address.
        assert_eq!(of(&socket).v6only, Some(true));
        assert_eq!(of(&socket).mptcp, Some(false));
        sockopt::set_socket_reuseaddr(&socket, true).unwrap();
        sockopt::set_ip_freebind(&socket, true).unwrap();
        let SocketOptions {
            reuseaddr,
            reuseport,
            freebind,
            ..
        } = of(&socket);
        assert_eq!(
            (reuseaddr, reuseport, freebind),
            (Some(true), Some(false), Some(true))
        );
        sockopt::set_socket_reuseport(&socket, true).unwrap();
        assert_eq!(of(&socket).reuseport, Some(true));
        let v4 = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(options(&v4, Family::Ipv4).v6only, None);
        assert_eq!(copy(&v4).unwrap().device(), None);
    }

    #[test]
    fn what_is_known_stays() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let known = SocketOptions {
            reuseaddr: Some(true),
            ..SocketOptions::default()
        };
        let copy = copy(&socket).unwrap();
        let SocketOptions {
            reuseaddr,
            reuseport,
            ..
        } = copy.complete(known, Transport::Udp, Family::Ipv4);
        assert_eq!((reuseaddr, reuseport), (Some(true), Some(false)));
    }

    #[test]
    fn a_tcp_socket_is_described() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let local = listener.local_addr().unwrap();
        let client = TcpStream::connect(local).unwrap();
        let seen = copy(&listener).unwrap().tcp().unwrap().unwrap();
        assert_eq!(seen.state, TcpState::Listen);
        assert_eq!(seen.local.port, Some(local.port()));
        assert_eq!(seen.peer, None);
        assert_eq!(seen.socket.options.reuseaddr, Some(true));
        assert_eq!(seen.socket.uid, Some(nix::unistd::getuid().as_raw()));
        assert!(seen.socket.cookie.is_some());
        let seen = copy(&client).unwrap().tcp().unwrap().unwrap();
        assert_eq!(seen.state, TcpState::Established);
        assert_eq!(seen.peer.unwrap().port, Some(local.port()));
    }

    #[test]
    fn other_sockets_are_none_of_it() {
        let (one, _other) = UnixStream::pair().unwrap();
        assert_eq!(copy(&one).unwrap().tcp(), Ok(None));
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(copy(&udp).unwrap().tcp(), Ok(None));
        // Not bound.
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        assert_eq!(copy(&socket).unwrap().tcp(), Ok(None));
    }

    #[test]
    fn what_is_gone_or_another_is_not_copied() {
        let own = Lender::open(std::process::id()).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let fd = u32::try_from(socket.as_raw_fd()).unwrap();
        let cookie = Some(sockopt::socket_cookie(&socket).unwrap());
        assert!(own.copy(fd, 1, cookie).is_ok());
        let other = cookie.map(|cookie| cookie + 1);
        for cookie in [None, other] {
            assert_eq!(own.copy(fd, 1, cookie).unwrap_err(), Missed::Nothing);
        }
        assert_eq!(own.copy(1_000_000, 1, cookie).unwrap_err(), Missed::Nothing);
        assert_eq!(Lender::open(0x3fff_ffff).unwrap_err(), Missed::Nothing);
        assert_eq!(missed(Errno::PERM), Missed::Hidden);
        assert_eq!(missed(Errno::NOSYS), Missed::Unread);
    }
}
