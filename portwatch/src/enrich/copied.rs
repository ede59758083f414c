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

    /// A copy of a descriptor, if it is the one of that socket still.
    ///
    /// # Errors
    /// What is missed: without the rights of ptrace (PTRACE_MODE_ATTACH_REALCREDS) the kernel refuses.
    pub fn copy(&self, fd: u32, inode: u64) -> Result<Copy, Missed> {
        let fd = i32::try_from(fd).map_err(|_| Missed::Unread)?;
        let copy = pidfd_getfd(&self.0, fd, PidfdGetfdFlags::empty()).map_err(missed)?;
        let status = fstat(&copy).map_err(missed)?;
        let is_socket = status.st_mode & libc::S_IFMT == libc::S_IFSOCK;
        if status.st_ino != inode || !is_socket {
            return Err(Missed::Nothing);
        }
        Ok(Copy {
            socket: copy,
            inode,
            uid: status.st_uid,
        })
    }
}

/// A copy of a descriptor.
#[derive(Debug)]
pub struct Copy {
    socket: OwnedFd,
    inode: u64,
    /// Owner of the file, which is that of the socket (net/socket.c, `sockfs_setattr`).
    uid: u32,
}

impl Copy {
    /// The options of a socket, and the interface that it is bound to.
    pub fn options(&self) -> (SocketOptions, Option<u32>) {
        let socket = self.socket.as_fd();
        let is_v6 = sockopt::socket_domain(socket) == Ok(AddressFamily::INET6);
        let protocol = number(socket, libc::SOL_SOCKET, libc::SO_PROTOCOL).ok();
        let flag = |name| flag(socket, libc::IPPROTO_IP, name);
        let options = SocketOptions {
            reuseaddr: sockopt::socket_reuseaddr(socket).ok(),
            reuseport: sockopt::socket_reuseport(socket).ok(),
            v6only: is_v6.then(|| sockopt::ipv6_v6only(socket).ok()).flatten(),
            freebind: flag(libc::IP_FREEBIND),
            transparent: flag(libc::IP_TRANSPARENT),
            bind_no_port: flag(libc::IP_BIND_ADDRESS_NO_PORT),
            mptcp: protocol.map(|protocol| protocol == libc::IPPROTO_MPTCP),
        };
        let device = number(socket, libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX).ok();
        let device = device.and_then(|device| u32::try_from(device).ok());
        (options, device.filter(|&device| device != 0))
    }

    /// What is not known of the socket is taken from here; the rest stays as the kernel's tables have it.
    pub fn complete(&self, holder: &mut Holder) {
        let (options, device) = self.options();
        let SocketOptions {
            reuseaddr,
            reuseport,
            v6only,
            freebind,
            transparent,
            bind_no_port,
            mptcp,
        } = options;
        let known = &mut holder.socket.options;
        known.reuseaddr = known.reuseaddr.or(reuseaddr);
        known.reuseport = known.reuseport.or(reuseport);
        known.v6only = known.v6only.or(v6only);
        known.freebind = known.freebind.or(freebind);
        known.transparent = known.transparent.or(transparent);
        known.bind_no_port = known.bind_no_port.or(bind_no_port);
        known.mptcp = known.mptcp.or(mptcp);
        holder.socket.device = holder.socket.device.or(device);
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
        let (options, device) = self.options();
        Ok(Some(Holder {
            peer,
            socket: Socket {
                cookie: sockopt::socket_cookie(socket).ok(),
                inode: Some(self.inode),
                netns: netns(socket),
                device,
                uid: Some(self.uid),
                options,
            },
            ..Holder::new(Transport::Tcp, family, state, local)
        }))
    }
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
        Lender::open(std::process::id())?.copy(number, inode)
    }

    #[test]
    fn options_are_those_of_the_socket() {
        let socket = UdpSocket::bind("[::1]:0").unwrap();
        let (options, device) = copy(&socket).unwrap().options();
        assert_eq!(options.reuseaddr, Some(false));
        assert_eq!(options.reuseport, Some(false));
        // By bind() of a specific address.
        assert_eq!(options.v6only, Some(true));
        assert_eq!(options.mptcp, Some(false));
        assert_eq!(device, None);
        sockopt::set_socket_reuseaddr(&socket, true).unwrap();
        sockopt::set_ip_freebind(&socket, true).unwrap();
        let (options, _) = copy(&socket).unwrap().options();
        assert_eq!(
            (options.reuseaddr, options.reuseport, options.freebind),
            (Some(true), Some(false), Some(true))
        );
        sockopt::set_socket_reuseport(&socket, true).unwrap();
        let (options, _) = copy(&socket).unwrap().options();
        assert_eq!(options.reuseport, Some(true));
        let v4 = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(copy(&v4).unwrap().options().0.v6only, None);
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
        assert_eq!(own.copy(fd, 1).unwrap_err(), Missed::Nothing);
        assert_eq!(own.copy(1_000_000, 1).unwrap_err(), Missed::Nothing);
        assert_eq!(Lender::open(0x3fff_ffff).unwrap_err(), Missed::Nothing);
        assert_eq!(missed(Errno::PERM), Missed::Hidden);
        assert_eq!(missed(Errno::NOSYS), Missed::Unread);
    }
}
