//! What a guest's kernel unpacks into memory: PID 1, the programs under test, modules, a few files
//! of /etc.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::cpio::Archive;
use super::kernel::Kernel;
use super::modules;

/// Modules that the scenarios use; each kernel has most of them.
pub(crate) const NETWORK_MODULES: &[&str] = &[
    "dummy",
    "veth",
    "inet_diag",
    "tcp_diag",
    "udp_diag",
    "raw_diag",
    "unix_diag",
    "mptcp_diag",
    // sctp asks the crypto layer for this one by name, which is not a dependency.
    "crc32c_generic",
    "sctp",
    "sctp_diag",
    "vxlan",
    "wireguard",
    "tun",
    "nft_chain_nat",
    "nft_masq",
    "nf_conntrack_netlink",
];

const ETC: &[(&str, &str)] = &[
    (
        "/etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/bin/false\nalice:x:1000:1000::/:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    ),
    (
        "/etc/group",
        "root:x:0:\ndaemon:x:1:\nalice:x:1000:\nnogroup:x:65534:\n",
    ),
    (
        "/etc/hosts",
        "127.0.0.1 localhost portwatch-vm\n::1 localhost\n",
    ),
    (
        "/etc/services",
        "ssh 22/tcp\ntelnet 23/tcp\nsmtp 25/tcp\ndomain 53/tcp\ndomain 53/udp\nhttp 80/tcp\nntp 123/udp\nhttps 443/tcp\nhttps 443/udp\n\
         mysql 3306/tcp\npostgresql 5432/tcp\nhttp-alt 8080/tcp webcache\nhttp-alt 8080/udp\n",
    ),
    (
        "/etc/protocols",
        "ip 0 IP\nicmp 1 ICMP\ntcp 6 TCP\nudp 17 UDP\nipv6-icmp 58 IPv6-ICMP\nsctp 132 SCTP\nudplite 136 UDPLite\nmptcp 262 MPTCP\n",
    ),
];

/// A job for the guest; see `tests/src/bin/vm-init.rs`.
#[derive(Debug, Clone)]
pub(crate) enum Job {
    /// Run one program, at most that many seconds.
    Run {
        /// What its results are filed under.
        id: String,
        /// In seconds.
        limit: u64,
        /// Program and arguments.
        argv: Vec<String>,
    },
    /// Run one program, and for each line it prints another one, with `{}` replaced by the line and `{n}` by
    /// its number, from 0.
    Each {
        /// For each of the runs, in seconds.
        limit: u64,
        /// The program that lists.
        list: Vec<String>,
        /// The program that runs.
        argv: Vec<String>,
    },
}

impl Job {
    fn line(&self) -> String {
        match self {
            Job::Run { id, limit, argv } => format!("run\t{id}\t{limit}\t{}\n", argv.join("\t")),
            Job::Each { limit, list, argv } => format!(
                "each\t{limit}\t{}\t;\t{}\n",
                list.join("\t"),
                argv.join("\t")
            ),
        }
    }
}

/// What to put in.
pub(crate) struct Contents<'a> {
    /// The static executable that becomes PID 1.
    pub(crate) init: &'a Path,
    /// More files: path in the guest, and the file here. All are executable.
    pub(crate) files: &'a [(String, PathBuf)],
    /// A file system: where it goes, and where it is here.
    pub(crate) tree: Option<(&'a str, &'a Path)>,
    /// Modules by name, to be loaded before the first job.
    pub(crate) modules: &'a [&'a str],
    /// What to run.
    pub(crate) jobs: &'a [Job],
}

/// Makes an archive for this kernel.
///
/// # Errors
/// A file cannot be read.
pub(crate) fn pack(kernel: &Kernel, contents: &Contents) -> Result<Vec<u8>> {
    let Contents {
        init,
        files,
        tree,
        modules: wanted,
        jobs,
    } = contents;
    let mut archive = Archive::default();
    // The kernel opens it for PID 1 before anything is mounted.
    archive.character_device("/dev/console", 0o600, (5, 1));
    for folder in ["/proc", "/sys", "/tmp", "/run", "/root", "/var"] {
        archive.folder(folder);
    }
    archive.file("/init", 0o755, &read(init)?);
    for (path, file) in *files {
        archive.file(path, 0o755, &read(file)?);
    }
    if let Some((place, folder)) = tree {
        plant(&mut archive, place, folder)?;
    }
    for (path, text) in ETC {
        archive.file(path, 0o644, text.as_bytes());
    }
    for (index, module) in modules::collect(&kernel.modules, wanted)?
        .into_iter()
        .enumerate()
    {
        archive.file(
            &format!("/modules/{index:03}-{}.ko", module.name),
            0o644,
            &module.image,
        );
    }
    let lines: String = jobs.iter().map(Job::line).collect();
    archive.file("/etc/vm/jobs", 0o644, lines.as_bytes());
    Ok(archive.finish())
}

/// Adds a folder with all that is in it. All belongs to root; what is neither file, folder nor link has no
/// place in a package.
fn plant(archive: &mut Archive, place: &str, folder: &Path) -> Result<()> {
    archive.folder(place);
    let failed = || format!("cannot read {}", folder.display());
    let mut entries: Vec<_> = fs::read_dir(folder)
        .with_context(failed)?
        .collect::<Result<_, _>>()
        .with_context(failed)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let place = format!("{place}/{}", entry.file_name().to_string_lossy());
        let meta = entry.metadata().with_context(failed)?;
        if meta.is_dir() {
            plant(archive, &place, &path)?;
        } else if meta.is_symlink() {
            let target = fs::read_link(&path).with_context(failed)?;
            archive.link(&place, target.as_os_str().as_bytes());
        } else if meta.is_file() {
            archive.file(&place, meta.permissions().mode() & 0o777, &read(&path)?);
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_written_as_pid_1_reads_them() {
        let words = |text: &str| text.split(' ').map(String::from).collect::<Vec<_>>();
        let run = Job::Run {
            id: "kprobe".into(),
            limit: 9,
            argv: words("/bin/t run"),
        };
        assert_eq!(run.line(), "run\tkprobe\t9\t/bin/t\trun\n");
        let each = Job::Each {
            limit: 9,
            list: words("/bin/t backends"),
            argv: words("/bin/t --attach {}"),
        };
        assert_eq!(
            each.line(),
            "each\t9\t/bin/t\tbackends\t;\t/bin/t\t--attach\t{}\n"
        );
    }
}
