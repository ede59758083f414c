//! The file of the iterator over descriptors: records without end or gap between them, some 300 at a
//! time.

use std::io::{self, Read};

use crate::{
    decode::{self, DESCRIPTOR_LEN},
    event::Descriptor,
};

/// Room for more than the kernel hands over at a time (kernel/bpf/bpf_iter.c, `bpf_seq_read`: eight
/// pages).
const ROOM: usize = 64 << 10;

/// Reads it to its end. A record that means nothing to us is passed over: a socket that is closed while
/// the kernel reads it may look like anything.
///
/// # Errors
/// When the kernel does not hand it over.
pub fn read(mut file: impl Read, mut each: impl FnMut(Descriptor)) -> io::Result<()> {
    let mut room = vec![0; ROOM];
    let mut filled = 0;
    loop {
        let length = match file.read(room.get_mut(filled..).unwrap_or_default()) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            // After a million descriptors in a row that are none of ours (`bpf_seq_read`), and where
            // the scheduler has been asked to go on later.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                continue;
            }
            Err(error) => return Err(error),
        };
        filled += length;
        let whole = filled - filled % DESCRIPTOR_LEN;
        for record in room
            .get(..whole)
            .unwrap_or_default()
            .chunks_exact(DESCRIPTOR_LEN)
        {
            if let Ok(descriptor) = decode::descriptor(record) {
                each(descriptor);
            }
        }
        room.copy_within(whole..filled, 0);
        filled -= whole;
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::collections::VecDeque;

    use portwatch_ebpf::abi::record::{VERSION, kind};

    use super::*;

    /// A record of a TCP socket, as far as it is read.
    fn record(fd: u32, state: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(VERSION.to_ne_bytes());
        bytes.extend(kind::DESCRIPTOR.to_ne_bytes());
        bytes.extend((DESCRIPTOR_LEN as u32).to_ne_bytes());
        for word in [7, fd, 1, 0] {
            bytes.extend(u32::to_ne_bytes(word));
        }
        bytes.resize(DESCRIPTOR_LEN, 0);
        // Of `FoundRecord`: family, protocol, state.
        bytes[24 + 68..24 + 70].copy_from_slice(&2u16.to_ne_bytes());
        bytes[24 + 70..24 + 72].copy_from_slice(&6u16.to_ne_bytes());
        bytes[24 + 72] = state;
        bytes
    }

    /// Hands over one piece or error after the other.
    struct Pieces(VecDeque<Result<Vec<u8>, io::ErrorKind>>);

    impl Read for Pieces {
        fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
            match self.0.pop_front() {
                None => Ok(0),
                Some(Err(kind)) => Err(kind.into()),
                Some(Ok(piece)) => {
                    let (now, later) = piece.split_at(piece.len().min(room.len()));
                    room[..now.len()].copy_from_slice(now);
                    if !later.is_empty() {
                        self.0.push_front(Ok(later.to_vec()));
                    }
                    Ok(now.len())
                }
            }
        }
    }

    fn fds(
        pieces: impl IntoIterator<Item = Result<Vec<u8>, io::ErrorKind>>,
    ) -> io::Result<Vec<u32>> {
        let mut fds = Vec::new();
        read(Pieces(pieces.into_iter().collect()), |descriptor| {
            fds.push(descriptor.fd);
        })?;
        Ok(fds)
    }

    #[test]
    fn records_are_read_however_they_are_cut() {
        let all: Vec<u8> = (0..2000).flat_map(|fd| record(fd, 10)).collect();
        let expected: Vec<u32> = (0..2000).collect();
        for size in [1, 7, DESCRIPTOR_LEN, DESCRIPTOR_LEN + 1, 32 << 10] {
            let pieces = all.chunks(size).flat_map(|piece| {
                [
                    Err(io::ErrorKind::WouldBlock),
                    Ok(piece.to_vec()),
                    Err(io::ErrorKind::Interrupted),
                ]
            });
            assert_eq!(fds(pieces).unwrap(), expected, "{size}");
        }
        // More than fits at once.
        assert_eq!(
            fds(all.chunks(ROOM).map(|piece| Ok(piece[..].to_vec())))
                .unwrap()
                .len(),
            2000
        );
    }

    #[test]
    fn a_socket_that_went_while_it_was_read_is_left_out_and_an_error_is_one() {
        let all = [record(1, 10), record(2, 0), record(3, 7)].concat();
        assert_eq!(fds([Ok(all.clone())]).unwrap(), [1, 3]);
        let broken = fds([Ok(all), Err(io::ErrorKind::OutOfMemory)]);
        assert_eq!(broken.unwrap_err().kind(), io::ErrorKind::OutOfMemory);
    }
}
