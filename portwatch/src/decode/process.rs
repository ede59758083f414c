//! Tasks, and what they execute.

use bytes::Buf as _;
use portwatch_ebpf::abi::record::{ARGS_LEN, NAME_LEN, PATH_LEN, flags, present};

use super::{DecodeError, numbers::address_bytes, when};
use crate::event::{ProcessImage, Task};

#[derive(Clone, Copy)]
pub(super) struct RawTask {
    pub(super) start_time: u64,
    pub(super) key: u64,
    pub(super) cgroup: u64,
    pub(super) tgid: u32,
    pub(super) tid: u32,
    pub(super) parent: u32,
    pub(super) vpid: u32,
    pub(super) uid: u32,
    pub(super) comm: [u8; 16],
}

pub(super) fn task(b: &mut &[u8]) -> Result<RawTask, DecodeError> {
    let task = RawTask {
        start_time: b.try_get_u64_ne()?,
        key: b.try_get_u64_ne()?,
        cgroup: b.try_get_u64_ne()?,
        tgid: b.try_get_u32_ne()?,
        tid: b.try_get_u32_ne()?,
        parent: b.try_get_u32_ne()?,
        vpid: b.try_get_u32_ne()?,
        uid: b.try_get_u32_ne()?,
        comm: {
            let _reserved = b.try_get_u32_ne()?;
            address_bytes(b)?
        },
    };
    Ok(task)
}

pub(super) fn task_of(raw: &RawTask, bits: u32) -> Task {
    Task {
        pid: raw.tgid,
        tid: raw.tid,
        parent_pid: when(bits, present::PARENT, raw.parent),
        vpid: when(bits, present::VPID, raw.vpid),
        uid: raw.uid,
        comm: when(bits, present::COMM, ())
            .map(|()| text(&raw.comm))
            .filter(|name| !name.is_empty()),
        start_boot: when(bits, present::START_TIME, raw.start_time),
        key: when(bits, present::START_TIME, raw.key),
        cgroup: (raw.cgroup != 0).then_some(raw.cgroup),
    }
}

/// Bytes up to the first NUL; what is not UTF-8 is replaced.
fn text(bytes: &[u8]) -> String {
    let len = bytes
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(bytes.len());
    let bytes = &bytes[..len];
    // Nearly all is, and that is faster to tell of the whole than piece by piece.
    str::from_utf8(bytes).map_or_else(
        |_| String::from_utf8_lossy(bytes).into_owned(),
        str::to_owned,
    )
}

pub(super) fn image(mut bytes: &[u8]) -> Result<ProcessImage, DecodeError> {
    let b = &mut bytes;
    let task = task(b)?;
    let bits = b.try_get_u32_ne()?;
    let flag_bits = b.try_get_u32_ne()?;
    let path_len = b.try_get_u32_ne()? as usize;
    let args_len = b.try_get_u32_ne()? as usize;
    b.try_copy_to_slice(&mut [0; 32])?;
    let (path, args) = b
        .split_at_checked(PATH_LEN + NAME_LEN)
        .ok_or(DecodeError::Short)?;
    let path = path.get(..path_len).ok_or(DecodeError::Short)?;
    let args = args
        .get(..args_len.min(ARGS_LEN))
        .ok_or(DecodeError::Short)?;
    let path_cut = flag_bits & flags::CUT_PATH != 0;
    Ok(ProcessImage {
        key: task.key,
        pid: task.tgid,
        executable_path: when(bits, present::PATH, ()).and_then(|()| join_path(path, path_cut)),
        path_cut,
        args: when(bits, present::ARGS, ()).map(|()| split_args(args)),
        args_cut: flag_bits & flags::CUT_ARGS != 0,
    })
}

/// Components from the file upwards, each ended by NUL. The end of a path that was cut does not
/// begin with `/`: nobody shall take it for the path of another file.
fn join_path(components: &[u8], cut: bool) -> Option<String> {
    let components = components.strip_suffix(&[0])?;
    let mut path = String::with_capacity(components.len() + 1);
    for name in components.rsplit(|&byte| byte == 0) {
        if !(cut && path.is_empty()) {
            path.push('/');
        }
        path.push_str(&String::from_utf8_lossy(name));
    }
    Some(path)
}

fn split_args(args: &[u8]) -> Vec<String> {
    // A program may have overwritten its arguments; what is left then ends in padding.
    let end = args
        .iter()
        .rposition(|&byte| byte != 0)
        .map_or(0, |last| last + 1);
    if end == 0 {
        return Vec::new();
    }
    args[..end]
        .split(|&byte| byte == 0)
        .map(|one| String::from_utf8_lossy(one).into_owned())
        .collect()
}
