//! One boot that measures.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::figures::Figures;
use crate::say::say;
use crate::vm::console::{End, Line, Patience};
use crate::vm::initramfs::{self, Contents, Job};
use crate::vm::kernel::Kernel;
use crate::vm::libraries::Library;
use crate::vm::machine::Machine;
use crate::vm::qemu::Qemu;
use crate::workspace;

/// What portwatch asks the kernel with, beside the programs.
const MODULES: &[&str] = &["inet_diag", "tcp_diag", "udp_diag"];

/// In seconds.
const LIMIT: u64 = 3600;

/// What goes into every guest.
pub(crate) struct Guest<'a> {
    /// The emulator.
    pub(crate) qemu: &'a Qemu,
    /// The kernel.
    pub(crate) kernel: &'a Kernel,
    /// PID 1.
    pub(crate) init: &'a Path,
    /// The driver and workload.
    pub(crate) tests: &'a Path,
    /// Programs: where they go, and the file here.
    pub(crate) programs: &'a [(String, PathBuf)],
    /// What the programs need.
    pub(crate) libraries: &'a [Library],
}

/// Which clock.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Clock {
    /// One CPU, one nanosecond an instruction.
    Instructions,
    /// Two CPUs at the emulator's full speed.
    Wall,
}

impl Clock {
    fn name(self) -> &'static str {
        match self {
            Clock::Instructions => "icount",
            Clock::Wall => "wall",
        }
    }
}

impl Guest<'_> {
    /// Boots it and runs `portwatch-tests` with these arguments; each line it prints goes to `each`.
    ///
    /// # Errors
    /// The guest did not come to its end.
    pub(crate) fn run(
        &self,
        clock: Clock,
        args: Vec<String>,
        mut each: impl FnMut(&str),
    ) -> Result<()> {
        let name = format!("bench-{}-{}", self.kernel.tag, clock.name());
        let logs = workspace::scratch().join("vm").join(&name);
        fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
        let image = logs.join("initramfs.cpio");
        let mut files = self.programs.to_vec();
        files.push(("/bin/portwatch-tests".into(), self.tests.to_path_buf()));
        files.extend(
            self.libraries
                .iter()
                .map(|library| (library.inside.clone(), library.file.clone())),
        );
        let mut argv = vec!["/bin/portwatch-tests".to_string()];
        argv.extend(args);
        let contents = Contents {
            tree: None,
            init: self.init,
            files: &files,
            modules: MODULES,
            jobs: &[Job::Run {
                id: "bench".into(),
                limit: LIMIT,
                argv,
            }],
        };
        fs::write(&image, initramfs::pack(self.kernel, &contents)?)
            .with_context(|| format!("cannot write {}", image.display()))?;
        let (cpus, icount) = match clock {
            Clock::Instructions => (1, Some(0)),
            Clock::Wall => (2, None),
        };
        let machine = Machine {
            qemu: self.qemu,
            kernel: self.kernel,
            initramfs: &image,
            logs: &logs,
            cpus,
            memory: 4096,
            icount,
            // As users have it.
            expedited: false,
            patience: Patience {
                boot: Duration::from_secs(300),
                silence: Duration::from_secs(LIMIT + 60),
            },
        };
        say(format_args!("{name}: booting"));
        let mut end = None;
        let mut errors = Vec::new();
        let ending = machine.run(|line| match line {
            Line::Out(text) => each(text),
            Line::Err(text) => errors.push(text.clone()),
            Line::Note(text) => say(format_args!("{name}: {text}")),
            Line::End(_, how) => end = Some(how.clone()),
            _ => {}
        })?;
        for note in ending.notes {
            say(format_args!("{name}: {note}"));
        }
        if let Some(trouble) = ending.trouble {
            bail!("{name}: {trouble} (logs: {})", logs.display());
        }
        match end {
            Some(End::Exit(0)) => Ok(()),
            other => bail!(
                "{name}: the driver ended with {other:?}: {}",
                errors.join("\n")
            ),
        }
    }

    /// The same for the driver of `tests/src/cost/drive.rs`.
    ///
    /// # Errors
    /// As [`Guest::run`].
    pub(crate) fn drive(&self, clock: Clock, args: Vec<String>) -> Result<Figures> {
        let mut figures = Figures::default();
        let mut all = vec!["cost".to_string(), "drive".to_string()];
        all.extend(args);
        self.run(clock, all, |line| {
            say(format_args!("  {}", line.replace('\t', " ")));
            if !figures.line(line) {
                figures.failures.push(format!("not understood: {line}"));
            }
        })?;
        Ok(figures)
    }
}
