//! The bytes of a BTF file, without a copy where the kernel allows it.

use std::{
    fs::File,
    io::{self, Read as _},
    num::NonZeroUsize,
    ops::Deref,
    os::fd::AsFd,
    path::Path,
    ptr::NonNull,
    slice,
};

use nix::{
    errno::Errno,
    sys::mman::{MapFlags, ProtFlags, mmap, munmap},
};

/// Bytes of a file.
#[derive(Debug)]
pub(super) enum Bytes {
    /// The kernel's own pages.
    Mapped(Mapping),
    /// A copy of them.
    Read(Vec<u8>),
}

impl Bytes {
    /// The bytes of the kernel's BTF. Since 6.16 it can be mapped (kernel/bpf/sysfs_btf.c,
    /// `btf_sysfs_vmlinux_mmap`); before, it is read a page at a time, in a thousand calls.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let len = file.metadata()?.len() as usize;
        if let Ok(mapping) = Mapping::new(&file, len) {
            return Ok(Self::Mapped(mapping));
        }
        let mut data = Vec::with_capacity(len + 1);
        file.read_to_end(&mut data)?;
        Ok(Self::Read(data))
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(mapping) => mapping,
            Self::Read(data) => data,
        }
    }
}

/// A file's pages, read only.
#[derive(Debug)]
pub(super) struct Mapping {
    at: NonNull<u8>,
    len: NonZeroUsize,
}

impl Mapping {
    fn new(file: impl AsFd, len: usize) -> Result<Self, Errno> {
        let len = NonZeroUsize::new(len).ok_or(Errno::EINVAL)?;
        let private = MapFlags::MAP_PRIVATE;
        // SAFETY: a new mapping, at a place that the kernel chooses, that replaces no other.
        let at = unsafe { mmap(None, len, ProtFlags::PROT_READ, private, file, 0) }?;
        Ok(Self { at: at.cast(), len })
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the mapping has that many bytes and lives as long as self does. They are the
        // kernel's own and never change: a private mapping, and the file is in sysfs.
        unsafe { slice::from_raw_parts(self.at.as_ptr(), self.len.get()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: made by mmap() with this length; nobody borrows from it any more.
        let _ = unsafe { munmap(self.at.cast(), self.len.get()) };
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_the_same_mapped_and_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let data: Vec<u8> = (0..10_000u32).flat_map(u32::to_ne_bytes).collect();
        fs::write(&path, &data).unwrap();
        let mapped = Bytes::of(&path).unwrap();
        assert!(matches!(mapped, Bytes::Mapped(_)), "{mapped:?}");
        assert_eq!(*mapped, *data);
        assert_eq!(*Bytes::Read(data.clone()), *data);
    }

    #[test]
    fn a_file_that_cannot_be_mapped_is_read() {
        // procfs tells no size, and maps nothing.
        let path = Path::new("/proc/self/cmdline");
        let bytes = Bytes::of(path).unwrap();
        assert!(matches!(bytes, Bytes::Read(_)), "{bytes:?}");
        assert_eq!(*bytes, *fs::read(path).unwrap());
    }

    #[test]
    fn an_empty_file_has_no_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "").unwrap();
        assert!(Bytes::of(&path).unwrap().is_empty());
    }

    #[test]
    fn a_mapping_is_given_back() {
        let lines = || {
            let maps = fs::read_to_string("/proc/self/maps").unwrap();
            maps.lines()
                .filter(|line| line.contains("only-here"))
                .count()
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("only-here");
        fs::write(&path, "text").unwrap();
        let mapped = Bytes::of(&path).unwrap();
        assert_eq!(lines(), 1);
        drop(mapped);
        assert_eq!(lines(), 0);
    }
}
