//! Virtual machines with Debian's kernels, without installing anything.
//!
//! [`sources`] finds the machine's own Debian mirror, [`fetch`] gets packages from any suite of it
//! into the cache, [`qemu`], [`kernel`], [`neighbours`] and [`programs`] unpack what they need there; [`libraries`],
//! [`modules`], [`cpio`] and [`initramfs`] make what a kernel boots; [`machine`] boots it, and [`console`] understands what
//! comes out of its two serial ports. PID 1 of the guest is `tests/src/bin/vm-init.rs`.

pub(crate) mod console;
pub(crate) mod cpio;
pub(crate) mod fetch;
pub(crate) mod initramfs;
pub(crate) mod kernel;
pub(crate) mod libraries;
pub(crate) mod machine;
pub(crate) mod modules;
pub(crate) mod neighbours;
pub(crate) mod programs;
pub(crate) mod qemu;
pub(crate) mod sources;
