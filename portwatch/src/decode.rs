//! Bytes of the ring to [`Event`]s: total, trusting no length, never panicking. Knows no aya.

mod numbers;
mod owners;
mod process;
mod socket;
#[cfg(test)]
mod tests;

use bytes::{Buf as _, TryGetError};
use portwatch_ebpf::abi::record::{
    DescriptorRecord, Header, OwnersRecord, ProcessRecord, SocketRecord, VERSION, kind,
};
use thiserror::Error;

use self::{
    owners::{found, owners},
    process::image,
    socket::socket,
};
use crate::event::{Conflict, Descriptor, Event, ProcessImage};

/// A decoded record.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// Something happened to a port.
    Socket {
        /// What.
        event: Box<Event>,
        /// CPU it was written on.
        cpu: u16,
        /// Events lost so far on that CPU.
        lost: u32,
    },
    /// The owners of a port, ahead of the refused call of the same thread.
    Owners {
        /// The thread.
        tid: u32,
        /// What stands in the way.
        conflict: Conflict,
    },
    /// A process, ahead of its first event.
    Image(ProcessImage),
}

/// Why a record was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The programs in the kernel are of another portwatch.
    #[error("record version {found}, this portwatch reads version {VERSION}")]
    Version {
        /// The version found.
        found: u16,
    },
    /// Shorter than it says.
    #[error("record cut short")]
    Short,
    /// Its length is not that of its kind.
    #[error("record of kind {kind} with length {len}")]
    Length {
        /// The kind.
        kind: u16,
        /// The length it claims.
        len: u32,
    },
    /// A kind nobody knows.
    #[error("record of unknown kind {0}")]
    Kind(u16),
    /// A number nobody knows.
    #[error("unknown {what} {number}")]
    Number {
        /// Of what.
        what: &'static str,
        /// The number.
        number: u32,
    },
}

impl From<TryGetError> for DecodeError {
    fn from(_: TryGetError) -> Self {
        Self::Short
    }
}

/// Decodes one record.
///
/// # Errors
/// When it is cut short, of another version, or holds a number that means nothing.
pub fn record(mut bytes: &[u8]) -> Result<Record, DecodeError> {
    let kind = header(&mut bytes, |kind| match kind {
        kind::SOCKET => Some(size_of::<SocketRecord>()),
        kind::OWNERS => Some(size_of::<OwnersRecord>()),
        kind::PROCESS => Some(size_of::<ProcessRecord>()),
        _ => None,
    })?;
    match kind {
        kind::PROCESS => image(bytes).map(Record::Image),
        kind::OWNERS => owners(bytes),
        _ => {
            let (event, cpu, lost) = socket(bytes)?;
            Ok(Record::Socket {
                event: Box::new(event),
                cpu,
                lost,
            })
        }
    }
}

/// Bytes of a record in the file of the iterator over descriptors.
pub const DESCRIPTOR_LEN: usize = size_of::<DescriptorRecord>();

/// Decodes one record of that file.
///
/// # Errors
/// As [`record`].
pub fn descriptor(mut bytes: &[u8]) -> Result<Descriptor, DecodeError> {
    let b = &mut bytes;
    header(b, |kind| {
        (kind == kind::DESCRIPTOR).then_some(DESCRIPTOR_LEN)
    })?;
    let pid = b.try_get_u32_ne()?;
    let fd = b.try_get_u32_ne()?;
    let netns = b.try_get_u32_ne()?;
    let of_thread = b.try_get_u32_ne()?;
    let (mut socket, _) = found(b)?;
    socket.socket.netns = Some(netns);
    Ok(Descriptor {
        pid,
        fd,
        of_thread: of_thread != 0,
        socket,
    })
}

/// Reads a header; returns the kind, if it is one of those that have a length, and all of it is there.
fn header(
    bytes: &mut &[u8],
    length: impl FnOnce(u16) -> Option<usize>,
) -> Result<u16, DecodeError> {
    let all = bytes.len();
    let version = bytes.try_get_u16_ne()?;
    let kind = bytes.try_get_u16_ne()?;
    let len = bytes.try_get_u32_ne()?;
    if version != VERSION {
        return Err(DecodeError::Version { found: version });
    }
    let expected = length(kind).ok_or(DecodeError::Kind(kind))?;
    if len as usize != expected {
        return Err(DecodeError::Length { kind, len });
    }
    if all < expected {
        return Err(DecodeError::Short);
    }
    Ok(kind)
}

/// Decodes a socket record that was read from a map rather than from the ring: its header is only
/// written when it is sent.
///
/// # Errors
/// As [`record`].
pub fn pending(bytes: &[u8]) -> Result<Event, DecodeError> {
    let body = bytes.get(size_of::<Header>()..size_of::<SocketRecord>());
    let (event, _, _) = socket(body.ok_or(DecodeError::Short)?)?;
    Ok(event)
}

/// A value whose bit is set.
fn when<T>(bits: u32, bit: u32, value: T) -> Option<T> {
    (bits & bit != 0).then_some(value)
}
