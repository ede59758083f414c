//! `cargo xtask test`: every tier, from the format of the sources to four kernels in VMs.

mod host;
mod libtest;
mod matrix;
mod object;
mod pass;
mod report;
mod rules;
mod scenario;
mod side_by_side;
mod skips;
mod sources;
mod tier;

use std::env;
use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use clap::Args;

use self::tier::Tier;
use crate::cargo::Built;
use crate::say::Step;
use crate::toolchain::GUEST_TARGET;
use crate::vm::kernel;
use crate::{cargo, toolchain, workspace};

/// Run the tests: all tiers, or the parts that are chosen
///
/// Without options everything runs, in this order: format, clippy (host code, eBPF code), the fuzz
/// target (that it compiles), unit (with documentation and command line tests), the eBPF object, the scenarios on this machine's
/// kernel as root, and the scenarios in virtual machines with Debian's kernels 5.10, 6.1, 6.12 and
/// the newest (7.x), for every backend that the kernel offers; what depends on time runs there once more
/// by itself. On each kernel 5,000 random cases (with --long 100,000) also
/// compare the rules of sharing a port with what bind() and listen() do, and 1,000 (10,000) the answers
/// of `portwatch check`; the seed is printed. Each backend watches random activity of several processes for
/// 15 seconds (with --long an hour), which keep the truth themselves; the seed is printed too.
/// What has to do with no kernel (files, signals, the recorder) runs here and in one machine; what depends on
/// backend and kernel, but not on the two together, with every backend of one kernel and the first of each
/// (with --long, all).
/// The scenarios run static programs, here as there, for which rustup adds the target
/// x86_64-unknown-linux-musl.
/// Last of all each kernel is locked down (kernel_lockdown(7)).
///
/// The VMs need no installation: QEMU (36 MB) and the kernels (20 to 35 MB each) are fetched as
/// Debian packages from this machine's own mirror and unpacked into the cache, which is
/// $PORTWATCH_CACHE, else $XDG_CACHE_HOME/portwatch, else ~/.cache/portwatch; so are ss, netstat and
/// lsof, to compare with, where this machine lacks them, and nginx, PostgreSQL, sshd, node and others with
/// strace (100 MB), whose calls are compared one to one with the events: here, and on one kernel. A second run needs no network; remove a folder
/// there to have it fetched anew. Logs: target/xtask/vm/KERNEL/.
///
/// A scenario that fails runs once more, because emulated machines stop for as long as they like. If it passes then,
/// it is listed as unsteady at the end, with how it failed; more than one in 1,000 of what passed are failures.
///
/// The last line is always `N passed, N failed, N skipped`; the exit code is 0 if nothing failed.
/// Skips are compared with tests/expected-skips.txt: with CI=true a surprise is a failure.
#[derive(Args)]
#[command(after_help = "Examples:
  cargo xtask test                                      everything
  cargo xtask test --unit                               what needs neither root nor network
  cargo xtask test --unit decode                        of that, tests with `decode` in their names
  cargo xtask test --vm --kernel 6.1 --attach kprobe    one kernel, one backend
  cargo xtask test --host --vm bind_v4                  scenarios with `bind_v4` in their names
  cargo xtask test --host --vm --long rules_            the rules of sharing a port, at length")]
pub(crate) struct Test {
    /// The tiers that need neither root nor network: format, clippy, unit and CLI tests, object
    #[arg(long)]
    unit: bool,
    /// The scenarios on this machine's kernel; with sudo where not root
    #[arg(long)]
    host: bool,
    /// The scenarios in virtual machines
    #[arg(long)]
    vm: bool,
    /// Only this kernel (5.10, 6.1, 6.12, 7.x); may be repeated; implies --vm
    #[arg(long, value_name = "VERSION", value_parser = parse_kernel)]
    kernel: Vec<&'static str>,
    /// Only this backend in the scenarios; may be repeated
    #[arg(long, value_name = "BACKEND", value_parser = ["tracing", "kprobe", "raw_tp"])]
    attach: Vec<String>,
    /// Virtual machines at once, of 2 GB and about one CPU each [default: one a CPU]
    #[arg(long, value_name = "N")]
    machines: Option<usize>,
    /// The long versions of random and load tests, and with every backend of every kernel what else depends on each by itself
    #[arg(long)]
    long: bool,
    /// Only tests and scenarios with this in their names
    filter: Option<String>,
}

/// A kernel of the matrix, by its version.
pub(crate) fn parse_kernel(text: &str) -> Result<&'static str, String> {
    kernel::find(text).map(|line| line.tag).ok_or_else(|| {
        let tags: Vec<&str> = kernel::MATRIX.iter().map(|line| line.tag).collect();
        format!("not in the matrix, which has {}", tags.join(", "))
    })
}

/// What the scenario tiers need to know of the options.
#[derive(Debug)]
struct Selection {
    /// Virtual machines at once; `None`: as many as there are CPUs.
    machines: Option<usize>,
    kernels: Vec<&'static str>,
    attach: Vec<String>,
    long: bool,
    filter: Option<String>,
}

