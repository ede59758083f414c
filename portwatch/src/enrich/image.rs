//! What a process runs, as far as that is needed to tell whether it runs something else by now.

use std::{collections::HashMap, fs, io::Read as _};

/// Tells a process from another with its pid, and from itself before exec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    /// Start, clock ticks.
    start: u64,
    /// Where code, stack and environment lie: exec places them anew.
    places: [u64; 4],
}

/// Longer than any `/proc/PID/stat`: 52 numbers of up to 20 digits, and a name.
const ROOM: usize = 2048;

/// Reads `/proc/PID/stat` once, for what `parse` finds in it; `None` where the process is gone.
pub fn stat<T>(pid: u32, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
    let mut room = [0; ROOM];
    let mut file = fs::File::open(format!("/proc/{pid}/stat")).ok()?;
    // The kernel hands it over whole (fs/proc/array.c, by seq_file).
    let length = file.read(&mut room).ok()?;
    parse(&String::from_utf8_lossy(room.get(..length)?))
}

impl Image {
    /// That of a process now; `None` where it is gone, is a kernel thread, may not be read, or is in the
    /// middle of exec.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        stat(pid, Self::parse)
    }

    /// From the text of `/proc/PID/stat` (proc_pid_stat(5)). The name may hold anything, and ends at the
    /// last parenthesis.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
        let mut after = |skipped: usize| fields.nth(skipped)?.parse::<u64>().ok();
        // From field 3 on: 22, 26 to 28, 51.
        let image = Self {
            start: after(19)?,
            places: [after(3)?, after(0)?, after(0)?, after(22)?],
        };
        // Without the rights of ptrace, of kernel threads and of what has ended, they are 0 or 1. exec notes
        // the stack last, after the arguments (fs/binfmt_elf.c, `load_elf_binary`).
        let [.., stack, environment] = image.places;
        (stack > 1 && environment > 1).then_some(image)
    }
}

/// The images of all processes at a moment.
#[derive(Clone, Debug, Default)]
pub struct Images(HashMap<u32, Image>);

impl Images {
    /// Those of the processes in `/proc`, now. A few microseconds for each.
    #[must_use]
    pub fn now() -> Self {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        Self(
            pids.filter_map(|pid| Some((pid, Image::of(pid)?)))
                .collect(),
        )
    }

    /// Whether a process was there then, and has run the same until now.
    #[must_use]
    pub fn still(&self, pid: u32) -> bool {
        let image = self.0.get(&pid);
        image.is_some() && image.copied() == Image::of(pid)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::{
        io::{BufRead as _, BufReader},
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn exec_and_end_are_noticed() {
        let mut child = Command::new("sh")
            .args(["-c", "echo; read go; exec sh -c 'echo; read go'"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (pid, mut stdin) = (child.id(), child.stdin.take().unwrap());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        lines.next().unwrap().unwrap();
        let images = Images::now();
        assert!(images.still(pid), "nothing has happened");
        assert!(images.still(std::process::id()));
        std::io::Write::write_all(&mut stdin, b"\n").unwrap();
        lines.next().unwrap().unwrap();
        assert!(!images.still(pid), "it runs something else");
        let images = Images::now();
        assert!(images.still(pid));
        drop(stdin);
        child.wait().unwrap();
        assert!(!images.still(pid), "it is gone");
    }

    #[test]
    fn what_is_not_known_is_not_the_same() {
        assert!(!Images::default().still(std::process::id()));
        let stat = |stack: &str| {
            let mut fields: Vec<String> = (3..=52).map(|field: u32| field.to_string()).collect();
            fields[28 - 3] = stack.to_owned();
            format!("7 (a) b) {}\n", fields.join(" "))
        };
        let image = Image::parse(&stat("140000")).unwrap();
        assert_eq!((image.start, image.places), (22, [26, 27, 140_000, 51]));
        assert_eq!(Image::parse(&stat("0")), None, "hidden");
        assert_eq!(Image::parse("7 (a) S 1"), None);
        assert_eq!(Image::parse(""), None);
    }
}
