//! Debian packages of any suite, by the machine's own apt with sources and state of their own:
//! nothing is installed, nothing of the machine's apt is changed, and root is not needed.
//!
//! Signatures are always checked. The keys come from Debian's keyring package, which is itself
//! fetched from the machine's own suite with the machine's own key: an older machine may lack the
//! keys of newer suites.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::sources::Mirror;
use crate::exec::{on_path, output, run};
use crate::say::{Step, count, say, size};

/// One of the mirror's two archives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Archive {
    /// Releases and backports.
    Main,
    /// Security updates.
    Security,
}

/// A set of suites that one apt sees.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Suites {
    /// A folder's name in the cache.
    pub(crate) name: &'static str,
    /// Suites, each with its archive.
    pub(crate) from: &'static [(Archive, &'static str)],
    /// The suite that wins where two have a package.
    pub(crate) prefer: Option<&'static str>,
    /// Its support has ended, so the date until which its index is valid may be over.
    pub(crate) expired: bool,
}

/// Debian 12 with security updates: kernel 6.1, the keyring, the neighbours.
pub(crate) const BOOKWORM: Suites = Suites {
    name: "bookworm",
    from: &[
        (Archive::Main, "bookworm"),
        (Archive::Security, "bookworm-security"),
    ],
    prefer: None,
    expired: false,
};

/// Debian 13: newer programs than this machine may have.
pub(crate) const TRIXIE: Suites = Suites {
    name: "trixie",
    from: &[(Archive::Main, "trixie")],
    prefer: None,
    expired: false,
};

const KEYRING_PACKAGE: &str = "debian-archive-keyring";
const KEYRING_FILE: &str = "usr/share/keyrings/debian-archive-keyring.gpg";

/// Packages from one set of suites.
pub(crate) struct Apt {
    folder: PathBuf,
    suites: Suites,
}

/// A package file that would be fetched.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Deb {
    /// Its file name.
    pub(crate) file: String,
    /// In bytes.
    pub(crate) size: u64,
}

/// Which packages to get.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Closure {
    /// Those that are named.
    Named,
    /// And all that they depend on, libc included.
    WithDependencies,
    /// And all that they depend on but for these, as if they were installed, and what only they need.
    Without(&'static [&'static str]),
}

impl Apt {
    /// Sets apt up for these suites and fetches their package lists.
    ///
    /// # Errors
    /// No apt, no Debian source, no network, or a signature that does not fit.
    pub(crate) fn open(cache: &Path, suites: Suites) -> Result<Apt> {
        for program in ["apt-get", "apt-cache", "dpkg-deb"] {
            if !on_path(program) {
                bail!(
                    "no {program}: the kernels of the test VMs are Debian packages\n\
                     next step: run the VM tests on Debian, or skip them: cargo xtask test --unit --host"
                );
            }
        }
        let mirror = Mirror::of_this_machine()?;
        let keyring = newest_keyring(cache, &mirror)?;
        Apt::with_keyring(cache, suites, &mirror, keyring.as_deref())
    }

