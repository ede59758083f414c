//! The cgroup programs that decide on a call, asked of bpf(2). aya lists programs, not what is attached to a
//! cgroup.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
};

use super::cgroup;

/// Commands of bpf(2) (include/uapi/linux/bpf.h, `enum bpf_cmd`).
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const PROG_QUERY: libc::c_int = 16;

/// Programs of one kind on one cgroup that are told: the kernel takes 64 (`BPF_CGROUP_MAX_PROGS`).
const MAX_PROGRAMS: usize = 64;

/// Where a program stands in the way (`enum bpf_attach_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Attach {
    /// Before bind() of an IPv4 socket.
    Bind4 = 8,
    /// Before bind() of an IPv6 socket.
    Bind6 = 9,
    /// Before connect() of an IPv4 socket.
    Connect4 = 10,
    /// Before connect() of an IPv6 socket.
    Connect6 = 11,
    /// After an IPv4 socket got its port: the kernel gives it back.
    PostBind4 = 12,
    /// After an IPv6 socket got its port.
    PostBind6 = 13,
}

impl Attach {
    /// bpftool's name for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bind4 => "cgroup_inet4_bind",
            Self::Bind6 => "cgroup_inet6_bind",
            Self::Connect4 => "cgroup_inet4_connect",
            Self::Connect6 => "cgroup_inet6_connect",
            Self::PostBind4 => "cgroup_inet4_post_bind",
            Self::PostBind6 => "cgroup_inet6_post_bind",
        }
    }
}

/// A program on a cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The kernel's id of it.
    pub id: u32,
    /// Its name, of at most 15 bytes. It need not have one.
    pub name: Option<String>,
    /// Where it stands.
    pub attach: Attach,
    /// Path of the cgroup in its hierarchy.
    pub cgroup: String,
}

/// The programs of these kinds on a cgroup and those above it, the nearest first: all of them are asked.
///
/// # Errors
/// When the hierarchy is not mounted, the cgroup is gone, the kernel has no such programs, or this process
/// may not ask (CAP_NET_ADMIN).
pub fn of(path: &str, kinds: &[Attach]) -> io::Result<Vec<Attached>> {
    let root = cgroup::root().ok_or(io::ErrorKind::NotFound)?;
    let mut found = Vec::new();
    for cgroup in upwards(path) {
        let directory = File::open(root.join(cgroup.trim_start_matches('/')))?;
        for &attach in kinds {
            for id in query(directory.as_raw_fd(), attach)? {
                found.push(Attached {
                    id,
                    name: name(id),
                    attach,
                    cgroup: cgroup.to_owned(),
                });
            }
        }
    }
    Ok(found)
}

/// `/a/b`, `/a`, `/`
fn upwards(path: &str) -> impl Iterator<Item = &str> {
    let path = path.trim_end_matches('/');
    std::iter::successors(
        Some(if path.is_empty() { "/" } else { path }),
        |path| match path.rsplit_once('/')? {
            (_, "") => None,
            ("", _) => Some("/"),
            (parent, _) => Some(parent),
        },
    )
}

/// The part of `union bpf_attr` that PROG_QUERY takes, whole: kernels from 6.17 on write `revision`
/// whatever size they are told (120933984460; 21c4b99b27f3 of 7.2 asks first).
#[repr(C)]
struct Query {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    reserved: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

const _: () = assert!(size_of::<Query>() == 64);

/// Ids of the programs on a cgroup itself.
fn query(directory: RawFd, attach: Attach) -> io::Result<Vec<u32>> {
    let mut ids = [0u32; MAX_PROGRAMS];
    let mut attr = Query {
        target_fd: directory.cast_unsigned(),
        attach_type: attach as u32,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: u32::try_from(MAX_PROGRAMS).unwrap_or_default(),
        reserved: 0,
        prog_attach_flags: 0,
        link_ids: 0,
        link_attach_flags: 0,
        revision: 0,
    };
    // SAFETY: `prog_ids` leads to `prog_cnt` numbers that live until the call is over.
    unsafe { bpf(PROG_QUERY, &mut attr) }?;
    let count = usize::try_from(attr.prog_cnt).unwrap_or_default();
    Ok(ids.get(..count).unwrap_or_default().to_vec())
}

/// The part of `union bpf_attr` that PROG_GET_FD_BY_ID takes.
#[repr(C)]
struct ById {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// The part of `union bpf_attr` that OBJ_GET_INFO_BY_FD takes.
#[repr(C)]
struct InfoByFd {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The beginning of `struct bpf_prog_info`, up to the name (4.15).
#[repr(C)]
#[derive(Default)]
struct Info {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_len: u32,
    xlated_len: u32,
    jited: u64,
    xlated: u64,
    load_time: u64,
    uid: u32,
    map_count: u32,
    maps: u64,
    name: [u8; 16],
}

const _: () = assert!(std::mem::offset_of!(Info, name) == 64);

/// The name of a program; `None` where it has none, is gone, or may not be asked for.
fn name(id: u32) -> Option<String> {
    let mut attr = ById {
        id,
        next_id: 0,
        open_flags: 0,
    };
    // SAFETY: three numbers.
    let fd = unsafe { bpf(PROG_GET_FD_BY_ID, &mut attr) }.ok()?;
    // SAFETY: the kernel has just returned this descriptor.
    let program = unsafe { OwnedFd::from_raw_fd(RawFd::try_from(fd).ok()?) };
    let mut info = Info::default();
    let mut attr = InfoByFd {
        bpf_fd: program.as_raw_fd().cast_unsigned(),
        info_len: u32::try_from(size_of::<Info>()).ok()?,
        info: (&raw mut info) as u64,
    };
    // SAFETY: `info` leads to as many bytes as `info_len` says. Its own pointers and their lengths are 0, so
    // that the kernel writes nothing elsewhere.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr) }.ok()?;
    let length = info.name.iter().position(|&byte| byte == 0);
    let name = info.name.get(..length.unwrap_or(info.name.len()))?;
    (!name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned())
}

/// bpf(2).
///
/// # Safety
/// `attr` is the beginning of `union bpf_attr` for this command, and its pointers are what that command
/// takes.
unsafe fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the caller vouches for what `attr` holds; its size is passed on.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_is_below_others() {
        let above = |path| upwards(path).collect::<Vec<_>>();
        assert_eq!(above("/a/b"), ["/a/b", "/a", "/"]);
        assert_eq!(above("/a"), ["/a", "/"]);
        assert_eq!(above("/"), ["/"]);
        assert_eq!(above(""), ["/"]);
        assert_eq!(above("/a/"), ["/a", "/"]);
    }

    #[test]
    fn a_cgroup_that_is_not_there_is_an_error() {
        assert!(of("/no/such/cgroup", &[Attach::Bind4]).is_err());
    }

    #[test]
    fn the_root_has_programs_or_says_why_not() {
        let kinds = [Attach::Bind4, Attach::PostBind4, Attach::Connect6];
        match of("/", &kinds) {
            Ok(programs) => assert!(programs.iter().all(|it| it.cgroup == "/" && it.id != 0)),
            Err(error) => println!("skip: {error}"),
        }
    }

    #[test]
    fn a_program_that_is_not_there_has_no_name() {
        assert_eq!(name(u32::MAX), None);
    }
}
