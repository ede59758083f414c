//! Where a recording goes that was given no name. No I/O.

use std::path::PathBuf;

use jiff::{Timestamp, fmt::strtime};

/// What decides it.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// `STATE_DIRECTORY`, which systemd sets (systemd.exec(5)): one or more, separated by colons.
    pub state_directory: Option<PathBuf>,
    /// `XDG_STATE_HOME`
    pub state_home: Option<PathBuf>,
    /// `HOME`
    pub home: Option<PathBuf>,
    /// Runs as root.
    pub is_root: bool,
    /// Name of the host.
    pub host: Option<String>,
}

/// The directory. `None` where there is no home either.
#[must_use]
pub fn directory(surroundings: &Surroundings) -> Option<PathBuf> {
    let Surroundings {
        state_directory,
        state_home,
        home,
        is_root,
        host: _,
    } = surroundings;
    if let Some(given) = state_directory {
        let first = given.to_str().and_then(|given| given.split(':').next());
        return Some(first.map_or_else(|| given.clone(), PathBuf::from));
    }
    if *is_root {
        return Some(PathBuf::from("/var/lib/portwatch"));
    }
    // The XDG Base Directory Specification: what is not absolute does not count.
    let absolute = |path: &Option<PathBuf>| path.clone().filter(|path| path.is_absolute());
    let state = absolute(state_home);
    let state = state.or_else(|| absolute(home).map(|home| home.join(".local/state")));
    state.map(|state| state.join("portwatch"))
}

/// The name of a file that is begun now.
#[must_use]
pub fn name(surroundings: &Surroundings, now: Timestamp) -> String {
    let host: String = surroundings
        .host
        .iter()
        .flat_map(|host| host.chars())
        .map(|one| match one {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '.' | '_' => one,
            _ => '_',
        })
        .collect();
    let host = if host.is_empty() { "host" } else { &host };
    // Cannot fail: every part of the format is known and every timestamp has them.
    let time = strtime::format("%Y%m%dT%H%M%SZ", now).unwrap_or_default();
    format!("{host}-{time}.pwdb")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]

    use std::path::Path;

    use super::*;

    fn at(change: impl FnOnce(&mut Surroundings)) -> Option<PathBuf> {
        let mut surroundings = Surroundings {
            home: Some("/home/a".into()),
            ..Surroundings::default()
        };
        change(&mut surroundings);
        directory(&surroundings)
    }

    #[test]
    fn the_directory_is_that_of_the_service_of_root_or_of_the_user() {
        let is = |found: Option<PathBuf>, path: &str| assert_eq!(found.unwrap(), Path::new(path));
        is(at(|s| s.is_root = true), "/var/lib/portwatch");
        is(at(|_| ()), "/home/a/.local/state/portwatch");
        is(at(|s| s.state_home = Some("/s".into())), "/s/portwatch");
        is(
            at(|s| s.state_home = Some("s".into())),
            "/home/a/.local/state/portwatch",
        );
        let service = |s: &mut Surroundings| {
            s.state_directory = Some("/var/lib/a:/var/lib/b".into());
            s.is_root = true;
        };
        is(at(service), "/var/lib/a");
        assert_eq!(at(|s| s.home = None), None);
    }

    #[test]
    fn a_name_has_host_and_time_and_no_path() {
        let now = "2026-11-29T15:04:05.9Z".parse().unwrap();
        for (host, expected) in [
            (Some("web-1.example"), "web-1.example-20261129T150405Z.pwdb"),
            (Some("../x\n"), ".._x_-20261129T150405Z.pwdb"),
            (None, "host-20261129T150405Z.pwdb"),
        ] {
            let surroundings = Surroundings {
                host: host.map(str::to_owned),
                ..Surroundings::default()
            };
            assert_eq!(name(&surroundings, now), expected);
        }
    }
}
