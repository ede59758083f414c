//! Netlink as far as every protocol of it is the same: the socket, and the messages of an answer.

use std::{fmt, io, time::Duration};

use netlink_packet_core::{NetlinkDeserializable, NetlinkMessage, NetlinkPayload};
use netlink_sys::{Socket, SocketAddr};

/// What one read takes: the kernel fills 32 KiB at most (net/netlink/af_netlink.c).
pub(crate) const ROOM: usize = 32 << 10;

/// The kernel answers while it is asked; this is for one that does not.
const PATIENCE: Duration = Duration::from_secs(1);

/// A socket of the network namespace that the calling thread is in, to ask the kernel with.
pub(crate) fn open(protocol: isize) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    nix::sys::socket::setsockopt(
        &socket,
        nix::sys::socket::sockopt::ReceiveTimeout,
        &nix::sys::time::TimeVal::new(PATIENCE.as_secs().cast_signed(), 0),
    )?;
    Ok(socket)
}

/// Takes the messages of one read, each with the bytes that it begins; whether there is more to come.
pub(crate) fn take<M: NetlinkDeserializable + fmt::Debug>(
    mut bytes: &[u8],
    mut visit: impl FnMut(M, &[u8]),
) -> io::Result<bool> {
    while !bytes.is_empty() {
        let message = NetlinkMessage::<M>::deserialize(bytes)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        match message.payload {
            NetlinkPayload::InnerMessage(inner) => visit(inner, bytes),
            NetlinkPayload::Error(error) => return Err(error.to_io()),
            NetlinkPayload::Done(_) => return Ok(false),
            _ => {}
        }
        // Messages begin at multiples of four bytes (include/uapi/linux/netlink.h, NLMSG_ALIGN).
        let len = (message.header.length as usize).next_multiple_of(4);
        bytes = bytes.get(len.max(4)..).unwrap_or_default();
    }
    Ok(true)
}
