//! The `.socket` unit (systemd.socket(5)) that pid 1 holds a port for, from the unit files: the manager
//! itself tells over D-Bus only, and a port is in one file as a rule. In several: then nobody knows.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::event::{Holder, Transport};

/// Where units of the system manager lie, the more important first (systemd.unit(5)).
const DIRECTORIES: [&str; 13] = [
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/run/systemd/generator.early",
    "/etc/systemd/system",
    "/etc/systemd/system.attached",
    "/run/systemd/system",
    "/run/systemd/system.attached",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
    "/run/systemd/generator.late",
];

/// An address that a unit listens on; without one it is the wildcard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Listen {
    is_stream: bool,
    address: Option<IpAddr>,
    port: u16,
}

/// Units and what each listens on.
type Units = BTreeMap<String, Vec<Listen>>;

/// How long a reading holds: files change, and nobody says so.
const VALIDITY: Duration = Duration::from_secs(1);

/// The units of this machine, read when one is asked for.
#[derive(Debug, Default)]
pub struct SocketUnits {
    read: Option<(Instant, Units)>,
}

impl SocketUnits {
    /// The unit that a socket of pid 1 belongs to.
    pub fn of(&mut self, holder: &Holder) -> Option<String> {
        let now = Instant::now();
        let is_good = |time: Instant| now.duration_since(time) < VALIDITY;
        let (_, units) = match self.read.take().filter(|&(time, _)| is_good(time)) {
            Some(read) => self.read.insert(read),
            None => self
                .read
                .insert((now, units(DIRECTORIES.iter().map(PathBuf::from)))),
        };
        among(units, holder)
    }
}

fn among(units: &Units, holder: &Holder) -> Option<String> {
    let mut matching = units
        .iter()
        .filter(|(_, listens)| listens.iter().any(|listen| is_of(listen, holder)))
        .map(|(name, _)| name);
    let name = matching.next()?;
    matching.next().is_none().then(|| name.clone())
}

fn is_of(listen: &Listen, holder: &Holder) -> bool {
    let Listen {
        is_stream,
        address,
        port,
    } = *listen;
    let is_tcp = holder.transport == Transport::Tcp;
    let own = holder.local.address;
    is_stream == is_tcp
        && holder.local.port == Some(port)
        && own.is_some_and(|own| address.map_or_else(|| own.is_unspecified(), |it| it == own))
}

/// What each unit listens on: its file with all drop-ins, of which the last of a name counts less
/// than the first.
fn units(directories: impl Iterator<Item = PathBuf>) -> Units {
    let directories: Vec<_> = directories.collect();
    let names: BTreeSet<String> = directories
        .iter()
        .flat_map(|directory| names(directory, ".socket"))
        .collect();
    names
        .into_iter()
        .map(|name| {
            let listens = texts(&directories, &name)
                .iter()
                .fold(Vec::new(), |listens, text| listens_of(listens, text));
            (name, listens)
        })
        .collect()
}

fn names(directory: &Path, suffix: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(suffix))
        .collect()
}

/// The unit's file and its drop-ins in the order they are read.
fn texts(directories: &[PathBuf], unit: &str) -> Vec<String> {
    let file = directories
        .iter()
        .find_map(|directory| fs::read_to_string(directory.join(unit)).ok());
    let mut drop_ins: BTreeMap<String, PathBuf> = BTreeMap::new();
    for directory in directories {
        let directory = directory.join(format!("{unit}.d"));
        for name in names(&directory, ".conf") {
            let path = directory.join(&name);
            drop_ins.entry(name).or_insert(path);
        }
    }
    file.into_iter()
        .chain(
            drop_ins
                .values()
                .filter_map(|path| fs::read_to_string(path).ok()),
        )
        .collect()
}

