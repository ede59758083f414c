//! The sockets that one bind() may meet: those of its transport on its ports, in the network namespace of
//! the calling thread, with their options as far as these can be had.

use std::{fs, io, ops::RangeInclusive, os::unix::fs::MetadataExt as _, sync::OnceLock};

use super::{
    options,
    table::{Row, Table},
    unseen,
};
use crate::{
    enrich::{
        descriptors::Descriptors,
        netns,
        sock_diag::{self, Query},
    },
    event::{Holder, Missed, Transport},
    host::{
        kernel,
        namespaces::{Kind, is_initial},
    },
};

/// What was seen.
#[derive(Debug, Default)]
pub struct Survey {
    /// Sockets.
    pub rows: Vec<Row>,
    /// What is not known of them, at worst.
    pub missed: Missed,
    /// Sockets may be there that are bound and do not listen, and could not be seen.
    pub may_hide: bool,
    /// The network namespace.
    pub netns: Option<u32>,
}

/// Looks at them.
///
/// # Errors
/// When sock_diag does not answer.
pub fn survey(transport: Transport, ports: &RangeInclusive<u16>) -> io::Result<Survey> {
    let netns = fs::metadata(netns::OWN).ok();
    let netns = netns.and_then(|namespace| u32::try_from(namespace.ino()).ok());
    let mut table = Table::default();
    let query = Query {
        transport,
        states: sock_diag::every_state(),
        ports: ports.clone(),
        peer_port: None,
    };
    sock_diag::list(&query, None, |listed| {
        let mut socket = listed.holder(transport);
        socket.socket.netns = netns;
        if socket.local.port.is_some() {
            table.socket(socket, None);
        }
    })?;
    let sees_all = transport != Transport::Tcp || shows_bound();
    let inodes = table.inodes();
    let mut missed = Missed::Nothing;
    let mut may_hide = false;
    if !(inodes.is_empty() && sees_all) {
        let (places, unread) = Descriptors::new().everywhere(&inodes, !sees_all);
        missed = unread;
        if !sees_all {
            let own = |mut socket: Holder| {
                // Where the kernel does not say in which namespace it is, it may be in this one.
                socket.socket.netns = socket.socket.netns.or(netns);
                let is_asked_for = socket.socket.netns == netns
                    && socket.local.port.is_some_and(|port| ports.contains(&port));
                is_asked_for.then_some(socket)
            };
            may_hide = unseen::add(&mut table, &places, own) != Missed::Nothing
                || unread != Missed::Nothing
                || is_initial(Kind::Pid) != Some(true);
        }
        for place in places {
            table.place(place);
        }
    }
    let (mut rows, left_out) = table.finish();
    let (unasked, ()) = options::complete(&mut rows, options::PATIENCE, |_| ());
    missed = missed.max(unasked);
    Ok(Survey {
        rows,
        missed,
        may_hide: may_hide || left_out > 0,
        netns,
    })
}

/// Asked once: it does not change.
fn shows_bound() -> bool {
    static SHOWS: OnceLock<bool> = OnceLock::new();
    *SHOWS.get_or_init(kernel::shows_bound)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::net::{TcpListener, UdpSocket};

    use rustix::net::{AddressFamily, SocketType, bind};

    use super::*;
    use crate::event::TcpState;

    fn seen(transport: Transport, port: u16) -> Vec<Row> {
        survey(transport, &(port..=port)).unwrap().rows
    }

    #[test]
    fn a_listener_is_seen_with_its_options_and_its_process() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let rows = seen(Transport::Tcp, port);
        assert_eq!(rows.len(), 1, "{rows:?}");
        assert_eq!(rows[0].socket.state, TcpState::Listen);
        assert_eq!(rows[0].socket.socket.options.reuseaddr, Some(true));
        assert_eq!(rows[0].seen[0].pid, std::process::id());
        assert_eq!(seen(Transport::Udp, port), []);
    }

    #[test]
    fn a_socket_that_is_only_bound_is_seen_on_every_kernel() {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        let any: std::net::SocketAddrV4 = "127.0.0.1:0".parse().unwrap();
        bind(&socket, &any).unwrap();
        let local = rustix::net::getsockname(&socket).unwrap();
        let port = std::net::SocketAddr::try_from(local).unwrap().port();
        let rows = seen(Transport::Tcp, port);
        assert_eq!(rows.len(), 1, "{rows:?}");
        assert_eq!(rows[0].socket.state, TcpState::Closed);
        assert_eq!(rows[0].socket.socket.options.reuseport, Some(false));
    }

    #[test]
    fn udp_sockets_are_seen() {
        let socket = UdpSocket::bind("[::1]:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let rows = seen(Transport::Udp, port);
        assert_eq!(rows.len(), 1, "{rows:?}");
        assert_eq!(rows[0].socket.socket.options.v6only, Some(true));
    }
}