impl Selection {
    fn wants_kernel(&self, tag: &str) -> bool {
        self.kernels.is_empty() || self.kernels.contains(&tag)
    }

    /// The kernel that scenarios run on which have to do with none.
    fn kernel_for_all(&self) -> Option<&'static str> {
        let mut chosen = kernel::MATRIX
            .iter()
            .map(|line| line.tag)
            .filter(|tag| self.wants_kernel(tag));
        let first = chosen.clone().next();
        chosen.find(|tag| *tag == pass::USUAL).or(first)
    }

    /// Options that the scenario runner gets on the host and in every VM.
    fn scenario_options(&self) -> Vec<String> {
        let long = self.long.then(|| "--long".to_string());
        let filter = self
            .filter
            .iter()
            .flat_map(|filter| ["--filter".to_string(), filter.clone()]);
        long.into_iter().chain(filter).collect()
    }

    /// How long one backend's scenarios may take in a VM, in seconds: several times what they do, and with
    /// `--long` beside the hour of random activity.
    fn limit(&self) -> u64 {
        if self.long { 3 * 3600 } else { 1800 }
    }
}

/// Carries it out.
///
/// # Errors
/// The tools for it are missing, or the list of expected skips cannot be read. Tests that fail are
/// an exit code.
pub(crate) fn run(options: Test) -> Result<ExitCode> {
    let Test {
        unit,
        host,
        vm,
        kernel: kernels,
        attach,
        machines,
        long,
        filter,
    } = options;
    let vm = vm || !kernels.is_empty();
    let all = !(unit || host || vm);
    let expected = workspace::root().join("tests/expected-skips.txt");
    let text = fs::read_to_string(&expected)
        .with_context(|| format!("cannot read {}", expected.display()))?;
    let expected = skips::parse(&text).map_err(|line| anyhow!("{}: {line}", expected.display()))?;
    let complete = filter.is_none();
    let selection = Selection {
        machines,
        kernels,
        attach,
        long,
        filter,
    };

    toolchain::ensure_lints()?;
    toolchain::ensure_ebpf()?;
    let mut tiers = Vec::new();
    if all || unit {
        tiers.push(Tier::time("format", || Ok(sources::format())));
        tiers.push(Tier::time("clippy", || Ok(sources::clippy())));
        tiers.push(Tier::time("clippy-ebpf", || Ok(sources::clippy_ebpf())));
        tiers.push(Tier::time("fuzz", || Ok(sources::fuzz())));
        tiers.push(Tier::time("unit", || {
            sources::unit(selection.filter.as_deref(), long)
        }));
    }
    if all || unit || host {
        tiers.extend(with_build(&selection, all || unit, all || host));
    }
    if all || vm {
        tiers.extend(matrix::run(&selection));
    }

    let strict = env::var("CI").is_ok_and(|value| value == "true" || value == "1");
    let comparison = skips::compare(&tiers, &expected, complete);
    print!("{}", report::render(&tiers, &comparison, strict));
    let failed = report::totals(&tiers, &comparison, strict).failed;
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The tiers that look at a finished portwatch. The eBPF object is the same in every profile, so alone it
/// does not wait for more than the unit tests have built.
fn with_build(selection: &Selection, object: bool, host: bool) -> Vec<Tier> {
    let built = if host {
        programs()
    } else {
        let step = Step::begin("building portwatch (profile dev)");
        let built = cargo::build(&["portwatch"], "dev", None);
        built.inspect(|_| step.done())
    };
    let built = match built {
        Ok(built) => built,
        Err(error) => return vec![Tier::time("build", || Err(error))],
    };
    let mut tiers = Vec::new();
    if object {
        tiers.push(Tier::time("object", || object::check(&built)));
    }
    if host {
        tiers.extend(host::run(selection, &built));
    }
    tiers
}

/// The programs that the scenarios run, here and in the guests: static, so that one build does for both.
///
/// # Errors
/// What they are built with cannot be had, or the build fails.
fn programs() -> Result<Built> {
    toolchain::ensure_guest_target()?;
    let step = Step::begin("building what the scenarios run (static, profile guest)");
    let built = cargo::build(
        &["portwatch", "portwatch-tests"],
        "guest",
        Some(GUEST_TARGET),
    )?;
    step.done();
    Ok(built)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runner_gets_what_was_chosen() {
        let selection = Selection {
            machines: None,
            kernels: vec!["6.1"],
            attach: Vec::new(),
            long: true,
            filter: Some("bind".into()),
        };
        assert_eq!(selection.scenario_options(), ["--long", "--filter", "bind"]);
        assert!(selection.wants_kernel("6.1") && !selection.wants_kernel("5.10"));
        assert_eq!(selection.kernel_for_all(), Some("6.1"));
        let all = Selection {
            kernels: Vec::new(),
            ..selection
        };
        assert_eq!(all.kernel_for_all(), Some("6.12"));
    }

    #[test]
    fn the_list_of_expected_skips_can_be_read() {
        let text = fs::read_to_string(workspace::root().join("tests/expected-skips.txt"))
            .unwrap_or_default();
        assert!(!text.is_empty());
        assert_eq!(skips::parse(&text).err(), None);
    }
}
