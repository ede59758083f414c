//! The file of `-w`, opened so that nobody can lead us, who may be root, into a file of somebody else.
//!
//! A link (symlink(7)) is followed where whoever made it could have written to the file himself: one of ours,
//! or of root's, such as /dev/stdout; and then only into a file of ours, or into what is no file. Links to
//! directories on the way are the kernel's affair (`fs.protected_symlinks`), as is a file that others have
//! put where everybody may (`fs.protected_regular`). A further name of a file (link(2)) counts only where nobody else
//! could have made it.

use std::{
    ffi::OsString,
    fs::{File, Metadata},
    io,
    os::{
        fd::AsFd as _,
        unix::{
            ffi::OsStringExt as _,
            fs::{MetadataExt as _, OpenOptionsExt as _},
        },
    },
    path::{Path, PathBuf},
};

use rustix::fs::{PROC_SUPER_MAGIC, fstatfs, readlinkat};
use thiserror::Error;

/// Links that lead to links: the kernel follows as many (`MAXSYMLINKS`).
const LINKS: usize = 40;

/// A name that does not lead to a file for us.
#[derive(Debug, Error)]
pub enum Refused {
    /// Somebody else's.
    #[error("{link} is a link that user {uid} has made: name the file itself", link = .link.display())]
    Link {
        /// Where it is.
        link: PathBuf,
        /// Whose it is.
        uid: u32,
    },
    /// To somebody else's file.
    #[error("it is a link to {file}, a file of user {uid}: name the file itself", file = .file.display())]
    File {
        /// What it leads to.
        file: PathBuf,
        /// Whose that is.
        uid: u32,
    },
    /// One that has other names, in a directory where others may have made this one.
    #[error("{file} has other names too, and others may write to its directory: name another file", file = .file.display())]
    Names {
        /// This name.
        file: PathBuf,
    },
}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> Self {
        Self::new(io::ErrorKind::PermissionDenied, refused)
    }
}

/// Whether user `us` follows a link of `maker`.
const fn is_trusted(maker: u32, us: u32) -> bool {
    maker == us || maker == 0
}

/// Opens a file for writing, or makes one that is ours alone (mode 0600, whatever the umask). What is in it
/// stays.
///
/// # Errors
/// [`Refused`], inside, or what open(2) says.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let us = nix::unistd::geteuid().as_raw();
    let mut place = path.to_owned();
    for followed in 0..LINKS {
        match write_to(&place, libc::O_NOFOLLOW) {
            Ok(file) => {
                let metadata = file.metadata()?;
                check_names(&metadata, &place, us)?;
                if followed > 0 {
                    check_whose(&metadata, place, us)?;
                }
                return Ok(file);
            }
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {}
            other => return other,
        }
        let (link, metadata) = look_at(&place)?;
        if !is_trusted(metadata.uid(), us) {
            let uid = metadata.uid();
            return Err(Refused::Link { link: place, uid }.into());
        }
        // A descriptor of this very process, whose text is no path: /dev/stdout ends there.
        if fstatfs(&link)?.f_type == PROC_SUPER_MAGIC {
            return write_to(&place, 0);
        }
        let target = readlinkat(link.as_fd(), "", Vec::new())?;
        // An absolute one takes the place of the rest.
        place.pop();
        place.push(OsString::from_vec(target.into_bytes()));
    }
    Err(io::Error::from_raw_os_error(libc::ELOOP))
}

fn write_to(path: &Path, flags: i32) -> io::Result<File> {
    File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(flags)
        .open(path)
}

/// What stands there itself, be it a link.
fn look_at(path: &Path) -> io::Result<(File, Metadata)> {
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_NOFOLLOW)
        .open(path)?;
    let metadata = file.metadata()?;
    Ok((file, metadata))
}

fn check_whose(metadata: &Metadata, file: PathBuf, us: u32) -> Result<(), Refused> {
    if metadata.is_file() && metadata.uid() != us {
        let uid = metadata.uid();
        return Err(Refused::File { file, uid });
    }
    Ok(())
}

