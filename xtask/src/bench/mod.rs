//! `cargo xtask bench`: what portwatch costs, beside its budget and its neighbours.
//!
//! Two boots of one kernel. In the first the guest's clock counts instructions, which makes the
//! figures repeatable; in the second two CPUs run at the emulator's full speed, to see whether
//! anything is lost. Nothing here is a test: figures are read by people and kept in `docs/cost.md`.

mod budget;
mod churn;
mod figures;
mod guest;
mod looking;
mod naming;
mod native;
mod older;
mod peers;
mod recording;
mod report;

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use self::figures::Figures;
use self::guest::{Clock, Guest};
use self::native::Native;
use self::report::Report;
use crate::exec::output;
use crate::say::{Step, say};
use crate::toolchain::GUEST_TARGET;
use crate::verifier::{self, Record};
use crate::vm::kernel::{self, Kernel};
use crate::vm::libraries;
use crate::vm::neighbours::Neighbours;
use crate::vm::qemu::Qemu;
use crate::workspace::{self, Cache};
use crate::{cargo, toolchain};

/// Measure what portwatch costs, and write docs/cost.md
///
/// Instructions that every operation gets longer by, counted in a virtual machine; instructions
/// until it is attached; memory, losses and latency. The release binary is measured, as it is.
#[derive(Args)]
#[command(after_help = "Examples:
  cargo xtask bench                             everything, on 6.12; writes docs/cost.md
  cargo xtask bench --peers                     beside bindsnoop, tcpconnect and bpftrace
  cargo xtask bench --older                     starts beside 100,000 sockets; adds to docs/cost.md
  cargo xtask bench --naming                    how long until a holder is named
  cargo xtask bench --looking                   list and who beside ss
  cargo xtask bench --churn                     what churn adds to a TCP connection
  cargo xtask bench --record                    record and report, on this machine alone
  cargo xtask bench --attach tracing --only bind --quick    one row, quickly; writes nothing")]
pub(crate) struct Bench {
    /// The kernel (5.10, 6.1, 6.12, 7.x)
    #[arg(long, value_name = "VERSION", default_value = "6.12", value_parser = crate::test::parse_kernel)]
    kernel: &'static str,
    /// Only this backend; may be repeated
    #[arg(long, value_name = "BACKEND", value_parser = ["tracing", "kprobe", "raw_tp"])]
    attach: Vec<String>,
    /// Beside libbpf-tools and bpftrace, which are fetched as Debian packages (220 MB)
    #[arg(long)]
    peers: bool,
    /// A tenth of the operations: noisier
    #[arg(long)]
    quick: bool,
    /// Nothing but the work of the verifier, on all kernels; writes tests/verifier.tsv
    #[arg(long, conflicts_with_all = ["attach", "peers", "quick", "only"])]
    verifier: bool,
    /// Nothing but starts beside 100,000 sockets, here and on that kernel; fails where that takes more
    /// than 2 s or 100 MB here
    #[arg(long, conflicts_with_all = ["peers", "quick", "only", "verifier"])]
    older: bool,
    /// Nothing but the time from a refused bind() to the line with the holder's name, among 20,000
    /// sockets, here and in the guest
    #[arg(long, conflicts_with_all = ["peers", "quick", "only", "verifier", "older"])]
    naming: bool,
    /// Nothing but looks at 20,000 sockets, beside ss, here and in the guest; fails where they take more
    /// than their share of its time
    #[arg(long, conflicts_with_all = ["peers", "quick", "only", "verifier", "older", "naming"])]
    looking: bool,
    /// Nothing but a recorder at 50,000 events a second, and a report on 10,000,000, on this machine alone;
    /// fails where they miss their limits
    #[arg(long, conflicts_with_all = ["peers", "quick", "only", "verifier", "older", "naming", "looking"])]
    record: bool,
    /// Nothing but what churn adds to TCP connections, in the guest; fails where that is more than its limit
    #[arg(long, conflicts_with_all = ["peers", "quick", "only", "verifier", "older", "naming", "looking", "record"])]
    churn: bool,
    /// Only operations whose name contains this, and nothing else than operations
    #[arg(long, value_name = "PATTERN")]
    only: Option<String>,
}

