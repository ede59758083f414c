//! bpf(2): a cgroup program that refuses, and what is loaded.

pub(crate) mod program;

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs, io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use nix::errno::Errno;

use super::{check_long, proc};
use program::Program;

const PROG_LOAD: i32 = 5;
const PROG_ATTACH: i32 = 8;
const PROG_GET_NEXT_ID: i32 = 11;
const PROG_GET_FD_BY_ID: i32 = 13;
const OBJ_GET_INFO_BY_FD: i32 = 15;
const LINK_GET_NEXT_ID: i32 = 31;
const PROG_TYPE_CGROUP_SOCK: u32 = 9;
const PROG_TYPE_CGROUP_SOCK_ADDR: u32 = 18;

/// The call such a program decides on (`enum bpf_attach_type`).
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refuse {
    Bind4 = 8,
    Bind6 = 9,
    Connect4 = 10,
    /// After the port was taken, which the kernel then undoes.
    PostBind4 = 12,
}

impl Refuse {
    const fn program_type(self) -> u32 {
        match self {
            Self::Bind4 | Self::Bind6 | Self::Connect4 => PROG_TYPE_CGROUP_SOCK_ADDR,
            Self::PostBind4 => PROG_TYPE_CGROUP_SOCK,
        }
    }
}

/// What the kernel says of each descriptor of a process (proc_pid_fdinfo(5)).
fn descriptors(pid: u32) -> io::Result<Vec<String>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        match fs::read_to_string(entry?.path()) {
            // Closed meanwhile: no program, which stays open.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            text => all.push(text?),
        }
    }
    Ok(all)
}

/// A number in such a text.
fn number(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().parse().ok()
}

/// How often the kernel has skipped a program of that process, because it was running already on the CPU; 0 where it
/// does not count that (before 5.12).
pub(crate) fn recursion_misses(pid: u32) -> io::Result<u64> {
    let counts = descriptors(pid)?;
    Ok(counts
        .iter()
        .filter_map(|text| number(text, "recursion_misses:"))
        .sum())
}

/// The name of such a program, NUL-padded.
const PROGRAM_NAME: &[u8; 16] = b"pw_refuses\0\0\0\0\0\0";

fn bpf<T>(command: i32, attr: &mut T) -> Result<i64, Errno> {
    // SAFETY: `attr` is a valid prefix of union bpf_attr of that size.
    check_long(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            size_of::<T>(),
        )
    })
}

/// Loads `return 0`, which means "refuse", for one kind of call; with this errno instead of EPERM, which
/// kernels know how to since 5.18 (`bpf_set_retval`).
fn load(refuse: Refuse, errno: Option<Errno>) -> Result<OwnedFd, Errno> {
    // r1 = -errno; call bpf_set_retval
    let mut code = errno.map_or_else(Vec::new, |errno| {
        let number = (-(errno as i32)).cast_unsigned();
        vec![u64::from(number) << 32 | 0x01b7, 187 << 32 | 0x85]
    });
    code.extend(program::NOTHING);
    Program {
        kind: refuse.program_type(),
        at: refuse as u32,
        code: &code,
        name: *PROGRAM_NAME,
        ..Program::default()
    }
    .load()
}

/// A cgroup below the calling process's own.
pub(crate) struct Cgroup {
    path: PathBuf,
    /// Where the process came from, and goes back to.
    home: PathBuf,
    /// As `/proc/PID/cgroup` has it.
    inside: String,
    /// Whether it goes away with this value.
    owned: bool,
}

impl Cgroup {
    /// Where it would be. `None` without cgroup v2.
    fn at(own: &str, name: impl AsRef<OsStr>) -> Option<Self> {
        let own = own.trim_matches('/');
        let home = Path::new(&proc::cgroup2_mount()?).join(own);
        let name = name.as_ref();
        let shown = name.to_string_lossy();
        let inside = if own.is_empty() {
            format!("/{shown}")
        } else {
            format!("/{own}/{shown}")
        };
        Some(Self {
            path: home.join(name),
            home,
            inside,
            owned: false,
        })
    }

    fn make(&mut self) -> Result<()> {
        // One that a scenario which failed has left.
        let _ = fs::remove_dir(&self.path);
        fs::create_dir(&self.path)
            .with_context(|| format!("cannot make {}", self.path.display()))?;
        self.owned = true;
        Ok(())
    }

    /// Makes one and moves the process there. `None` without cgroup v2.
    pub(crate) fn enter(own: &str) -> Result<Option<Self>> {
        let name = format!("portwatch-tests-{}", std::process::id());
        Self::enter_named(own, name.as_ref())
    }

    /// The same, with a name of its own.
    pub(crate) fn enter_named(own: &str, name: &OsStr) -> Result<Option<Self>> {
        let Some(mut cgroup) = Self::at(own, name) else {
            return Ok(None);
        };
        cgroup.make()?;
        cgroup.join()?;
        Ok(Some(cgroup))
    }

    /// Makes one for others to join. `None` without cgroup v2.
    pub(crate) fn beside_own(name: &str) -> Result<Option<Self>> {
        let own = proc::Me::learn()?.cgroup.unwrap_or_default();
        let Some(mut cgroup) = Self::at(&own, name) else {
            return Ok(None);
        };
        cgroup.make()?;
        Ok(Some(cgroup))
    }

    /// One that somebody else has made. `None` if nobody has.
    pub(crate) fn existing(own: &str, name: &str) -> Option<Self> {
        Self::at(own, name).filter(|cgroup| cgroup.path.is_dir())
    }

    /// Moves the calling process there.
    pub(crate) fn join(&self) -> Result<()> {
        move_to(&self.path)
    }

