//! What was typed for the socket: transport, address and port.

use std::{net::IpAddr, path::Path};

use crate::{
    cli::{check::CheckArgs, target::Target},
    commands::target::ports,
    event::Transport,
    failure::{Failure, Kind},
};

/// What the socket would be bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Typed {
    pub(super) transport: Transport,
    pub(super) address: IpAddr,
    pub(super) port: u16,
}

impl Typed {
    /// What was meant.
    ///
    /// # Errors
    /// Names that are not known, and what contradicts itself.
    pub(super) fn of(args: &CheckArgs) -> Result<Self, Failure> {
        let Target {
            transport, address, ..
        } = args.target;
        let transport = transport_of(transport, args.udp)?;
        let address = address.unwrap_or_else(|| wildcard(has_ipv6()));
        if args.v6only && address.is_ipv4() {
            return Err(usage(
                "--v6only is an option of IPv6 sockets, and the address is IPv4",
                "leave it out, or write an IPv6 address, as in [::]:8080",
            ));
        }
        if address.is_ipv6() && !has_ipv6() {
            let error = anyhow::anyhow!("there is no IPv6 here: socket() fails with EAFNOSUPPORT");
            let hint =
                "ask about an IPv4 address; ipv6.disable=1 on the kernel's command line does this";
            return Err(Failure::new(Kind::Impossible, error).hint(hint));
        }
        let found = ports(&args.target)?;
        let port = found.iter().find_map(|(of, port)| {
            let is_one = of.is_none_or(|of| of == transport);
            is_one.then_some(*port)
        });
        let Some(port) = port else {
            let name = transport.as_str();
            return Err(usage(
                &format!("/etc/services has that name for another transport than {name}"),
                "write the number of the port, or use --udp",
            ));
        };
        Ok(Self {
            transport,
            address,
            port,
        })
    }
}

fn usage(what: &str, hint: &str) -> Failure {
    Failure::new(Kind::Usage, anyhow::anyhow!("{what}")).hint(hint)
}

fn transport_of(typed: Option<Transport>, udp: bool) -> Result<Transport, Failure> {
    match (typed, udp) {
        (None | Some(Transport::Udp), true) | (Some(Transport::Udp), false) => Ok(Transport::Udp),
        (None | Some(Transport::Tcp), false) => Ok(Transport::Tcp),
        (Some(other), true) => Err(usage(
            &format!("{}/ and --udp contradict each other", other.as_str()),
            "use one of them",
        )),
        (Some(other), false) => Err(usage(
            &format!(
                "the kernel's rules for {} are not known to portwatch",
                other.as_str()
            ),
            "check knows those of tcp and udp",
        )),
    }
}

/// Where no address was typed: all of them, as most servers do.
fn wildcard(has_ipv6: bool) -> IpAddr {
    if has_ipv6 {
        std::net::Ipv6Addr::UNSPECIFIED.into()
    } else {
        std::net::Ipv4Addr::UNSPECIFIED.into()
    }
}

fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]

    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Verb};

    fn typed(line: &str) -> Result<Typed, u8> {
        let words = ["portwatch", "check"].into_iter().chain(line.split(' '));
        match Cli::try_parse_from(words).unwrap().verb {
            Verb::Check(args) => Typed::of(&args).map_err(|failure| failure.code()),
            _ => panic!("{line}: not check"),
        }
    }

    #[test]
    fn sockets_are_written_in_many_ways() {
        let any = wildcard(has_ipv6()).to_string();
        for (line, transport, address, port) in [
            ("8080", Transport::Tcp, any.as_str(), 8080),
            (":8080", Transport::Tcp, &any, 8080),
            ("0.0.0.0:80", Transport::Tcp, "0.0.0.0", 80),
            ("[::1]:80 --v6only", Transport::Tcp, "::1", 80),
            ("udp/53", Transport::Udp, &any, 53),
            ("53 --udp", Transport::Udp, &any, 53),
            ("127.0.0.1:0 -u", Transport::Udp, "127.0.0.1", 0),
        ] {
            let expected = Typed {
                transport,
                address: address.parse().unwrap(),
                port,
            };
            assert_eq!(typed(line), Ok(expected), "{line}");
        }
        for line in [
            "tcp/80 --udp",
            "sctp/80",
            "0.0.0.0:80 --v6only",
            "no-such-service",
        ] {
            assert_eq!(typed(line), Err(2), "{line}");
        }
    }

    #[test]
    fn without_ipv6_all_addresses_are_ipv4s() {
        assert_eq!(wildcard(true).to_string(), "::");
        assert_eq!(wildcard(false).to_string(), "0.0.0.0");
    }
}