/// Carries it out.
///
/// # Errors
/// Something is missing and cannot be got, a build fails, or a guest does not come to its end.
pub(crate) fn run(options: Bench) -> Result<()> {
    let Bench {
        kernel: tag,
        attach,
        peers: with_peers,
        quick,
        verifier,
        older,
        naming,
        looking,
        record,
        churn,
        only,
    } = options;
    if verifier {
        return record_verifier();
    }
    if record {
        return bench_recording();
    }
    let line = kernel::find(tag).context("not in the matrix")?;
    let (qemu, kernel, root, neighbours) = {
        // Only for as long as something may have to be fetched: measuring takes minutes.
        let cache = Cache::open()?;
        let root = if with_peers {
            peers::find_or_fetch(&cache)?
        } else {
            "/".into()
        };
        let qemu = Qemu::find_or_fetch(&cache)?;
        let neighbours = looking
            .then(|| Neighbours::own().map_or_else(|| Neighbours::fetched(&cache), Ok))
            .transpose()?;
        (qemu, Kernel::find_or_fetch(&cache, line)?, root, neighbours)
    };
    toolchain::ensure_ebpf()?;
    toolchain::ensure_guest_target()?;
    let step = Step::begin("building portwatch (profile release)");
    let portwatch = cargo::build(&["portwatch"], "release", None)?;
    step.done();
    let step = Step::begin("building the guest's programs (static, profile guest)");
    let tests = cargo::build(&["portwatch-tests"], "guest", Some(GUEST_TARGET))?;
    step.done();
    let portwatch = portwatch.executable("portwatch")?.to_path_buf();
    let mut programs = vec![("/bin/portwatch".to_string(), portwatch.clone())];
    if with_peers {
        programs.extend(peers::programs(&root)?);
    }
    let files: Vec<_> = programs.iter().map(|(_, file)| file.clone()).collect();
    let libraries = libraries::of(&root, &files)?;
    if with_peers {
        programs.extend(peers::scripts()?);
    }
    if let Some(neighbours) = &neighbours {
        programs.extend(neighbours.files()?);
    }
    let guest = Guest {
        qemu: &qemu,
        kernel: &kernel,
        init: tests.executable("vm-init")?,
        tests: tests.executable("portwatch-tests")?,
        programs: &programs,
        libraries: &libraries,
    };

    let backends = if attach.is_empty() {
        ["tracing", "kprobe", "raw_tp"].map(String::from).to_vec()
    } else {
        attach
    };
    if churn {
        return limited(churn::WHAT, churn::measure(&guest, &backends)?);
    }
    if older {
        let tests = tests.executable("portwatch-tests")?;
        return bench_older(&guest, &backends, tests, &portwatch);
    }
    if let Some(neighbours) = &neighbours {
        let tests = tests.executable("portwatch-tests")?;
        let places = [
            looking::Place::native(tests, &portwatch, neighbours)?,
            looking::Place::guest(&guest)?,
        ];
        return limited(looking::WHAT, looking::table(&places)?);
    }
    if naming {
        let heading = format!(
            "portwatch {}, {}, QEMU {}.{} (emulation).\n\n",
            commit(),
            today()?,
            qemu.version.0,
            qemu.version.1
        );
        return keep(&typed(), &(heading + &naming::measure(&guest, &backends)?));
    }
    let mut contenders = own_contenders(&backends);
    if with_peers {
        contenders.extend(peers::contenders());
    }
    let scale = if quick { "10" } else { "100" };
    let args = |phases: &[&str]| {
        let mut args = vec!["--scale".to_string(), scale.to_string()];
        for phase in phases {
            args.extend(["--phase".to_string(), (*phase).to_string()]);
        }
        for contender in &contenders {
            args.extend(["--contender".to_string(), contender.clone()]);
        }
        args.extend(only.iter().flat_map(|only| ["--only".into(), only.clone()]));
        args
    };
    let (counted, timed, native) = if only.is_some() {
        let counted = guest.drive(Clock::Instructions, args(&["ops"]))?;
        (counted, Figures::default(), None)
    } else {
        let native = Native::measure(&portwatch)?;
        let counted = guest.drive(Clock::Instructions, args(&["start", "steady", "ops"]))?;
        let timed = guest.drive(Clock::Wall, args(&["steady", "burst"]))?;
        (counted, timed, Some(native))
    };
    let report = Report {
        command: typed(),
        commit: commit(),
        date: today()?,
        kernel: kernel.release.clone(),
        qemu: qemu.version,
        backends,
        counted,
        timed,
        native,
    };
    let table = report.table();
    // Only a full run replaces what is kept.
    if only.is_none() && !quick {
        keep(&report.command, &table)
    } else {
        println!("{table}");
        Ok(())
    }
}

