//! Which Debian mirror this machine is set up with, from apt's own files (sources.list(5)).

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// One line of `sources.list`, or one stanza of a `.sources` file.
#[derive(Debug, Default, Clone, PartialEq)]
struct Source {
    uris: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
    signed_by: Option<String>,
}

/// Where Debian's packages come from here, and what their signatures are checked with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mirror {
    /// The main archive.
    pub(crate) main: String,
    /// The archive of security updates.
    pub(crate) security: String,
    /// The key file of the machine's own entry; without one apt uses its trusted keys.
    pub(crate) keyring: Option<PathBuf>,
}

/// Suites that only Debian's own archive has under these names.
const SUITES: &[&str] = &[
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "sid",
    "oldstable",
    "stable",
    "testing",
    "unstable",
];

const DEBIAN_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

impl Mirror {
    /// Reads the machine's sources.
    ///
    /// # Errors
    /// None of them is Debian's archive.
    pub(crate) fn of_this_machine() -> Result<Mirror> {
        let mut sources = read_list(Path::new("/etc/apt/sources.list"));
        let mut parts: Vec<PathBuf> = fs::read_dir("/etc/apt/sources.list.d")
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        parts.sort();
        for path in parts {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("list") => sources.extend(read_list(&path)),
                Some("sources") => sources.extend(parse_stanzas(
                    &fs::read_to_string(&path).unwrap_or_default(),
                )),
                _ => {}
            }
        }
        let mut mirror = pick(&sources).context(
            "apt here has no source with Debian's main archive, where QEMU and the kernels of the test VMs come from\n\
             next step: run this on Debian, or add a Debian source to /etc/apt/sources.list.d",
        )?;
        if mirror.keyring.is_none() && Path::new(DEBIAN_KEYRING).is_file() {
            mirror.keyring = Some(PathBuf::from(DEBIAN_KEYRING));
        }
        Ok(mirror)
    }
}

fn read_list(path: &Path) -> Vec<Source> {
    fs::read_to_string(path)
        .unwrap_or_default()
        .lines()
        .filter_map(parse_line)
        .collect()
}

/// `deb [ signed-by=/path arch=amd64 ] URI SUITE COMPONENT…`
fn parse_line(line: &str) -> Option<Source> {
    let line = line.split('#').next().unwrap_or_default().trim();
    let mut rest = line
        .strip_prefix("deb")?
        .strip_prefix([' ', '\t'])?
        .trim_start();
    let mut signed_by = None;
    if let Some(inside) = rest.strip_prefix('[') {
        let (options, after) = inside.split_once(']')?;
        signed_by = options
            .split_whitespace()
            .find_map(|option| option.strip_prefix("signed-by="))
            .map(String::from);
        rest = after;
    }
    let mut words = rest.split_whitespace().map(String::from);
    Some(Source {
        uris: vec![words.next()?],
        suites: vec![words.next()?],
        components: words.collect(),
        signed_by,
    })
}

/// The deb822 format: `Field: values` lines, stanzas separated by empty lines.
fn parse_stanzas(text: &str) -> Vec<Source> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    lines
        .split(|line| line.trim().is_empty())
        .filter_map(parse_stanza)
        .collect()
}

fn parse_stanza(lines: &[&str]) -> Option<Source> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in lines {
        if line.starts_with([' ', '\t']) {
            let (_, value) = fields.last_mut()?;
            value.push(' ');
            value.push_str(line.trim());
        } else {
            let (name, value) = line.split_once(':')?;
            fields.push((name.to_ascii_lowercase(), value.trim().to_string()));
        }
    }
    let field = |name: &str| {
        fields
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| value.as_str())
    };
    let words = |name: &str| {
        field(name)
            .unwrap_or_default()
            .split_whitespace()
            .map(String::from)
            .collect::<Vec<_>>()
    };
    if !words("types").iter().any(|kind| kind == "deb") || field("enabled") == Some("no") {
        return None;
    }
    // A key may stand in the field itself; only a file's name is of use elsewhere.
    let signed_by = field("signed-by")
        .filter(|value| value.starts_with('/') && !value.contains(' '))
        .map(String::from);
    Some(Source {
        uris: words("uris"),
        suites: words("suites"),
        components: words("components"),
        signed_by,
    })
}

