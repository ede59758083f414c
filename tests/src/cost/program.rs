//! An executable that does nothing but `exit_group(0)`: whatever a real program does at its start would
//! only be noise.

use std::{
    ffi::{CStr, CString},
    fs::Permissions,
    io::Write as _,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
};

use anyhow::{Context as _, Result};
use tempfile::TempPath;

/// Its file, as long as this lives. Each has its own: one that runs cannot be written (open(2),
/// ETXTBSY).
pub(super) struct Program {
    path: CString,
    _file: TempPath,
}

impl Program {
    /// Writes it.
    pub(super) fn that_exits() -> Result<Self> {
        let mut file = tempfile::Builder::new()
            .prefix("exits-")
            .permissions(Permissions::from_mode(0o755))
            .tempfile()
            .context("cannot make a program")?;
        file.write_all(&image()).context("cannot write a program")?;
        // Closed: what is open for writing cannot run either.
        let file = file.into_temp_path();
        Ok(Self {
            path: CString::new(file.as_os_str().as_bytes())?,
            _file: file,
        })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &CStr {
        &self.path
    }
}

/// What is in it: System V ABI, "Object Files".
fn image() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    // mov eax, 231 (exit_group); xor edi, edi; syscall
    const CODE: [u8; 9] = [0xb8, 0xe7, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05];
    let size = 64 + 56 + CODE.len() as u64;
    let mut file = Vec::new();
    file.extend(*b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    file.extend([2_u16, 62].map(u16::to_le_bytes).concat()); // ET_EXEC, EM_X86_64
    file.extend(1_u32.to_le_bytes());
    file.extend([BASE + 64 + 56, 64, 0].map(u64::to_le_bytes).concat()); // entry, phoff, shoff
    file.extend(0_u32.to_le_bytes());
    file.extend([64_u16, 56, 1, 64, 0, 0].map(u16::to_le_bytes).concat());
    file.extend([1_u32, 5].map(u32::to_le_bytes).concat()); // PT_LOAD, readable and executable
    let header = [0, BASE, BASE, size, size, 0x1000];
    file.extend(header.map(u64::to_le_bytes).concat());
    file.extend(CODE);
    file
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn it_runs() {
        let program = Program::that_exits().unwrap();
        // Another test's fork may hold it open for writing until it execs: ETXTBSY (open(2)).
        let status = (0..100).find_map(|_| {
            let started = std::process::Command::new(program.path().to_str().unwrap()).status();
            match started {
                Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                    std::thread::sleep(std::time::Duration::from_millis(10));
                    None
                }
                other => Some(other.unwrap()),
            }
        });
        assert_eq!(status.unwrap().code(), Some(0));
    }
}