/// Prints a section and puts it into docs/cost.md.
fn keep(command: &str, section: &str) -> Result<()> {
    println!("{section}");
    let path = workspace::root().join("docs/cost.md");
    let old = fs::read_to_string(&path).unwrap_or_default();
    fs::write(&path, report::kept(&old, command, section))
        .with_context(|| format!("cannot write {}", path.display()))?;
    say(format_args!("written: {}", path.display()));
    Ok(())
}

/// Starts beside many sockets.
fn bench_older(
    guest: &Guest<'_>,
    backends: &[String],
    tests: &Path,
    portwatch: &Path,
) -> Result<()> {
    let places = [
        older::Place::native(tests, portwatch)?,
        older::Place::guest(guest, backends)?,
    ];
    limited(older::WHAT, older::table(&places)?)
}

/// A recorder and a report.
fn bench_recording() -> Result<()> {
    toolchain::ensure_ebpf()?;
    let step = Step::begin("building portwatch (profile release) and the driver");
    let portwatch = cargo::build(&["portwatch"], "release", None)?;
    let tests = cargo::build(&["portwatch-tests"], "guest", None)?;
    step.done();
    let figures = recording::measure(
        tests.executable("portwatch-tests")?,
        portwatch.executable("portwatch")?,
    )?;
    limited(recording::WHAT, recording::table(&figures)?)
}

/// Keeps a table.
///
/// # Errors
/// Something is above its limit.
fn limited(what: &str, (table, above): (String, Vec<String>)) -> Result<()> {
    let text = format!("portwatch {}, {}. {what}\n\n{table}", commit(), today()?);
    keep(&typed(), &text)?;
    if !above.is_empty() {
        bail!("{}", above.join("\n"));
    }
    Ok(())
}

/// What was typed after `cargo xtask`.
fn typed() -> String {
    std::env::args().skip(1).collect::<Vec<_>>().join(" ")
}

/// ISO 8601.
fn today() -> Result<String> {
    let date = output(Command::new("date").args(["-u", "+%Y-%m-%d"]))?;
    Ok(date.trim().to_string())
}

/// Boots every kernel that tells how much work its verifier had, and keeps the answers.
fn record_verifier() -> Result<()> {
    let (qemu, kernels) = {
        let cache = Cache::open()?;
        let kernels: Result<Vec<Kernel>> = kernel::MATRIX
            .iter()
            .map(|line| Kernel::find_or_fetch(&cache, line))
            .collect();
        (Qemu::find_or_fetch(&cache)?, kernels?)
    };
    toolchain::ensure_ebpf()?;
    toolchain::ensure_guest_target()?;
    let step = Step::begin("building the guest's programs (static, profile guest)");
    let portwatch = cargo::build(&["portwatch"], "guest", Some(GUEST_TARGET))?;
    let tests = cargo::build(&["portwatch-tests"], "guest", Some(GUEST_TARGET))?;
    step.done();
    let programs = [(
        "/bin/portwatch".to_string(),
        portwatch.executable("portwatch")?.to_path_buf(),
    )];
    let mut record = Record::default();
    for kernel in &kernels {
        let guest = Guest {
            qemu: &qemu,
            kernel,
            init: tests.executable("vm-init")?,
            tests: tests.executable("portwatch-tests")?,
            programs: &programs,
            libraries: &[],
        };
        let mut counts = verifier::Counts::new();
        let args = verifier::argv(&[]).split_off(1);
        guest.run(Clock::Wall, args, |line| {
            say(format_args!("  {}", line.replace('\t', " ")));
            verifier::take(&mut counts, line);
        })?;
        record.replace(kernel.tag, counts);
    }
    say(format_args!("written: {}", record.write()?.display()));
    Ok(())
}

/// portwatch with each backend, and with filters that nothing matches.
fn own_contenders(backends: &[String]) -> Vec<String> {
    let mut contenders = Vec::new();
    for backend in backends {
        let command = format!("/bin/portwatch trace --attach {backend}");
        contenders.push(format!("{backend}={command}"));
        for filter in budget::UNMATCHED {
            let modes = budget::UNMATCHED_MODES;
            contenders.push(format!("{backend} {filter}:{modes}={command} {filter}"));
        }
    }
    contenders
}

fn commit() -> String {
    let git = |args: &[&str]| {
        let mut command = Command::new("git");
        output(command.arg("-C").arg(workspace::root()).args(args)).unwrap_or_default()
    };
    let changed = !git(&[
        "status",
        "--porcelain",
        "--untracked-files=no",
        "--",
        ":!docs",
    ])
    .is_empty();
    let hash = git(&["rev-parse", "--short=12", "HEAD"]);
    format!(
        "{}{}",
        hash.trim(),
        if changed { " with changes" } else { "" }
    )
}
