//! Whether a socket may be bound to an address, in the network namespace of the calling thread.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::sys::{
    socket::{setsockopt, sockopt::ReceiveTimeout},
    time::TimeVal,
};

use super::{addresses, netns};
use crate::event::{AddressState, Bearer, Family};

/// The kernel answers while it is asked; this is for one that does not.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether the kernel lets a socket have the address, which is bound to `device` or to none; `None` where
/// that cannot be told: in a VRF, or where the kernel does not answer.
#[must_use]
pub fn is_usable(address: IpAddr, device: Option<&str>) -> Option<bool> {
    let family = match address.to_canonical() {
        IpAddr::V4(_) => Family::Ipv4,
        IpAddr::V6(_) => Family::Ipv6,
    };
    if address.to_canonical().is_unspecified() || netns::allows_nonlocal(family) {
        return Some(true);
    }
    // Each VRF has addresses of its own (net/l3mdev/l3mdev.c).
    if device.is_some_and(in_vrf) {
        return None;
    }
    match address.to_canonical() {
        // `inet_addr_valid_or_nonlocal`
        IpAddr::V4(address) => route_type(address).ok().map(|found| {
            [LOCAL, BROADCAST, MULTICAST]
                .iter()
                .any(|good| found == Some(*good))
        }),
        IpAddr::V6(address) if address.is_multicast() => Some(true),
        IpAddr::V6(_) => {
            let bearers = addresses::bearers(address).ok()?;
            Some(
                bearers
                    .iter()
                    .any(|bearer| is_there(address, bearer, device)),
            )
        }
    }
}

/// `ipv6_chk_addr`: a link-local address and that of the loopback device belong to their device.
fn is_there(address: IpAddr, bearer: &Bearer, device: Option<&str>) -> bool {
    let is_bound_to_it = match address {
        IpAddr::V6(address) => address.is_unicast_link_local() || address.is_loopback(),
        IpAddr::V4(_) => false,
    };
    bearer.state == AddressState::Usable
        && device.is_none_or(|device| !is_bound_to_it || device == bearer.name)
}

/// Whether an interface is a VRF or belongs to one.
fn in_vrf(device: &str) -> bool {
    ["", "/master"].iter().any(|part| {
        fs::read_to_string(format!("/sys/class/net/{device}{part}/uevent"))
            .is_ok_and(|text| text.lines().any(|line| line == "DEVTYPE=vrf"))
    })
}

/// `RTN_LOCAL`, `RTN_BROADCAST`, `RTN_MULTICAST` (include/uapi/linux/rtnetlink.h).
const LOCAL: u8 = 2;
const BROADCAST: u8 = 3;
const MULTICAST: u8 = 5;

/// `nlmsghdr`, and the place of `rtm_type` in `rtmsg` behind it.
const HEADER: usize = 16;
const TYPE: usize = HEADER + 7;

/// What kind of address it is, by the route that leads there; `None` where none does.
fn route_type(address: Ipv4Addr) -> io::Result<Option<u8>> {
    // `inet_addr_type` asks no table for these.
    if address.octets()[0] == 0 || address.is_broadcast() {
        return Ok(Some(BROADCAST));
    }
    if address.is_multicast() {
        return Ok(Some(MULTICAST));
    }
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    setsockopt(
        &socket,
        ReceiveTimeout,
        &TimeVal::new(PATIENCE.as_secs().cast_signed(), 0),
    )?;
    socket.send(&request(address), 0)?;
    let mut answer = Vec::with_capacity(4096);
    socket.recv(&mut answer, 0)?;
    told(&answer)
}

/// RTM_GETROUTE: the message, `rtmsg`, and the address as RTA_DST (rtnetlink(7)).
fn request(address: Ipv4Addr) -> Vec<u8> {
    const RTA_DST: u16 = 1;
    const LENGTH: u32 = 16 + 12 + 8;
    let mut bytes = Vec::with_capacity(LENGTH as usize);
    bytes.extend(LENGTH.to_ne_bytes());
    bytes.extend(libc::RTM_GETROUTE.to_ne_bytes());
    bytes.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
    bytes.extend([0; 8]);
    // Family and length of the address; the rest is for the kernel to say.
    bytes.extend([libc::AF_INET as u8, 32]);
    bytes.extend([0; 10]);
    bytes.extend(8u16.to_ne_bytes());
    bytes.extend(RTA_DST.to_ne_bytes());
    bytes.extend(address.octets());
    bytes
}

fn told(answer: &[u8]) -> io::Result<Option<u8>> {
    let kind = answer.get(4..6).and_then(|kind| kind.try_into().ok());
    let kind = kind.map(u16::from_ne_bytes);
    if kind == Some(libc::RTM_NEWROUTE) {
        let found = answer.get(TYPE).ok_or(io::ErrorKind::InvalidData)?;
        return Ok(Some(*found));
    }
    let errno = answer.get(HEADER..HEADER + 4);
    let errno = errno.and_then(|errno| errno.try_into().ok());
    match errno.map(i32::from_ne_bytes) {
        Some(errno) if kind == Some(libc::NLMSG_ERROR as u16) => match -errno {
            libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EINVAL | libc::EACCES => Ok(None),
            errno => Err(io::Error::from_raw_os_error(errno)),
        },
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn what_bind_takes_is_usable() {
        for text in [
            "0.0.0.0",
            "127.0.0.1",
            // No interface has it; the whole net is local.
            "127.9.8.7",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "224.0.0.251",
            "ff02::fb",
            "255.255.255.255",
            "192.0.2.1",
            "2001:db8::1",
        ] {
            let address: IpAddr = text.parse().unwrap();
            let bound = std::net::UdpSocket::bind((address, 0));
            let usable = is_usable(address, None);
            // Without IPv6 or with interfaces of a strange kind the system answers differently.
            match bound {
                Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {}
                // Of link-local multicast, it wants to be told the interface.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
                bound => assert_eq!(usable, Some(bound.is_ok()), "{text}"),
            }
        }
    }

    #[test]
    fn an_address_that_belongs_to_its_device() {
        let address: IpAddr = "::1".parse().unwrap();
        let bearer = Bearer {
            name: "lo".to_owned(),
            state: AddressState::Usable,
        };
        assert!(is_there(address, &bearer, None));
        assert!(is_there(address, &bearer, Some("lo")));
        assert!(!is_there(address, &bearer, Some("eth0")));
        let global: IpAddr = "2001:db8::1".parse().unwrap();
        assert!(is_there(global, &bearer, Some("eth0")));
        let tentative = Bearer {
            state: AddressState::Tentative,
            ..bearer
        };
        assert!(!is_there(global, &tentative, None));
    }

    #[test]
    fn a_damaged_answer_is_an_error_and_no_panic() {
        for length in 0..24 {
            assert!(told(&vec![0; length]).is_err());
        }
    }
}
