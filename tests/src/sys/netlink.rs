//! rtnetlink, as much as it takes to make a device, give it an address and add a route.

pub(crate) mod mptcp;

use std::{
    net::IpAddr,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use nix::errno::Errno;

use super::{check, netns::Netns};

const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_VXLAN_ID: u16 = 1;
const IFLA_VXLAN_PORT: u16 = 15;
const NLA_F_NESTED: u16 = 1 << 15;

/// A request under construction: header, family header, attributes.
pub(super) struct Request {
    bytes: Vec<u8>,
    open: Vec<usize>,
}

impl Request {
    pub(super) fn new(kind: u16, flags: i32, body: &[u8]) -> Self {
        let flags = flags | libc::NLM_F_REQUEST | libc::NLM_F_ACK;
        let mut bytes = Vec::with_capacity(256);
        bytes.extend(0_u32.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((flags as u16).to_ne_bytes());
        bytes.extend(1_u32.to_ne_bytes());
        bytes.extend(0_u32.to_ne_bytes());
        bytes.extend(body);
        Self {
            bytes,
            open: Vec::new(),
        }
    }

    pub(super) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let len = (value.len() + 4) as u16;
        self.bytes.extend(len.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    pub(super) fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    pub(super) fn begin(mut self, kind: u16) -> Self {
        self.open.push(self.bytes.len());
        self.attribute(kind | NLA_F_NESTED, &[])
    }

    pub(super) fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend(bytes);
        self
    }

    pub(super) fn end(mut self) -> Self {
        if let Some(start) = self.open.pop() {
            let len = (self.bytes.len() - start) as u16;
            self.bytes.splice(start..start + 2, len.to_ne_bytes());
        }
        self
    }

    /// Sends it and waits for the verdict.
    fn send(self) -> Result<(), Errno> {
        send_all(libc::NETLINK_ROUTE, vec![self])
    }

    /// Without asking for a verdict.
    pub(super) fn unanswered(mut self) -> Self {
        let flags = libc::NLM_F_REQUEST as u16;
        self.bytes.splice(6..8, flags.to_ne_bytes());
        self
    }

    fn is_answered(&self) -> bool {
        let flags = self.bytes.get(6..8).and_then(|bytes| bytes.try_into().ok());
        flags.is_some_and(|flags| u16::from_ne_bytes(flags) & libc::NLM_F_ACK as u16 != 0)
    }

    fn finished(mut self) -> Vec<u8> {
        let len = self.bytes.len() as u32;
        self.bytes.splice(0..4, len.to_ne_bytes());
        self.bytes
    }
}

/// A socket of netlink to which these requests were sent.
fn sent(protocol: i32, requests: Vec<Request>) -> Result<OwnedFd, Errno> {
    // SAFETY: takes and returns integers.
    let fd = check(unsafe {
        libc::socket(
            libc::AF_NETLINK,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            protocol,
        )
    })?;
    // SAFETY: the kernel has just returned this descriptor.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let bytes: Vec<u8> = requests.into_iter().flat_map(Request::finished).collect();
    // SAFETY: the buffer is as long as said.
    let sent = unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
    if sent < 0 {
        return Err(Errno::last());
    }
    Ok(fd)
}

/// What comes back from it next.
fn received<'a>(fd: &OwnedFd, answer: &'a mut [u8; 4096]) -> Result<&'a [u8], Errno> {
    // SAFETY: the buffer is as long as said.
    let got = unsafe { libc::recv(fd.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0) };
    let got = usize::try_from(got).map_err(|_| Errno::last())?;
    answer.get(..got).ok_or(Errno::EBADMSG)
}

/// Sends a request and waits for the first message that answers it.
fn ask(protocol: i32, request: Request) -> Result<Vec<u8>, Errno> {
    let fd = sent(protocol, vec![request])?;
    let mut room = [0; 4096];
    let answer = received(&fd, &mut room)?;
    // struct nlmsghdr: length, kind; struct nlmsgerr begins with the error.
    let is_error = answer.get(4..6) == Some(&(libc::NLMSG_ERROR as u16).to_ne_bytes()[..]);
    let code = answer.get(16..20).and_then(|bytes| bytes.try_into().ok());
    match code.map(i32::from_ne_bytes) {
        Some(code) if is_error => Err(Errno::from_raw(-code)),
        Some(_) => Ok(answer.to_vec()),
        None => Err(Errno::EBADMSG),
    }
}

/// Sends requests together and waits for the verdict of each; the first that is none of success.
pub(super) fn send_all(protocol: i32, requests: Vec<Request>) -> Result<(), Errno> {
    let mut verdicts = requests.iter().filter(|one| one.is_answered()).count();
    let fd = sent(protocol, requests)?;
    while verdicts > 0 {
        let mut room = [0; 4096];
        let mut rest = received(&fd, &mut room)?;
        while !rest.is_empty() {
            let number = |at: usize| {
                let bytes = rest.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
                bytes.map(i32::from_ne_bytes).ok_or(Errno::EBADMSG)
            };
            // struct nlmsghdr (16 bytes), then the error of struct nlmsgerr.
            match number(16)? {
                0 => verdicts = verdicts.saturating_sub(1),
                code => return Err(Errno::from_raw(-code)),
            }
            let len = usize::try_from(number(0)?).map_err(|_| Errno::EBADMSG)?;
            rest = rest
                .get(len.next_multiple_of(4).max(4)..)
                .unwrap_or_default();
        }
    }
    Ok(())
}

const NEW: i32 = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
/// An empty struct ifinfomsg.
const LINK: [u8; 16] = [0; 16];

