//! From the id of a cgroup to its path, and what the path says: container and systemd unit.

use std::{
    fs, io,
    num::NonZeroUsize,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::{ffi::OsStringExt, fs::MetadataExt as _},
    },
    sync::Arc,
};

use lru::LruCache;

use super::{container, unit};
use crate::event::Container;

/// More cgroups than bind ports on one machine at a time.
const CAPACITY: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1023);

/// Id of the root of the hierarchy: the first inode kernfs hands out (fs/kernfs/dir.c,
/// `kernfs_create_root`).
const ROOT_ID: u64 = 1;

/// Where a process runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Path in the cgroup v2 hierarchy.
    pub path: Option<String>,
    /// Container.
    pub container: Option<Container>,
    /// systemd unit.
    pub unit: Option<String>,
}

impl Placement {
    /// What a path in the v2 hierarchy says.
    #[must_use]
    pub fn of_path(path: String) -> Self {
        Self {
            container: container::of_cgroup(&path),
            unit: unit::of_cgroup(&path),
            path: Some(path),
        }
    }

    /// What `/proc/PID/cgroup` says (cgroups(7)). Where version 1 is in use, container runtimes and
    /// systemd place processes there and the v2 path says little, so both are looked at.
    #[must_use]
    pub fn of_proc(text: &str) -> Self {
        let hierarchies = || {
            text.lines().filter_map(|line| {
                let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
                // Said of a cgroup removed while its last process was exiting.
                Some((controllers, path.strip_suffix(" (deleted)").unwrap_or(path)))
            })
        };
        let of = |wanted: &str| {
            hierarchies()
                .find(|(controllers, _)| *controllers == wanted)
                .map(|(_, path)| path)
        };
        let mut placement = of("")
            .map(|path| Self::of_path(path.to_owned()))
            .unwrap_or_default();
        if placement.container.is_none() {
            placement.container = hierarchies().find_map(|(_, path)| container::of_cgroup(path));
        }
        if placement.unit.is_none() {
            placement.unit = of("name=systemd").and_then(unit::of_cgroup);
        }
        placement
    }
}

/// The cgroups seen so far.
#[derive(Debug)]
pub struct Cgroups {
    hierarchy: Option<Hierarchy>,
    /// Processes are placed by cgroup version 1: two processes of one v2 cgroup may be in different
    /// containers.
    version_1: bool,
    known: LruCache<u64, Arc<Placement>>,
}

impl Cgroups {
    /// Looks where the v2 hierarchy is mounted, and whether version 1 is in use.
    #[must_use]
    pub fn new() -> Self {
        Self {
            hierarchy: Hierarchy::open(),
            version_1: fs::read_to_string("/proc/self/cgroup")
                .is_ok_and(|text| uses_version_1(&text)),
            known: LruCache::new(CAPACITY),
        }
    }

    /// Where a process runs, from the id of its v2 cgroup and, where that does not do, the text of
    /// its `/proc/PID/cgroup`. `proc` must answer for the very process, not for the pid.
    pub fn placement(
        &mut self,
        id: Option<u64>,
        proc: impl FnOnce() -> Option<String>,
    ) -> Arc<Placement> {
        if self.version_1 {
            let text = proc().unwrap_or_default();
            let mut placement = Placement::of_proc(&text);
            // The id is of the moment of the event, and known of processes already gone.
            if let Some(id) = id {
                match self.path(id) {
                    Some(path) => placement.path = Some(path),
                    None if self.agrees(id, &text) => {}
                    None => placement.path = None,
                }
            }
            return Arc::new(placement);
        }
        if let Some(known) = id.and_then(|id| self.known.get(&id)) {
            return Arc::clone(known);
        }
        if let Some((id, path)) = id.and_then(|id| Some((id, self.path(id)?))) {
            let placement = Arc::new(Placement::of_path(path));
            self.known.put(id, Arc::clone(&placement));
            return placement;
        }
        // Not remembered: the process may be moved.
        Arc::new(
            proc()
                .filter(|text| id.is_none_or(|id| self.agrees(id, text)))
                .map(|text| Placement::of_proc(&text))
                .unwrap_or_default(),
        )
    }

    /// Whether the text of a `/proc/PID/cgroup` tells of the cgroup with this id.
    fn agrees(&self, id: u64, text: &str) -> bool {
        self.hierarchy.as_ref().is_none_or(|hierarchy| {
            agrees(id, text, |path| {
                let directory = format!("{}{path}", hierarchy.mount_point);
                fs::metadata(directory).ok().map(|metadata| metadata.ino())
            })
        })
    }

    fn path(&self, id: u64) -> Option<String> {
        if id == ROOT_ID {
            return Some("/".to_owned());
        }
        self.hierarchy.as_ref()?.path(id).ok()?
    }
}