    /// Its path in the hierarchy.
    pub(crate) fn path_inside(&self) -> &str {
        &self.inside
    }

    /// Lets no process in it make such a call any more: EPERM.
    pub(crate) fn refuse(&self, refuse: Refuse) -> Result<()> {
        let program =
            load(refuse, None).with_context(|| format!("cannot load a {refuse:?} program"))?;
        self.attach(refuse, &program)
    }

    /// The same with another errno; false where this kernel's programs cannot choose one.
    pub(crate) fn refuse_with(&self, refuse: Refuse, errno: Errno) -> Result<bool> {
        match load(refuse, Some(errno)) {
            Ok(program) => self.attach(refuse, &program).map(|()| true),
            Err(Errno::EINVAL) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("cannot load a {refuse:?} program")),
        }
    }

    fn attach(&self, refuse: Refuse, program: &OwnedFd) -> Result<()> {
        #[repr(C)]
        struct Attr {
            target_fd: u32,
            attach_bpf_fd: u32,
            attach_type: u32,
            attach_flags: u32,
        }
        let directory = fs::File::open(&self.path).context("cannot open the cgroup")?;
        let number = |fd: RawFd| fd.cast_unsigned();
        bpf(
            PROG_ATTACH,
            &mut Attr {
                target_fd: number(directory.as_raw_fd()),
                attach_bpf_fd: number(program.as_raw_fd()),
                attach_type: refuse as u32,
                attach_flags: 0,
            },
        )
        .with_context(|| format!("cannot attach a {refuse:?} program"))?;
        Ok(())
    }
}

/// Moves the calling process to a cgroup.
fn move_to(path: &Path) -> Result<()> {
    let procs = path.join("cgroup.procs");
    fs::write(&procs, "0").with_context(|| format!("cannot write to {}", procs.display()))
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if !self.owned {
            return;
        }
        let left = move_to(&self.home).and_then(|()| Ok(fs::remove_dir(&self.path)?));
        if let Err(error) = left {
            eprintln!("cgroup {} stays: {error:#}", self.path.display());
        }
    }
}

/// Ids of everything of one kind that is loaded.
fn ids(command: i32) -> Result<BTreeSet<u32>, Errno> {
    #[repr(C)]
    struct Attr {
        start_id: u32,
        next_id: u32,
        open_flags: u32,
    }
    let mut ids = BTreeSet::new();
    let mut attr = Attr {
        start_id: 0,
        next_id: 0,
        open_flags: 0,
    };
    loop {
        match bpf(command, &mut attr) {
            Ok(_) => {
                ids.insert(attr.next_id);
            }
            Err(Errno::ENOENT) => return Ok(ids),
            Err(error) => return Err(error),
        }
        attr.start_id = attr.next_id;
    }
}

/// Programs and links in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Loaded {
    pub(crate) programs: BTreeSet<u32>,
    pub(crate) links: BTreeSet<u32>,
}

impl Loaded {
    /// All that there is at the moment.
    pub(crate) fn now() -> io::Result<Self> {
        Ok(Self {
            programs: ids(PROG_GET_NEXT_ID)?,
            links: ids(LINK_GET_NEXT_ID)?,
        })
    }

    /// Those that a process has descriptors of.
    pub(crate) fn by(pid: u32) -> io::Result<Self> {
        let mut loaded = Self::default();
        for text in descriptors(pid)? {
            let id = |name| u32::try_from(number(&text, name)?).ok();
            // The description of a link names its program too.
            loaded.programs.extend(id("prog_id:"));
            loaded.links.extend(id("link_id:"));
        }
        Ok(loaded)
    }

    /// Whether they share nothing.
    pub(crate) fn is_disjoint(&self, other: &Self) -> bool {
        self.programs.is_disjoint(&other.programs) && self.links.is_disjoint(&other.links)
    }
}

/// What the kernel counts of a program while `kernel.bpf_stats_enabled` is 1 (`struct bpf_prog_info`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Runs {
    /// As the kernel has it: the first fifteen bytes.
    pub(crate) name: String,
    /// Nanoseconds, of all times.
    pub(crate) time: u64,
    /// How often.
    pub(crate) count: u64,
}

/// What each program has run that a process has a descriptor of.
pub(crate) fn runs(pid: u32) -> io::Result<Vec<Runs>> {
    #[repr(C)]
    #[derive(Default)]
    struct Open {
        id: u32,
        next_id: u32,
        flags: u32,
    }
    #[repr(C)]
    struct Ask {
        fd: u32,
        size: u32,
        info: u64,
    }
    /// Bytes of `struct bpf_prog_info` up to the last member that is read here.
    const INFO: usize = 208;
    let mut all = Vec::new();
    for id in Loaded::by(pid)?.programs {
        let mut open = Open {
            id,
            ..Open::default()
        };
        let fd = bpf(PROG_GET_FD_BY_ID, &mut open)?;
        let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
        // SAFETY: the kernel has just made it for us.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let mut info = [0u64; INFO / 8];
        let mut ask = Ask {
            fd: fd.as_raw_fd().cast_unsigned(),
            size: INFO as u32,
            info: info.as_mut_ptr() as u64,
        };
        bpf(OBJ_GET_INFO_BY_FD, &mut ask)?;
        let name = [info[8].to_ne_bytes(), info[9].to_ne_bytes()].concat();
        let name = String::from_utf8_lossy(&name);
        all.push(Runs {
            name: name.trim_end_matches('\0').to_owned(),
            time: info[24],
            count: info[25],
        });
    }
    Ok(all)
}
