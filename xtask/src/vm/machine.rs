//! One boot of one kernel, from power on to power off.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use super::console::{Health, Line, Patience, Splitter, Watch, judge};
use super::kernel::Kernel;
use super::qemu::Qemu;
use crate::exec::shown;

/// A boot that dies before PID 1 speaks says nothing about portwatch; it is tried again this often.
const RETRIES: u32 = 2;

/// How to boot.
pub(crate) struct Machine<'a> {
    /// The emulator.
    pub(crate) qemu: &'a Qemu,
    /// The kernel.
    pub(crate) kernel: &'a Kernel,
    /// The archive from [`super::initramfs::pack`].
    pub(crate) initramfs: &'a Path,
    /// Where the two serial ports, QEMU's own messages and the command line are kept.
    pub(crate) logs: &'a Path,
    /// Number of CPUs.
    pub(crate) cpus: u32,
    /// Memory in megabytes.
    pub(crate) memory: u32,
    /// Count instructions: the guest's clock advances by 2^N ns with each one (QEMU's
    /// `-icount shift=N`). Only with one CPU. `None`: the clock is the real one.
    pub(crate) icount: Option<u32>,
    /// Expedite RCU grace periods, which end sooner then and promise the same (kernel:
    /// Documentation/admin-guide/kernel-parameters.txt): starts and ends of portwatch take an
    /// eighth less.
    pub(crate) expedited: bool,
    /// How long to wait.
    pub(crate) patience: Patience,
}

/// How a boot ended.
#[derive(Debug)]
pub(crate) struct Ending {
    /// From power on to PID 1's first line; `None` if it never came.
    pub(crate) booted: Option<Duration>,
    /// Why it did not end well: a panic, silence, QEMU's own failure.
    pub(crate) trouble: Option<String>,
    /// What is worth knowing nonetheless: a retried boot, a kernel warning.
    pub(crate) notes: Vec<String>,
}