/// Adds what a file listens on; an empty assignment takes back what came before.
fn listens_of(mut listens: Vec<Listen>, text: &str) -> Vec<Listen> {
    for line in text.lines() {
        let Some((key, value)) = line.split_once('=') else {
            continue;
        };
        let is_stream = match key.trim() {
            "ListenStream" => true,
            "ListenDatagram" => false,
            _ => continue,
        };
        let value = value.trim();
        if value.is_empty() {
            listens.retain(|listen| listen.is_stream != is_stream);
        } else if let Some((address, port)) = parse(value) {
            listens.push(Listen {
                is_stream,
                address,
                port,
            });
        }
    }
    listens
}

/// `443`, `127.0.0.1:443`, `[::1]:443`, `[fe80::1%eth0]:443`; anything else has no port.
fn parse(value: &str) -> Option<(Option<IpAddr>, u16)> {
    if let Ok(port) = value.parse() {
        return Some((None, port));
    }
    let (address, port) = value.rsplit_once(':')?;
    let address = match address.strip_prefix('[') {
        Some(rest) => {
            let inner = rest.strip_suffix(']')?;
            let plain = inner.split_once('%').map_or(inner, |(plain, _)| plain);
            IpAddr::V6(plain.parse().ok()?)
        }
        None => IpAddr::V4(address.parse().ok()?),
    };
    Some((Some(address), port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;
    use crate::{event::Kind, sample};

    fn held(local: &str) -> Holder {
        sample::held(Kind::Listener, local).culprit.holder
    }

    #[test]
    fn addresses_as_systemd_writes_them() {
        let ip = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        for (value, parsed) in [
            ("22", Some((None, 22))),
            ("0.0.0.0:22", Some((ip("0.0.0.0"), 22))),
            ("[::1]:22", Some((ip("::1"), 22))),
            ("[fe80::1%eth0]:22", Some((ip("fe80::1"), 22))),
            ("/run/dbus/system_bus_socket", None),
            ("@abstract", None),
            ("vsock:2:22", None),
            ("65536", None),
            ("", None),
        ] {
            assert_eq!(parse(value), parsed, "{value}");
        }
    }

    #[test]
    fn the_unit_of_a_port_is_found_and_two_are_none() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let found = |local: &str| {
            let directories = ["etc", "lib"].map(|name| root.path().join(name));
            among(&units(directories.into_iter()), &held(local))
        };
        write("lib/ssh.socket", "[Socket]\nListenStream=22\nAccept=no\n");
        write(
            "lib/knxd.socket",
            "[Socket]\nListenStream = 6720\nListenStream=/run/knx\n",
        );
        write("lib/tftp.socket", "[Socket]\nListenDatagram=69\n");
        assert_eq!(found("0.0.0.0:22").as_deref(), Some("ssh.socket"));
        assert_eq!(found("[::]:6720").as_deref(), Some("knxd.socket"));
        assert_eq!(found("127.0.0.1:22"), None);
        assert_eq!(found("0.0.0.0:69"), None, "that is UDP");
        // A file of the administrator counts instead of the distribution's.
        write("etc/ssh.socket", "[Socket]\nListenStream=127.0.0.1:2222\n");
        assert_eq!(found("0.0.0.0:22"), None);
        assert_eq!(found("127.0.0.1:2222").as_deref(), Some("ssh.socket"));
        write(
            "etc/knxd.socket.d/port.conf",
            "[Socket]\nListenStream=\nListenStream=6721\n",
        );
        assert_eq!(found("[::]:6720"), None);
        assert_eq!(found("[::]:6721").as_deref(), Some("knxd.socket"));
        write("etc/other.socket", "[Socket]\nListenStream=6721\n");
        assert_eq!(found("[::]:6721"), None, "one of two");
    }

    proptest! {
        #[test]
        fn any_file_is_survived(text in r"((ListenStream|ListenDatagram|x)=?[\[\]:%0-9a-f./]{0,12}\n){0,6}") {
            let _ = listens_of(Vec::new(), &text);
        }
    }
}
