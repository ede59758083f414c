//! A port as it is typed, with an address or a transport or without: one syntax for all verbs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::event::{Holder, Transport};

/// What is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Of this transport only.
    pub transport: Option<Transport>,
    /// At this address; a socket that takes this address among others counts too.
    pub address: Option<IpAddr>,
    /// On this port.
    pub port: Port,
}

/// A port as it was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Port {
    /// By its number.
    Number(u16),
    /// By a name of the services database.
    Name(String),
}

impl Target {
    /// Whether a socket on the port is asked about.
    #[must_use]
    pub fn takes(&self, socket: &Holder) -> bool {
        let address = self.address.is_none_or(|wanted| {
            socket
                .local
                .address
                .is_none_or(|own| covers(own, socket.socket.options.v6only, wanted))
        });
        self.has(socket) && address
    }

    /// Whether a socket is of the transport that is asked about.
    #[must_use]
    pub fn has(&self, socket: &Holder) -> bool {
        self.transport.is_none_or(|one| one == socket.transport)
    }
}

/// Whether what comes to an address goes to a socket bound to another: the same, or a wildcard.
fn covers(own: IpAddr, v6only: Option<bool>, wanted: IpAddr) -> bool {
    match (own, wanted) {
        (IpAddr::V6(six), IpAddr::V4(wanted)) => {
            (six.is_unspecified() && v6only != Some(true)) || six.to_ipv4_mapped() == Some(wanted)
        }
        (IpAddr::V4(_), IpAddr::V6(_)) => false,
        (own, wanted) => own.is_unspecified() || own == wanted,
    }
}

/// `443`, `:443`, `https`, `udp/53`, `127.0.0.1:8080`, `[::1]:80`.
pub(super) fn target(text: &str) -> Result<Target, String> {
    parsed(text, super::parse::port, |_| {
        "the interface is not asked about".to_owned()
    })
}

/// The same, and port 0, by which bind() asks for any.
pub(super) fn target_or_any(text: &str) -> Result<Target, String> {
    let number = |text: &str| match text.parse() {
        Ok(0) => Ok(0),
        _ => super::parse::port(text),
    };
    parsed(text, number, |device| {
        format!("it is for --device {device}")
    })
}

/// `device`: what to do with the name of an interface.
fn parsed(
    text: &str,
    number: fn(&str) -> Result<u16, String>,
    device: fn(&str) -> String,
) -> Result<Target, String> {
    let (transport, rest) = match text.split_once('/') {
        None => (None, text),
        Some((name, rest)) => (Some(transport(name)?), rest),
    };
    // The library takes the number of an interface along with an address, and no name.
    if let Some((before, after)) = rest.split_once('%') {
        let end = after.find([']', ':']).unwrap_or(after.len());
        let (name, after) = after.split_at(end);
        let what_for = device(name);
        return Err(format!("write {before}{after} without %{name}: {what_for}"));
    }
    let inside = rest
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let is_v6 = inside.is_some_and(|inside| inside.parse::<Ipv6Addr>().is_ok());
    if is_v6 || rest.parse::<Ipv4Addr>().is_ok() {
        return Err(format!("the port is missing, as in {rest}:8080"));
    }
    if let Ok(address) = rest.parse::<SocketAddr>() {
        return Ok(Target {
            transport,
            address: Some(address.ip()),
            port: Port::Number(number(&address.port().to_string())?),
        });
    }
    let (address, port) = match rest.rsplit_once(':') {
        None | Some(("", _)) => (None, rest.trim_start_matches(':')),
        Some((address, port)) => {
            let bare = address.trim_start_matches('[').trim_end_matches(']');
            let parsed = bare.parse::<IpAddr>();
            if bare == "*" {
                (None, port)
            } else if address.starts_with('[') || matches!(parsed, Ok(IpAddr::V4(_))) {
                let address = parsed.map_err(|_| format!("{bare:?} is not an address"))?;
                (Some(address), port)
            } else if address.contains(':') {
                return Err(format!(
                    "{text:?} is not clear: write an IPv6 address in brackets, as in [::1]:80"
                ));
            } else {
                return Err(format!("{address:?} is not an address"));
            }
        }
    };
    // A number that is none is not looked up like a name.
    let is_number = port.parse::<i64>().is_ok() || port.bytes().all(|byte| byte.is_ascii_digit());
    let port = if is_number {
        Port::Number(number(port)?)
    } else {
        Port::Name(port.to_owned())
    };
    Ok(Target {
        transport,
        address,
        port,
    })
}