/// Who may write to a directory may give a file of others a name there (link(2), where
/// `fs.protected_hardlinks` is 0).
fn check_names(metadata: &Metadata, place: &Path, us: u32) -> io::Result<()> {
    const OTHERS_MAY_WRITE: u32 = 0o022;
    if !metadata.is_file() || metadata.nlink() == 1 {
        return Ok(());
    }
    let folder = place.parent().filter(|path| !path.as_os_str().is_empty());
    let folder = std::fs::metadata(folder.unwrap_or(Path::new(".")))?;
    if is_trusted(folder.uid(), us) && folder.mode() & OTHERS_MAY_WRITE == 0 {
        return Ok(());
    }
    let file = place.to_owned();
    Err(Refused::Names { file }.into())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]

    use std::{fs, io::Write as _, os::unix::fs::symlink};

    use super::*;

    /// What follows needs files of others.
    fn give(path: &Path, uid: u32) -> bool {
        nix::unistd::geteuid().is_root()
            && std::os::unix::fs::lchown(path, Some(uid), Some(uid)).is_ok()
    }

    fn why(path: &Path) -> String {
        let error = open(path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        error.to_string()
    }

    #[test]
    fn only_makers_who_could_do_it_themselves_are_trusted() {
        assert!(is_trusted(0, 0) && is_trusted(0, 1000) && is_trusted(1000, 1000));
        assert!(!is_trusted(1000, 0) && !is_trusted(1000, 1001));
    }

    #[test]
    fn links_of_our_own_lead_where_they_did() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("below")).unwrap();
        symlink("below/file", at("relative")).unwrap();
        symlink(at("relative"), at("absolute")).unwrap();
        symlink("circle", at("circle")).unwrap();
        symlink("/dev/null", at("device")).unwrap();
        for (name, text) in [("absolute", "1"), ("relative", "2"), ("below/file", "3")] {
            open(&at(name)).unwrap().write_all(text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(at("below/file")).unwrap(), text);
        }
        assert!(open(&at("device")).is_ok());
        let circle = open(&at("circle")).unwrap_err();
        assert_eq!(circle.raw_os_error(), Some(libc::ELOOP));
        assert_eq!(
            open(folder.path()).unwrap_err().raw_os_error(),
            Some(libc::EISDIR)
        );
    }

    #[test]
    fn a_descriptor_of_ours_is_a_place_to_write_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let held = File::create(&path).unwrap();
        if !give(&path, 65534) {
            println!("skip: not root");
        }
        use std::os::fd::AsRawFd as _;
        let link = folder.path().join("link");
        symlink(format!("/proc/self/fd/{}", held.as_raw_fd()), &link).unwrap();
        open(&link).unwrap().write_all(b"text").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "text");
    }

    #[test]
    fn nobody_leads_us_into_a_file_by_a_link_of_his() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("ours"), "precious").unwrap();
        symlink(at("ours"), at("theirs")).unwrap();
        symlink(at("new"), at("to-nothing")).unwrap();
        symlink("theirs", at("to-theirs")).unwrap();
        if !(give(&at("theirs"), 65534) && give(&at("to-nothing"), 65534)) {
            println!("skip: not root");
            return;
        }
        for name in ["theirs", "to-theirs", "to-nothing"] {
            assert!(
                why(&at(name)).contains("a link that user 65534 has made"),
                "{name}"
            );
        }
        assert_eq!(fs::read_to_string(at("ours")).unwrap(), "precious");
        assert!(!at("new").exists());
    }

    #[test]
    fn a_further_name_is_not_trusted_where_others_may_have_made_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "precious").unwrap();
        fs::hard_link(at("file"), at("name")).unwrap();
        let allow = |mode| fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode));
        allow(0o755).unwrap();
        assert!(open(&at("name")).is_ok());
        allow(0o1777).unwrap();
        assert!(why(&at("name")).contains("has other names too"));
        fs::remove_file(at("file")).unwrap();
        assert!(open(&at("name")).is_ok());
    }

    #[test]
    fn a_link_does_not_lead_into_a_file_of_others_that_can_be_named() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("theirs"), "precious").unwrap();
        symlink("theirs", at("link")).unwrap();
        if !give(&at("theirs"), 65534) {
            println!("skip: not root");
            return;
        }
        assert!(why(&at("link")).contains("a file of user 65534"));
        assert!(open(&at("theirs")).is_ok());
    }
}
