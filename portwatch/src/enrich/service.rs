//! The services database (services(5)): names of ports, per transport.

use std::{fs, sync::Arc};

use crate::event::{PortClass, PortFacts, Transport};

/// Names of ports, sorted for a binary search: the file has a few hundred lines on Debian and eleven
/// thousand on Fedora, and two names are looked up per event.
#[derive(Clone, Debug, Default)]
pub struct Services(Vec<(u16, u8, Arc<str>)>);

impl Services {
    /// Reads `/etc/services`; without that file, no port has a name.
    #[must_use]
    pub fn read() -> Self {
        fs::read("/etc/services")
            .map(|text| Self::parse(&String::from_utf8_lossy(&text)))
            .unwrap_or_default()
    }

    /// From the text of the file. Of several names for a port the first one counts, as with
    /// getservbyport(3); lines that make no sense and transports without ports are skipped.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut names: Vec<_> = text
            .lines()
            .filter_map(parse_line)
            .map(|(port, transport, name)| (port, transport as u8, name))
            .collect();
        names.sort_by_key(|&(port, transport, _)| (port, transport));
        names.dedup_by_key(|&mut (port, transport, _)| (port, transport));
        Self(names)
    }

    /// The name of a port.
    #[must_use]
    pub fn name(&self, transport: Transport, port: u16) -> Option<Arc<str>> {
        let wanted = (port, transport as u8);
        let found = self
            .0
            .binary_search_by_key(&wanted, |&(port, transport, _)| (port, transport))
            .ok()?;
        self.0.get(found).map(|(_, _, name)| Arc::clone(name))
    }

    /// What the number of a port says. 0 is no port but the wish for one.
    #[must_use]
    pub fn facts(&self, transport: Transport, port: Option<u16>) -> PortFacts {
        let port = port.filter(|&port| port != 0);
        PortFacts {
            service: port.and_then(|port| self.name(transport, port)),
            class: port.map(PortClass::of),
            ephemeral: None,
        }
    }
}

/// The ports that a name stands for, alternative names included, each once, in the order of the file.
#[must_use]
pub fn ports(text: &str, name: &str) -> Vec<(Transport, u16)> {
    let mut ports = Vec::new();
    for line in text.lines() {
        let Some((port, transport, first)) = parse_line(line) else {
            continue;
        };
        let mut others = line
            .split('#')
            .take(1)
            .flat_map(str::split_ascii_whitespace)
            .skip(2);
        if (*first == *name || others.any(|other| other == name))
            && !ports.contains(&(transport, port))
        {
            ports.push((transport, port));
        }
    }
    ports
}

fn parse_line(line: &str) -> Option<(u16, Transport, Arc<str>)> {
    let mut words = line.split('#').next()?.split_ascii_whitespace();
    let name = words.next()?;
    let (port, transport) = words.next()?.split_once('/')?;
    let transport = match transport {
        "tcp" => Transport::Tcp,
        "udp" => Transport::Udp,
        "udplite" => Transport::UdpLite,
        "sctp" => Transport::Sctp,
        "dccp" => Transport::Dccp,
        _ => return None,
    };
    Some((port.parse().ok()?, transport, name.into()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEBIAN: &str = "# Network services, Internet style\n\
        tcpmux\t\t1/tcp\t\t\t\t# TCP port service multiplexer\n\
        domain\t\t53/tcp\n\
        domain\t\t53/udp\n\
        http\t\t80/tcp\t\twww\t\t# WorldWideWeb HTTP\n\
        www-alt\t80/tcp\n\
        https\t443/tcp\n\
        https\t443/udp # HTTP/3\n\
        diameter\t3868/sctp\n\
        ddp-thing\t1/ddp\n\
        broken\n\
        big\t70000/tcp\n\
        \n";

    #[test]
    fn a_name_stands_for_ports_of_several_transports() {
        assert_eq!(
            ports(DEBIAN, "https"),
            [(Transport::Tcp, 443), (Transport::Udp, 443)]
        );
        assert_eq!(ports(DEBIAN, "www"), [(Transport::Tcp, 80)]);
        assert_eq!(ports(DEBIAN, "HTTP/3"), []);
        assert_eq!(ports(DEBIAN, "broken"), []);
    }

    #[test]
    fn names_per_transport() {
        let services = Services::parse(DEBIAN);
        for (transport, port, name) in [
            (Transport::Tcp, 1, Some("tcpmux")),
            (Transport::Udp, 53, Some("domain")),
            (Transport::Tcp, 80, Some("http")),
            (Transport::Udp, 80, None),
            (Transport::Udp, 443, Some("https")),
            (Transport::Sctp, 3868, Some("diameter")),
            (Transport::Tcp, 3868, None),
            (Transport::Tcp, 4464, None),
            (Transport::Tcp, 0, None),
        ] {
            assert_eq!(services.name(transport, port).as_deref(), name, "{port}");
        }
    }

    #[test]
    fn an_empty_file_names_nothing() {
        assert_eq!(Services::parse("").name(Transport::Tcp, 80), None);
    }

    proptest! {
        #[test]
        fn every_entry_is_found(ports in proptest::collection::btree_set(any::<u16>(), 1..50)) {
            let text: String = ports
                .iter()
                .rev()
                .map(|port| format!("s{port} {port}/tcp\nlater{port} {port}/tcp alias\n"))
                .collect();
            let services = Services::parse(&text);
            for port in ports {
                let expected = format!("s{port}");
                let found = services.name(Transport::Tcp, port);
                prop_assert_eq!(found.as_deref(), Some(&*expected));
                prop_assert_eq!(services.name(Transport::Udp, port), None);
            }
        }

        #[test]
        fn any_text_is_survived(text in r"([a-z#]{0,4}[ \t]*[0-9]{0,7}/?(tcp|udp)?[^\n]{0,5}\n){0,8}") {
            let _ = Services::parse(&text).name(Transport::Tcp, 80);
        }
    }
}