fn transport(name: &str) -> Result<Transport, String> {
    match name {
        "tcp" => Ok(Transport::Tcp),
        "udp" => Ok(Transport::Udp),
        "udplite" => Ok(Transport::UdpLite),
        "sctp" => Ok(Transport::Sctp),
        _ => Err(format!(
            "{name:?} is not a transport: tcp, udp, udplite or sctp"
        )),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]

    use super::*;

    fn read(text: &str) -> (Option<Transport>, Option<IpAddr>, Port) {
        let Target {
            transport,
            address,
            port,
        } = target(text).unwrap();
        (transport, address, port)
    }

    #[test]
    fn ports_are_written_in_many_ways() {
        let ip = |text: &str| Some(text.parse().unwrap());
        let name = |text: &str| Port::Name(text.to_owned());
        for (text, transport, address, port) in [
            ("443", None, None, Port::Number(443)),
            (":443", None, None, Port::Number(443)),
            ("*:443", None, None, Port::Number(443)),
            ("https", None, None, name("https")),
            ("udp/53", Some(Transport::Udp), None, Port::Number(53)),
            ("tcp/ssh", Some(Transport::Tcp), None, name("ssh")),
            ("127.0.0.1:8080", None, ip("127.0.0.1"), Port::Number(8080)),
            ("[::1]:80", None, ip("::1"), Port::Number(80)),
            ("[::]:http", None, ip("::"), name("http")),
            (
                "udp/0.0.0.0:domain",
                Some(Transport::Udp),
                ip("0.0.0.0"),
                name("domain"),
            ),
        ] {
            assert_eq!(read(text), (transport, address, port), "{text}");
        }
        for (text, part) in [
            ("", "missing"),
            (":", "missing"),
            ("0.0.0.0", "as in 0.0.0.0:8080"),
            ("tcp/127.0.0.1", "as in 127.0.0.1:8080"),
            ("[::1]", "as in [::1]:8080"),
            ("::1", "in brackets"),
            ("0", "port 0 only asks"),
            ("127.0.0.1:0", "port 0 only asks"),
            ("65536", "too large"),
            ("127.0.0.1:-1", "not a"),
            ("icmp/1", "not a transport"),
            ("::1:80", "in brackets"),
            ("[::g]:80", "not an address"),
            ("[fe80::1%eth0]:80", "write [fe80::1]:80 without %eth0"),
            ("[fe80::1%2]:80", "not asked about"),
            ("127.0.0.1%lo:80", "write 127.0.0.1:80 without %lo"),
            ("example.org:80", "not an address"),
        ] {
            let refusal = target(text).unwrap_err();
            assert!(refusal.contains(part), "{text}: {refusal}");
        }
    }

    #[test]
    fn any_port_is_one_to_bind() {
        for text in ["0", ":0", "127.0.0.1:0", "udp/[::]:0"] {
            assert!(target(text).is_err(), "{text}");
            assert_eq!(target_or_any(text).unwrap().port, Port::Number(0), "{text}");
        }
        for text in ["", "65536", "::1:80"] {
            assert!(target_or_any(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_wildcard_takes_what_comes_to_any_address() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for (own, v6only, wanted, expected) in [
            ("127.0.0.1", None, "127.0.0.1", true),
            ("127.0.0.2", None, "127.0.0.1", false),
            ("0.0.0.0", None, "127.0.0.1", true),
            ("127.0.0.1", None, "0.0.0.0", false),
            ("0.0.0.0", None, "::1", false),
            ("::", Some(false), "127.0.0.1", true),
            ("::", None, "127.0.0.1", true),
            ("::", Some(true), "127.0.0.1", false),
            ("::", Some(true), "::1", true),
            ("::ffff:127.0.0.1", None, "127.0.0.1", true),
            ("::1", None, "127.0.0.1", false),
        ] {
            assert_eq!(
                covers(ip(own), v6only, ip(wanted)),
                expected,
                "{own} {wanted}"
            );
        }
    }
}
