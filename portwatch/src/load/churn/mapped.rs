//! An array of the programs, mapped into this process.

use std::{num::NonZeroUsize, os::fd::AsFd as _, ptr::NonNull};

use aya::{
    Ebpf,
    maps::{Map, MapData, MapError},
};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::super::{LoadError, failed};

/// The elements, where they lie: each is a whole number of eight bytes, so they lie side by side.
pub(super) struct Mapped<T> {
    base: NonNull<T>,
    count: u32,
    bytes: NonZeroUsize,
    /// Programs that are loaded later name the map by its descriptor.
    _map: MapData,
}

impl<T> Mapped<T> {
    /// Maps an array of that name, which has so many elements.
    ///
    /// # Errors
    /// When there is no such map, or the kernel refuses.
    pub(super) fn map(ebpf: &mut Ebpf, name: &'static str, count: u32) -> Result<Self, LoadError> {
        const { assert!(size_of::<T>().is_multiple_of(8)) };
        let Some(Map::Array(array)) = ebpf.take_map(name) else {
            return Err(LoadError::Lacks(name));
        };
        let bytes =
            NonZeroUsize::new(size_of::<T>() * count as usize).ok_or(LoadError::Lacks(name))?;
        // SAFETY: a new mapping of a map that the kernel lets be mapped.
        let base = unsafe {
            mmap(
                None,
                bytes,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
                array.fd().as_fd(),
                0,
            )
        };
        let base = base.map_err(|errno| failed(name, MapError::IoError(errno.into())))?;
        Ok(Self {
            base: base.cast(),
            count,
            bytes,
            _map: array,
        })
    }

    /// How many there are.
    pub(super) const fn len(&self) -> u32 {
        self.count
    }

    /// One of them. The programs write it at any time.
    pub(super) fn at(&self, index: u32) -> *mut T {
        assert!(index < self.count);
        // SAFETY: within the mapping.
        unsafe { self.base.as_ptr().add(index as usize) }
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nobody refers to it any more.
        let _ = unsafe { munmap(self.base.cast(), self.bytes.get()) };
    }
}
