//! The archive format of an initramfs: "newc" (the kernel's
//! Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeSet;

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const CHARACTER: u32 = 0o020_000;

/// An archive under construction. Paths are absolute; folders are added as needed.
#[derive(Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    folders: BTreeSet<String>,
    entries: u32,
}

impl Archive {
    /// Adds a file with these permissions.
    pub(crate) fn file(&mut self, path: &str, permissions: u32, data: &[u8]) {
        self.parents(path);
        self.entry(path, REGULAR | permissions, (0, 0), data);
    }

    /// Adds a folder, if it is not there yet.
    pub(crate) fn folder(&mut self, path: &str) {
        self.parents(path);
        if self.folders.insert(path.to_string()) {
            self.entry(path, DIRECTORY | 0o755, (0, 0), &[]);
        }
    }

    /// Adds a symbolic link.
    pub(crate) fn link(&mut self, path: &str, target: &[u8]) {
        self.parents(path);
        self.entry(path, LINK | 0o777, (0, 0), target);
    }

    /// Adds a character device.
    pub(crate) fn character_device(&mut self, path: &str, permissions: u32, numbers: (u32, u32)) {
        self.parents(path);
        self.entry(path, CHARACTER | permissions, numbers, &[]);
    }

    /// The finished archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("/TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn parents(&mut self, path: &str) {
        for (at, _) in path.match_indices('/').filter(|(at, _)| *at > 0) {
            if let Some(folder) = path.get(..at) {
                self.folder(folder);
            }
        }
    }

    /// A header of 13 numbers, eight hexadecimal digits each, then the name with a zero byte, then
    /// the data; name and data are each padded to a multiple of four bytes.
    fn entry(&mut self, path: &str, mode: u32, (major, minor): (u32, u32), data: &[u8]) {
        let name = path.trim_start_matches('/');
        // A file of 4 GiB has no place in an initramfs: the format counts in 32 bits.
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let name_length = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        self.entries += 1;
        // inode, mode, uid, gid, links, mtime, size, device (2), device numbers (2), name, checksum
        let numbers = [
            self.entries,
            mode,
            0,
            0,
            1,
            0,
            length,
            0,
            0,
            major,
            minor,
            name_length,
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for number in numbers {
            self.bytes
                .extend_from_slice(format!("{number:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    /// An independent reader, from the format's description: (name, mode, data).
    fn read(bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        let mut at = 0;
        loop {
            assert_eq!(&bytes[at..at + 6], b"070701");
            let number = |index: usize| {
                let from = at + 6 + index * 8;
                u32::from_str_radix(std::str::from_utf8(&bytes[from..from + 8]).unwrap(), 16)
                    .unwrap() as usize
            };
            let (mode, size, name_size) = (number(1), number(6), number(11));
            let name_at = at + 110;
            let name = String::from_utf8(bytes[name_at..name_at + name_size - 1].to_vec()).unwrap();
            assert_eq!(bytes[name_at + name_size - 1], 0);
            let data_at = (name_at + name_size).next_multiple_of(4);
            if name == "TRAILER!!!" {
                assert_eq!(bytes.len(), data_at);
                return entries;
            }
            entries.push((name, mode as u32, bytes[data_at..data_at + size].to_vec()));
            at = (data_at + size).next_multiple_of(4);
        }
    }

    #[test]
    fn what_goes_in_comes_out() {
        let mut archive = Archive::default();
        archive.file("/init", 0o755, b"hello");
        archive.file("/etc/vm/jobs", 0o644, b"");
        archive.file("/etc/passwd", 0o644, b"root:x:0:0");
        archive.character_device("/dev/console", 0o600, (5, 1));
        archive.link("/bin", b"usr/bin");
        let entries = read(&archive.finish());
        let names: Vec<&str> = entries.iter().map(|(name, _, _)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "init",
                "etc",
                "etc/vm",
                "etc/vm/jobs",
                "etc/passwd",
                "dev",
                "dev/console",
                "bin"
            ]
        );
        assert_eq!(
            entries[0],
            ("init".to_string(), 0o100_755, b"hello".to_vec())
        );
        assert_eq!(entries[1].1, 0o040_755);
        assert_eq!(entries[6].1, 0o020_600);
        let link = ("bin".to_string(), 0o120_777, b"usr/bin".to_vec());
        assert_eq!(entries[7], link);
    }

    #[test]
    fn every_length_is_padded() {
        for length in 0..9 {
            let mut archive = Archive::default();
            archive.file("/f", 0o644, &vec![b'x'; length]);
            let bytes = archive.finish();
            assert_eq!(bytes.len() % 4, 0);
            assert_eq!(read(&bytes)[0].2.len(), length);
        }
    }
}
