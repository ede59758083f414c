//! Questions to sock_diag(7), in the network namespace of the calling thread.

use std::{io, time::Duration};

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    inet::{InetRequest, InetResponse},
};
use netlink_sys::{SocketAddr, protocols::NETLINK_SOCK_DIAG};

/// What one read takes: the kernel fills 32 KiB at most (net/netlink/af_netlink.c).
const ROOM: usize = 32 << 10;

/// The kernel answers while it is asked; this is for one that does not.
const PATIENCE: Duration = Duration::from_secs(1);

/// `nlmsghdr`, and in `inet_diag_msg` what is before `idiag_expires`: four bytes and the ends of the
/// socket (include/uapi/linux/inet_diag.h).
const EXPIRES: usize = 16 + 4 + 48;

/// A socket of an answer.
#[derive(Debug)]
pub struct Answer {
    /// The socket.
    pub socket: InetResponse,
    /// When its timer runs out, from now on; also that of TIME_WAIT, which the library does not read.
    pub expires: Duration,
}

/// Asks, and hands over every socket of the answer. `flags`: NLM_F_DUMP for all that match, 0 for the
/// one that is described exactly.
///
/// # Errors
/// When sock_diag is not there or does not answer; ENOENT where the one socket is not there.
pub fn ask(request: InetRequest, flags: u16, mut take: impl FnMut(Answer)) -> io::Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);

    let mut socket = netlink_sys::Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    nix::sys::socket::setsockopt(
        &socket,
        nix::sys::socket::sockopt::ReceiveTimeout,
        &nix::sys::time::TimeVal::new(PATIENCE.as_secs().cast_signed(), 0),
    )?;
    socket.send(&bytes, 0)?;
    let mut answer = Vec::with_capacity(ROOM);
    loop {
        answer.clear();
        socket.recv(&mut answer, 0)?;
        let more = read(&answer, &mut take)?;
        // A single answer has no end of its own.
        if !more || flags == 0 {
            return Ok(());
        }
    }
}

/// Takes the messages of one read; whether there is more to come.
fn read(mut bytes: &[u8], take: &mut impl FnMut(Answer)) -> io::Result<bool> {
    while !bytes.is_empty() {
        let message = NetlinkMessage::<SockDiagMessage>::deserialize(bytes)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        match message.payload {
            NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => take(Answer {
                socket: *response,
                expires: expires(bytes),
            }),
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

/// `idiag_expires` of the message that `bytes` begin with.
fn expires(bytes: &[u8]) -> Duration {
    let field = bytes.get(EXPIRES..).and_then(<[u8]>::first_chunk);
    Duration::from_millis(field.map_or(0, |&field| u32::from_ne_bytes(field)).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_answer_is_an_error_and_no_panic() {
        let mut count = 0;
        let mut take = |_| count += 1;
        assert!(read(&[1, 2, 3], &mut take).is_err());
        assert!(read(&[0; 64], &mut take).is_err() || count == 0);
    }
}