impl Default for Cgroups {
    fn default() -> Self {
        Self::new()
    }
}

/// The mounted v2 hierarchy.
#[derive(Debug)]
struct Hierarchy {
    mount_point: String,
    root: OwnedFd,
}

impl Hierarchy {
    fn open() -> Option<Self> {
        let mount_point =
            mount_point(&fs::read_to_string("/proc/self/mountinfo").ok()?)?.to_owned();
        let root = fs::File::open(&mount_point).ok()?.into();
        Some(Self { mount_point, root })
    }

    /// The path of a cgroup by its id, which is a file handle of its directory (fs/kernfs/mount.c,
    /// `kernfs_fh_to_dentry`; Linux 5.5). Needs CAP_DAC_READ_SEARCH.
    fn path(&self, id: u64) -> io::Result<Option<String>> {
        /// `struct file_handle` (open_by_handle_at(2)) with a handle of kernfs behind it.
        #[repr(C)]
        struct Handle {
            bytes: u32,
            kind: i32,
            id: [u8; 8],
        }
        const FILEID_KERNFS: i32 = 0xfe; // include/linux/exportfs.h

        let handle = Handle {
            bytes: 8,
            kind: FILEID_KERNFS,
            id: id.to_ne_bytes(),
        };
        // SAFETY: the handle is laid out as the kernel wants it, its length is that of `id`, and
        // the kernel only reads it.
        let opened = unsafe {
            libc::syscall(
                libc::SYS_open_by_handle_at,
                self.root.as_raw_fd(),
                &raw const handle,
                libc::O_DIRECTORY | libc::O_CLOEXEC,
            )
        };
        let directory = match RawFd::try_from(opened) {
            // SAFETY: just made by the kernel, known to nobody else.
            Ok(fd) if fd >= 0 => unsafe { OwnedFd::from_raw_fd(fd) },
            _ => return Err(io::Error::last_os_error()),
        };
        let link = fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd()))?;
        let link = link.into_os_string().into_vec();
        Ok(below(&String::from_utf8_lossy(&link), &self.mount_point).map(str::to_owned))
    }
}

/// Where the whole v2 hierarchy is mounted, from the text of `/proc/self/mountinfo`
/// (proc_pid_mountinfo(5)).
fn mount_point(mountinfo: &str) -> Option<&str> {
    mountinfo.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let root = fields.next()?;
        let mount_point = fields.next()?;
        (kind.starts_with("cgroup2 ") && root == "/").then_some(mount_point)
    })
}

/// The path of a directory inside the hierarchy; `None` for one outside of it, or removed.
fn below<'a>(directory: &'a str, mount_point: &str) -> Option<&'a str> {
    let path = directory.strip_prefix(mount_point)?;
    match path {
        "" => Some("/"),
        path => (path.starts_with('/') && !path.ends_with(" (deleted)")).then_some(path),
    }
}

/// Whether a process is still where it was at the event: it may have moved since, and what it says
/// now is then somebody else's cgroup. `inode` looks up a directory of the hierarchy; that of a
/// cgroup is its id.
fn agrees(id: u64, text: &str, inode: impl FnOnce(&str) -> Option<u64>) -> bool {
    let Some(path) = text.lines().find_map(|line| line.strip_prefix("0::")) else {
        return true;
    };
    // Nobody moves into, or out of, a cgroup that is gone.
    path.ends_with(" (deleted)") || inode(path) == Some(id)
}