impl Machine<'_> {
    /// Boots, hands every line of the second port to `each` as it comes, and waits for the end.
    ///
    /// # Errors
    /// QEMU cannot be run or a log cannot be written. A guest that fails is an [`Ending`].
    pub(crate) fn run(&self, mut each: impl FnMut(&Line)) -> Result<Ending> {
        let mut notes = Vec::new();
        loop {
            let mut ending = self.attempt(&mut each)?;
            let Some(trouble) = &ending.trouble else {
                ending.notes.splice(0..0, notes);
                return Ok(ending);
            };
            if ending.booted.is_some() || notes.len() >= RETRIES as usize {
                ending.notes.splice(0..0, notes);
                return Ok(ending);
            }
            notes.push(format!(
                "a boot died before PID 1 ran ({trouble}); tried again"
            ));
        }
    }

    fn attempt(&self, each: &mut impl FnMut(&Line)) -> Result<Ending> {
        fs::create_dir_all(self.logs)
            .with_context(|| format!("cannot make {}", self.logs.display()))?;
        let [console, results, messages] =
            ["console.log", "results.log", "qemu.log"].map(|name| self.logs.join(name));
        for path in [&console, &results] {
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        }
        let mut command = self.command(&console, &results);
        fs::write(self.logs.join("command"), shown(&command) + "\n")
            .context("cannot keep QEMU's command line")?;
        let log = File::create(&messages)
            .with_context(|| format!("cannot write {}", messages.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        // SAFETY: the closure makes one system call and touches no memory that is shared.
        unsafe { command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?)) };
        let child = command
            .spawn()
            .with_context(|| format!("cannot run `{}`", shown(&command)))?;
        let mut running = Running(child);
        let mut console = Tail::open(&console)?;
        let mut results = Tail::open(&results)?;
        let mut watch = Watch::new(Instant::now(), self.patience);
        let mut ending = Ending {
            booted: None,
            trouble: None,
            notes: Vec::new(),
        };
        loop {
            // Asked before the last read: what QEMU wrote before it ended is not missed.
            let ended = running.0.try_wait().context("cannot wait for QEMU")?;
            for line in console.read()? {
                match judge(&line) {
                    Health::Fine => {}
                    Health::Warning => ending.notes.push(format!("kernel: {}", line.trim())),
                    Health::Trouble => {
                        ending
                            .trouble
                            .get_or_insert_with(|| format!("kernel: {}", line.trim()));
                    }
                }
            }
            for line in results.read()? {
                let line = Line::parse(&line);
                watch.line(&line, Instant::now());
                each(&line);
            }
            if let Some(status) = ended {
                if !watch.done() && ending.trouble.is_none() {
                    let said = fs::read_to_string(&messages).unwrap_or_default();
                    let said = said
                        .lines()
                        .last()
                        .unwrap_or("the guest went away without a word");
                    ending.trouble = Some(format!(
                        "QEMU ended ({status}) before the guest was done: {said}"
                    ));
                }
                break;
            }
            if ending.trouble.is_none() {
                ending.trouble = watch.overdue(Instant::now());
            } else {
                // Time for the rest of an oops to reach the log.
                thread::sleep(Duration::from_millis(500));
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        ending.booted = watch.booted();
        Ok(ending)
    }

    fn command(&self, console: &Path, results: &Path) -> Command {
        let Machine {
            qemu,
            kernel,
            initramfs,
            cpus,
            memory,
            icount,
            expedited,
            ..
        } = self;
        let mut command = qemu.command();
        command.args(["-machine", "q35,accel=tcg", "-cpu", cpu_model(*icount)]);
        command.args(["-smp", &cpus.to_string(), "-m", &memory.to_string()]);
        command.args([
            "-nodefaults",
            "-no-reboot",
            "-display",
            "none",
            "-nic",
            "none",
        ]);
        if let Some(shift) = icount {
            command.args(["-icount", &format!("shift={shift}")]);
        }
        command
            .arg("-kernel")
            .arg(&kernel.vmlinuz)
            .arg("-initrd")
            .arg(initramfs);
        // panic=-1 with -no-reboot: a panic ends QEMU at once. loglevel=5 shows warnings too.
        // tsc=reliable: 5.10 takes the emulated TSC for unstable, and then a quarter of the machine's time
        // goes into asking the emulated HPET for the time.
        let options = "console=ttyS0 panic=-1 oops=panic loglevel=5 tsc=reliable";
        let faster = if *expedited {
            " rcupdate.rcu_expedited=1"
        } else {
            ""
        };
        command.args(["-append", &format!("{options}{faster}")]);
        for port in [console, results] {
            let mut file = std::ffi::OsString::from("file:");
            file.push(port);
            command.arg("-serial").arg(file);
        }
        command
    }
}

/// What the guest takes its processor for.
///
/// "max" claims that `rep movsb` and `rep stosb` are fast (erms, fsrm), and kernels then copy and clear
/// memory with them. QEMU emulates them byte by byte: a third of what a start of portwatch costs went
/// there. Where instructions are counted the claim stays, or figures would not compare with older ones.
fn cpu_model(icount: Option<u32>) -> &'static str {
    match icount {
        None => "max,erms=off,fsrm=off",
        Some(_) => "max",
    }
}

/// QEMU does not outlive this value; nor, by its parent-death signal, us when we are killed.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it has ended already, which is what is wanted.
        let _already_dead = self.0.kill();
        let _already_waited = self.0.wait();
    }
}

/// A file that another process is writing.
struct Tail {
    path: PathBuf,
    file: File,
    lines: Splitter,
}

impl Tail {
    fn open(path: &Path) -> Result<Tail> {
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Tail {
            path: path.to_path_buf(),
            file,
            lines: Splitter::default(),
        })
    }

    fn read(&mut self) -> Result<Vec<String>> {
        let mut bytes = Vec::new();
        self.file
            .read_to_end(&mut bytes)
            .with_context(|| format!("cannot read {}", self.path.display()))?;
        Ok(self.lines.push(&bytes))
    }
}
