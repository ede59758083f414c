//! What the kernel programs and user space share: the records in the ring buffer, the configuration
//! handed over at load, and the table of kernel fields.
//!
//! The rules of this ABI:
//! - plain integers and byte arrays only: no `bool`, no `enum`, no `usize`, no implicit padding;
//! - sizes are asserted at compile time, on both sides, from these very definitions;
//! - every record begins with a [`abi::Header`] that names version, kind and length;
//! - what could not be read has its bit missing in a record's `present`; it is never a zero that
//!   looks like a value;
//! - kernel addresses never leave the kernel.
#![no_std]

pub mod abi;