    fn with_keyring(
        cache: &Path,
        suites: Suites,
        mirror: &Mirror,
        keyring: Option<&Path>,
    ) -> Result<Apt> {
        let folder = cache.join("apt").join(suites.name);
        for part in ["lists/partial", "archives/partial"] {
            let path = folder.join(part);
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        write("status", String::new())?;
        write("sources.list", sources_list(suites.from, mirror, keyring))?;
        write("apt.conf", apt_conf(&folder, suites.expired))?;
        if suites.expired {
            say(format_args!(
                "{}: support has ended; its signature is checked, the expiry date of its index is not",
                suites.name
            ));
        }
        let apt = Apt { folder, suites };
        let step = Step::begin(format!(
            "fetching the package lists of {} (up to 10 MB)",
            suites.name
        ));
        output(apt.command("apt-get").args(["-q", "update", "--error-on=any"])).with_context(|| {
            format!("cannot fetch the package lists of {}\nnext step: check the network, and that the mirror in apt's sources still has them", suites.name)
        })?;
        step.done();
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        // Read after the machine's own configuration, so that ours has the last word.
        command
            .arg("--config-file")
            .arg(self.folder.join("apt.conf"))
            .env("LC_ALL", "C")
            .env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    /// The packages of these suites that `package` depends on.
    ///
    /// # Errors
    /// The suites have no such package.
    pub(crate) fn depends(&self, package: &str) -> Result<Vec<String>> {
        Ok(depends_of(&output(
            self.command("apt-cache").args(["depends", package]),
        )?))
    }

    fn get(&self, packages: &[&str], closure: Closure) -> Command {
        let mut command = self.command("apt-get");
        command.arg("-qq");
        if let Some(suite) = self.suites.prefer {
            command.args(["--target-release", suite]);
        }
        match closure {
            Closure::Named => command.arg("download"),
            Closure::WithDependencies | Closure::Without(_) => command.args([
                "install",
                "--yes",
                "--no-install-recommends",
                "--download-only",
            ]),
        };
        command.args(packages).current_dir(self.archives());
        command
    }

    fn archives(&self) -> PathBuf {
        self.folder.join("archives")
    }

    /// Says what will be fetched, fetches it, and unpacks it into `target`, which appears only when
    /// it is complete.
    ///
    /// # Errors
    /// A package is unknown, the network fails, or the disk is full.
    pub(crate) fn unpack(
        &self,
        what: &str,
        packages: &[&str],
        closure: Closure,
        target: &Path,
    ) -> Result<()> {
        let installed = match closure {
            Closure::Without(names) => names.iter().map(|name| as_installed(name)).collect(),
            Closure::Named | Closure::WithDependencies => String::new(),
        };
        let status = self.folder.join("status");
        fs::write(&status, installed)
            .with_context(|| format!("cannot write {}", status.display()))?;
        let debs = parse_uris(&output(self.get(packages, closure).arg("--print-uris"))?);
        let total = debs.iter().map(|deb| deb.size).sum();
        let step = Step::begin(format!(
            "fetching {what}: {}, {}, into {}",
            count(debs.len(), "package"),
            size(total),
            target.display()
        ));
        clear(&self.archives())?;
        output(&mut self.get(packages, closure)).with_context(|| {
            format!("cannot fetch {what}\nnext step: check the network and the free space")
        })?;
        let partial = target.with_extension("partial");
        if partial.exists() {
            fs::remove_dir_all(&partial)
                .with_context(|| format!("cannot remove {}", partial.display()))?;
        }
        fs::create_dir_all(&partial)
            .with_context(|| format!("cannot make {}", partial.display()))?;
        for deb in deb_files(&self.archives())? {
            run(Command::new("dpkg-deb")
                .arg("--extract")
                .arg(&deb)
                .arg(&partial))?;
        }
        clear(&self.archives())?;
        if target.exists() {
            fs::remove_dir_all(target)
                .with_context(|| format!("cannot remove {}", target.display()))?;
        }
        fs::rename(&partial, target).with_context(|| {
            format!(
                "cannot rename {} to {}",
                partial.display(),
                target.display()
            )
        })?;
        step.done();
        Ok(())
    }
}

/// Debian's newest keyring, checked with the machine's own; the machine's own where it has none.
fn newest_keyring(cache: &Path, mirror: &Mirror) -> Result<Option<PathBuf>> {
    let target = cache.join("keyring");
    let file = target.join(KEYRING_FILE);
    if !file.is_file() {
        let apt = Apt::with_keyring(cache, BOOKWORM, mirror, mirror.keyring.as_deref())?;
        apt.unpack(
            "Debian's archive keys",
            &[KEYRING_PACKAGE],
            Closure::Named,
            &target,
        )?;
    }
    Ok(if file.is_file() {
        Some(file)
    } else {
        mirror.keyring.clone()
    })
}

fn deb_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut debs: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    debs.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
    debs.sort();
    Ok(debs)
}

fn clear(folder: &Path) -> Result<()> {
    for deb in deb_files(folder)? {
        fs::remove_file(&deb).with_context(|| format!("cannot remove {}", deb.display()))?;
    }
    Ok(())
}

fn sources_list(from: &[(Archive, &str)], mirror: &Mirror, keyring: Option<&Path>) -> String {
    let signed = keyring
        .map(|path| format!(" [signed-by={}]", path.display()))
        .unwrap_or_default();
    let line = |(archive, suite): &(Archive, &str)| {
        let uri = match archive {
            Archive::Main => &mirror.main,
            Archive::Security => &mirror.security,
        };
        format!("deb{signed} {uri} {suite} main\n")
    };
    from.iter().map(line).collect()
}

/// The machine's own settings (a proxy, say) stay in force; places and architecture are ours, and
/// its hooks, which clean up after installations, have nothing to do here.
fn apt_conf(folder: &Path, expired: bool) -> String {
    let folder = folder.display();
    let mut text = format!(
        "Dir::Etc::sourcelist \"{folder}/sources.list\";\n\
         Dir::Etc::sourceparts \"/dev/null\";\n\
         Dir::Etc::preferences \"/dev/null\";\n\
         Dir::Etc::preferencesparts \"/dev/null\";\n\
         Dir::State::lists \"{folder}/lists\";\n\
         Dir::State::status \"{folder}/status\";\n\
         Dir::State::extended_states \"{folder}/extended_states\";\n\
         Dir::Cache::archives \"{folder}/archives\";\n\
         Dir::Cache::pkgcache \"\";\n\
         Dir::Cache::srcpkgcache \"\";\n\
         Dir::Log \"{folder}\";\n\
         APT::Architecture \"amd64\";\n\
         #clear APT::Architectures;\n\
         APT::Architectures {{ \"amd64\"; }};\n\
         APT::Sandbox::User \"root\";\n\
         #clear APT::Update::Post-Invoke;\n\
         #clear APT::Update::Post-Invoke-Success;\n\
         #clear DPkg::Post-Invoke;\n\
         Acquire::Languages \"none\";\n\
         Acquire::Retries \"3\";\n\
         Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
         Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled \"false\";\n"
    );
    if expired {
        text.push_str("Acquire::Check-Valid-Until \"false\";\n");
    }
    text
}

/// A package as dpkg notes it, in a version that is enough for everybody.
fn as_installed(name: &str) -> String {
    // For any architecture: Perl is asked for so.
    format!(
        "Package: {name}\nStatus: install ok installed\nVersion: 99:0\nArchitecture: amd64\n\
         Multi-Arch: allowed\nMaintainer: nobody\nDescription: left out\n{}\n",
        // A virtual package that others ask for.
        if name == "debconf" {
            "Provides: debconf-2.0\n"
        } else {
            ""
        }
    )
}

/// `apt-cache depends`: names in angle brackets are virtual, `|` marks an alternative.
fn depends_of(text: &str) -> Vec<String> {
    let field = |line: &str| {
        let (kind, name) = line.trim_start_matches([' ', '|']).split_once(": ")?;
        (matches!(kind, "Depends" | "PreDepends") && !name.starts_with('<'))
            .then(|| name.to_string())
    };
    text.lines()
        .filter(|line| line.starts_with(' '))
        .filter_map(field)
        .collect()
}

/// `apt-get --print-uris`: `'URI' FILE SIZE HASH`.
fn parse_uris(text: &str) -> Vec<Deb> {
    let deb = |line: &str| {
        let mut words = line.strip_prefix('\'')?.split(' ').skip(1);
        Some(Deb {
            file: words.next()?.to_string(),
            size: words.next()?.parse().ok()?,
        })
    };
    text.lines().filter_map(deb).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read() {
        let text = "\
linux-image-7.3.4+deb13-cloud-amd64
  PreDepends: linux-base
 |Depends: <dracut>
  Depends: linux-binary-7.3.4+deb13-cloud-amd64
  Depends: linux-modules-7.3.4+deb13-cloud-amd64
    dracut
  Breaks: <fwupdate>
  Recommends: apparmor
";
        let expected = [
            "linux-base",
            "linux-binary-7.3.4+deb13-cloud-amd64",
            "linux-modules-7.3.4+deb13-cloud-amd64",
        ];
        assert_eq!(depends_of(text), expected);
    }

    #[test]
    fn sizes_are_read_from_the_list_of_uris() {
        let text = "'http://m.example/d/x_1%3a2_amd64.deb' x_1%3a2_amd64.deb 26713492 SHA256:00\nNeed to get 2 MB\n";
        assert_eq!(
            parse_uris(text),
            [Deb {
                file: "x_1%3a2_amd64.deb".into(),
                size: 26_713_492
            }]
        );
    }

    #[test]
    fn each_suite_comes_from_its_archive_with_the_key() {
        let mirror = Mirror {
            main: "http://m/debian".into(),
            security: "http://s/sec".into(),
            keyring: None,
        };
        let text = sources_list(BOOKWORM.from, &mirror, Some(Path::new("/k.gpg")));
        assert_eq!(
            text,
            "deb [signed-by=/k.gpg] http://m/debian bookworm main\ndeb [signed-by=/k.gpg] http://s/sec bookworm-security main\n"
        );
    }

    #[test]
    fn what_is_left_out_counts_as_installed() {
        let note = as_installed("perl");
        for line in [
            "Package: perl",
            "Status: install ok installed",
            "Multi-Arch: allowed",
        ] {
            assert!(note.lines().any(|one| one == line), "{note}");
        }
        assert!(
            note.ends_with("\n\n"),
            "notes are separated by an empty line"
        );
    }

    #[test]
    fn only_an_expired_suite_goes_without_the_date_check() {
        assert!(!apt_conf(Path::new("/c"), false).contains("Check-Valid-Until"));
        assert!(apt_conf(Path::new("/c"), true).contains("Check-Valid-Until \"false\""));
    }
}
