//! The path manager of MPTCP (include/uapi/linux/mptcp.h, `mptcp_pm`), by generic netlink.

use std::net::Ipv4Addr;

use nix::errno::Errno;

use super::{Request, ask, send_all};

/// include/uapi/linux/genetlink.h
const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

/// include/uapi/linux/mptcp_pm.h, in older kernels mptcp.h
const CMD_ADD_ADDR: u8 = 1;
const CMD_SET_LIMITS: u8 = 5;
const ATTR_ADDR: u16 = 1;
const ATTR_RCV_ADD_ADDRS: u16 = 2;
const ATTR_SUBFLOWS: u16 = 3;
const ADDR_ATTR_FAMILY: u16 = 1;
const ADDR_ATTR_ADDR4: u16 = 3;
const ADDR_ATTR_FLAGS: u16 = 6;

/// What an address is good for.
#[derive(Clone, Copy)]
pub(crate) enum Endpoint {
    /// Peers are told of it, and may connect to it.
    Signal = 1 << 0,
    /// The kernel is to open another connection from it, for each that a program has.
    Subflow = 1 << 1,
}

/// struct genlmsghdr
const fn header(command: u8) -> [u8; 4] {
    [command, 1, 0, 0]
}

/// The number that this kernel has given to the path manager.
pub(crate) fn family() -> Result<u16, Errno> {
    let request = Request::new(GENL_ID_CTRL, 0, &header(CTRL_CMD_GETFAMILY))
        .text(CTRL_ATTR_FAMILY_NAME, "mptcp_pm");
    let answer = ask(libc::NETLINK_GENERIC, request)?;
    // After struct nlmsghdr and struct genlmsghdr.
    let mut rest = answer.get(20..).unwrap_or_default();
    while let [len, high, kind, kind_high, ..] = *rest {
        let len = usize::from(u16::from_ne_bytes([len, high]));
        let value = rest.get(4..len).ok_or(Errno::EBADMSG)?;
        if u16::from_ne_bytes([kind, kind_high]) == CTRL_ATTR_FAMILY_ID {
            let value = value.try_into().map_err(|_| Errno::EBADMSG)?;
            return Ok(u16::from_ne_bytes(value));
        }
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Err(Errno::ENOENT)
}

/// How many connections beside the first one a connection may have, in this network namespace.
pub(crate) fn limit(family: u16, subflows: u32) -> Result<(), Errno> {
    let request = Request::new(family, 0, &header(CMD_SET_LIMITS))
        .attribute(ATTR_RCV_ADD_ADDRS, &subflows.to_ne_bytes())
        .attribute(ATTR_SUBFLOWS, &subflows.to_ne_bytes());
    send_all(libc::NETLINK_GENERIC, vec![request])
}

/// An address of this network namespace.
pub(crate) fn add_endpoint(family: u16, ip: Ipv4Addr, endpoint: Endpoint) -> Result<(), Errno> {
    let request = Request::new(family, 0, &header(CMD_ADD_ADDR))
        .begin(ATTR_ADDR)
        .attribute(ADDR_ATTR_FAMILY, &(libc::AF_INET as u16).to_ne_bytes())
        .attribute(ADDR_ATTR_ADDR4, &ip.octets())
        .attribute(ADDR_ATTR_FLAGS, &(endpoint as u32).to_ne_bytes())
        .end();
    send_all(libc::NETLINK_GENERIC, vec![request])
}