fn pick(sources: &[Source]) -> Option<Mirror> {
    let has_main = |source: &&Source| {
        source
            .components
            .iter()
            .any(|component| component == "main")
    };
    let of = |wanted: fn(&str) -> bool| {
        sources
            .iter()
            .filter(has_main)
            .find(|source| source.suites.iter().any(|suite| wanted(suite)))
    };
    let debian = of(|suite| SUITES.contains(&suite))?;
    let main = debian.uris.first()?.trim_end_matches('/').to_string();
    let security = of(|suite| {
        suite
            .strip_suffix("-security")
            .is_some_and(|of| SUITES.contains(&of))
    })
    .and_then(|source| source.uris.first())
    .map_or_else(
        || format!("{main}-security"),
        |uri| uri.trim_end_matches('/').to_string(),
    );
    Some(Mirror {
        main,
        security,
        keyring: debian.signed_by.as_ref().map(PathBuf::from),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEB822: &str = "\
Types: deb deb-src
# the usual
URIs: http://mirror.example/debian/
Suites: bookworm
 bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main

Types: deb
Enabled: no
URIs: http://off.example/debian
Suites: bookworm
Components: main
";

    #[test]
    fn stanzas_give_the_mirror_and_its_key() {
        let mirror = pick(&parse_stanzas(DEB822));
        assert_eq!(
            mirror,
            Some(Mirror {
                main: "http://mirror.example/debian".into(),
                security: "http://mirror.example/debian-security".into(),
                keyring: Some("/usr/share/keyrings/debian.gpg".into()),
            })
        );
    }

    #[test]
    fn continued_fields_and_disabled_stanzas_are_understood() {
        let sources = parse_stanzas(DEB822);
        assert_eq!(sources.len(), 2);
        assert_eq!(
            sources.first().map(|source| source.suites.clone()),
            Some(vec!["bookworm".into(), "bookworm-updates".into()])
        );
    }

    #[test]
    fn lines_are_read_with_their_options() {
        let line =
            "deb [arch=amd64 signed-by=/k.gpg] http://m.example/debian trixie main contrib # mine";
        let source = parse_line(line).unwrap_or_default();
        assert_eq!(source.uris, ["http://m.example/debian"]);
        assert_eq!(source.signed_by.as_deref(), Some("/k.gpg"));
        assert_eq!(source.components, ["main", "contrib"]);
        assert_eq!(
            parse_line("deb-src http://m.example/debian trixie main"),
            None
        );
        assert_eq!(
            parse_line("# deb http://m.example/debian trixie main"),
            None
        );
    }

    #[test]
    fn other_peoples_archives_are_not_debians() {
        let lines = [
            "deb https://docker.example/linux/debian bookworm stable",
            "deb https://pg.example/pub bookworm-pgdg main",
            "deb http://m.example/debian bookworm main",
        ];
        let sources: Vec<Source> = lines.into_iter().filter_map(parse_line).collect();
        assert_eq!(
            pick(&sources).map(|mirror| mirror.main).as_deref(),
            Some("http://m.example/debian")
        );
        assert_eq!(pick(sources.get(..2).unwrap_or_default()), None);
    }

    #[test]
    fn without_a_security_source_the_usual_place_is_taken() {
        let sources: Vec<Source> = parse_line("deb http://m.example/debian bookworm main")
            .into_iter()
            .collect();
        assert_eq!(
            pick(&sources).map(|mirror| mirror.security).as_deref(),
            Some("http://m.example/debian-security")
        );
    }
}