/// A veth pair: both ends in this namespace, both down.
pub(crate) fn add_veth(name: &str, peer: &str) -> Result<(), Errno> {
    Request::new(libc::RTM_NEWLINK, NEW, &LINK)
        .text(libc::IFLA_IFNAME, name)
        .begin(libc::IFLA_LINKINFO)
        .text(IFLA_INFO_KIND, "veth")
        .begin(IFLA_INFO_DATA)
        .begin(VETH_INFO_PEER)
        .raw(&LINK)
        .text(libc::IFLA_IFNAME, peer)
        .end()
        .end()
        .end()
        .send()
}

/// Moves a device into another namespace, where it is down and without address.
pub(crate) fn move_link(index: u32, netns: &Netns) -> Result<(), Errno> {
    // struct ifinfomsg: family, padding, type, index, flags, change.
    let mut body = vec![0; 4];
    body.extend(index.to_ne_bytes());
    body.extend([0; 8]);
    Request::new(libc::RTM_NEWLINK, 0, &body)
        .attribute(libc::IFLA_NET_NS_FD, &netns.fd().to_ne_bytes())
        .send()
}

/// A VXLAN device. Bringing it up makes the kernel bind a UDP socket to `port`.
pub(crate) fn add_vxlan(name: &str, port: u16) -> Result<(), Errno> {
    Request::new(libc::RTM_NEWLINK, NEW, &LINK)
        .text(libc::IFLA_IFNAME, name)
        .begin(libc::IFLA_LINKINFO)
        .text(IFLA_INFO_KIND, "vxlan")
        .begin(IFLA_INFO_DATA)
        .attribute(IFLA_VXLAN_ID, &42_u32.to_ne_bytes())
        .attribute(IFLA_VXLAN_PORT, &port.to_be_bytes())
        .end()
        .end()
        .send()
}

/// Octets of an address and its family.
fn octets(ip: IpAddr) -> (u8, Vec<u8>) {
    match ip {
        IpAddr::V4(v4) => (libc::AF_INET as u8, v4.octets().to_vec()),
        IpAddr::V6(v6) => (libc::AF_INET6 as u8, v6.octets().to_vec()),
    }
}

/// An address on a device, at once usable (no duplicate address detection).
pub(crate) fn add_address(index: u32, ip: IpAddr, prefix: u8) -> Result<(), Errno> {
    let flags = if ip.is_ipv6() {
        libc::IFA_F_NODAD as u8
    } else {
        0
    };
    new_address(index, ip, prefix, flags)
}

/// An address that the kernel first looks for on the link.
pub(crate) fn add_address_with_detection(index: u32, ip: IpAddr, prefix: u8) -> Result<(), Errno> {
    new_address(index, ip, prefix, 0)
}

fn new_address(index: u32, ip: IpAddr, prefix: u8, flags: u8) -> Result<(), Errno> {
    let (family, octets) = octets(ip);
    // struct ifaddrmsg: family, prefix length, flags, scope, index.
    let mut body = vec![family, prefix, flags, 0];
    body.extend(index.to_ne_bytes());
    Request::new(libc::RTM_NEWADDR, NEW, &body)
        .attribute(libc::IFA_LOCAL, &octets)
        .attribute(libc::IFA_ADDRESS, &octets)
        .send()
}

/// A route that refuses: connect() fails with EHOSTUNREACH at once.
pub(crate) fn add_unreachable(ip: IpAddr, prefix: u8) -> Result<(), Errno> {
    add_route(ip, prefix, libc::RTN_UNREACHABLE, None)
}

/// A route that prohibits: connect() fails with EACCES at once.
pub(crate) fn add_prohibit(ip: IpAddr, prefix: u8) -> Result<(), Errno> {
    add_route(ip, prefix, libc::RTN_PROHIBIT, None)
}

/// A route to a network by way of a neighbour.
pub(crate) fn add_gateway(ip: IpAddr, prefix: u8, gateway: IpAddr) -> Result<(), Errno> {
    add_route(ip, prefix, libc::RTN_UNICAST, Some(gateway))
}

fn add_route(ip: IpAddr, prefix: u8, kind: u8, gateway: Option<IpAddr>) -> Result<(), Errno> {
    let (family, octets) = octets(ip);
    // struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags.
    let mut body = vec![
        family,
        prefix,
        0,
        0,
        libc::RT_TABLE_MAIN,
        libc::RTPROT_STATIC,
        libc::RT_SCOPE_UNIVERSE,
        kind,
    ];
    body.extend(0_u32.to_ne_bytes());
    let request = Request::new(libc::RTM_NEWROUTE, NEW, &body).attribute(libc::RTA_DST, &octets);
    match gateway {
        Some(gateway) => request.attribute(libc::RTA_GATEWAY, &self::octets(gateway).1),
        None => request,
    }
    .send()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_attributes_count_what_is_inside() {
        let request = Request::new(16, 0, &LINK)
            .begin(18)
            .text(1, "veth")
            .begin(2)
            .attribute(1, &[1, 2, 3])
            .end()
            .end();
        let attributes = &request.bytes[32..];
        let len = |at: usize| u16::from_ne_bytes([attributes[at], attributes[at + 1]]);
        // "veth\0" is padded to 8 bytes, the three bytes to 4.
        assert_eq!(len(0), 4 + (4 + 8) + 4 + (4 + 4));
        assert_eq!(len(4), 4 + 5);
        assert_eq!(len(16), 4 + (4 + 4));
        assert_eq!(len(20), 4 + 3);
        assert_eq!(attributes.len(), usize::from(len(0)));
    }
}