/// Whether any hierarchy of version 1 is mounted, from the text of `/proc/self/cgroup`.
fn uses_version_1(text: &str) -> bool {
    text.lines().any(|line| !line.starts_with("0::"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    const ID: &str = "4a1bd1c1f2d0a2c7b6c0e2a8f4c1b7f0d9e8c7b6a5f4e3d2c1b0a9f8e7d6c5b4";

    #[test]
    fn a_process_that_has_moved_since_is_not_placed_where_it_is_now() {
        let inode = |path: &str| (path == "/here").then_some(7);
        assert!(agrees(7, "0::/here\n", inode));
        assert!(!agrees(8, "0::/here\n", inode));
        assert!(!agrees(8, "4:memory:/x\n0::/elsewhere\n", inode));
        // Its last process is exiting.
        assert!(agrees(8, "0::/gone (deleted)\n", inode));
    }

    #[test]
    fn version_2_alone() {
        let placement = Placement::of_proc("0::/system.slice/nginx.service\n");
        assert_eq!(
            placement,
            Placement {
                path: Some("/system.slice/nginx.service".to_owned()),
                container: None,
                unit: Some("nginx.service".to_owned()),
            }
        );
    }

    #[test]
    fn version_1_and_hybrid() {
        let text = format!(
            "9:name=systemd:/system.slice/docker.service\n4:memory:/docker/{ID}\n\
             3:cpu,cpuacct:/docker/{ID}\n0::/\n"
        );
        let placement = Placement::of_proc(&text);
        assert_eq!(placement.path.as_deref(), Some("/"));
        assert_eq!(placement.unit.as_deref(), Some("docker.service"));
        let container = placement.container.unwrap();
        assert_eq!(
            (container.id.as_str(), container.runtime),
            (ID, Some("docker"))
        );
        assert!(uses_version_1(&text));
        assert!(!uses_version_1("0::/a:b\n"));
    }

    #[test]
    fn a_removed_cgroup_keeps_its_name() {
        let placement = Placement::of_proc("0::/system.slice/gone.service (deleted)\n");
        assert_eq!(
            placement.path.as_deref(),
            Some("/system.slice/gone.service")
        );
        assert_eq!(placement.unit.as_deref(), Some("gone.service"));
    }

    #[test]
    fn a_path_may_hold_colons() {
        let text = format!("0::/system.slice/containerd.service/a.slice:cri-containerd:{ID}\n");
        assert_eq!(Placement::of_proc(&text).container.unwrap().id, ID);
    }

    #[test]
    fn the_mount_of_the_whole_hierarchy() {
        let unified =
            "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        let hybrid = "25 24 0:22 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
            26 25 0:23 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
            27 25 0:24 / /sys/fs/cgroup/unified rw shared:10 master:3 - cgroup2 cgroup2 rw\n";
        let part = "30 23 0:26 /docker/x /sys/fs/cgroup ro - cgroup2 cgroup2 ro\n";
        assert_eq!(mount_point(unified), Some("/sys/fs/cgroup"));
        assert_eq!(mount_point(hybrid), Some("/sys/fs/cgroup/unified"));
        assert_eq!(mount_point(part), None);
        assert_eq!(mount_point("nonsense - cgroup2 x"), None);
        assert_eq!(mount_point(""), None);
    }

    #[test]
    fn directories_below_the_mount() {
        for (directory, path) in [
            ("/sys/fs/cgroup", Some("/")),
            ("/sys/fs/cgroup/a/b", Some("/a/b")),
            ("/sys/fs/cgroup/a (deleted)", None),
            ("/sys/fs/cgroup2/a", None),
            ("/a", None),
        ] {
            assert_eq!(below(directory, "/sys/fs/cgroup"), path, "{directory}");
        }
    }

    #[test]
    fn the_root_is_known_by_its_id() {
        let mut cgroups = Cgroups {
            hierarchy: None,
            version_1: false,
            known: LruCache::new(CAPACITY),
        };
        let placement = cgroups.placement(Some(ROOT_ID), || panic!("not asked for"));
        assert_eq!(placement.path.as_deref(), Some("/"));
    }

    #[test]
    fn an_id_that_cannot_be_resolved_is_asked_of_the_process() {
        let mut cgroups = Cgroups {
            hierarchy: None,
            version_1: false,
            known: LruCache::new(CAPACITY),
        };
        let text = || Some("0::/a.slice/b.service\n".to_owned());
        assert_eq!(
            cgroups.placement(Some(77), text).unit.as_deref(),
            Some("b.service")
        );
        assert_eq!(*cgroups.placement(Some(77), || None), Placement::default());
        assert_eq!(*cgroups.placement(None, || None), Placement::default());
    }

    #[test]
    fn a_new_cgroup_is_found_by_its_id() {
        let Some(hierarchy) = Hierarchy::open() else {
            println!("skip: no cgroup v2 hierarchy is mounted");
            return;
        };
        let name = format!("portwatch-test-{}", std::process::id());
        let directory = std::path::Path::new(&hierarchy.mount_point).join(&name);
        if let Err(error) = fs::create_dir(&directory) {
            println!("skip: cannot make a cgroup: {error}");
            return;
        }
        let id = fs::metadata(&directory).unwrap().ino();
        let found = hierarchy.path(id);
        fs::remove_dir(&directory).unwrap();
        match found {
            Ok(path) => assert_eq!(path, Some(format!("/{name}"))),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                println!("skip: file handles need CAP_DAC_READ_SEARCH");
                return;
            }
            Err(error) => panic!("{error}"),
        }
        assert!(hierarchy.path(id).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in r"([0-9]{0,2}:?[a-z=,]{0,8}:?/?[^\n]{0,30}\n){0,5}") {
            let _ = Placement::of_proc(&text);
            let _ = mount_point(&text);
            let _ = uses_version_1(&text);
        }
    }
}
