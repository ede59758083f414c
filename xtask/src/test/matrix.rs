//! The scenarios on Debian's kernels, in virtual machines: several kernels at once, one boot for all backends
//! of each; then another one for what needs the machine alone ([`Pass`]).

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::Selection;
use super::pass::Pass;
use super::tier::{Counts, Failure, Tier, chain, printable};
use super::{rules, scenario, side_by_side};
use crate::say::{duration, say};
use crate::verifier::{self, Record};
use crate::vm::console::{End, Line, Patience};
use crate::vm::initramfs::{self, Contents, Job, NETWORK_MODULES};
use crate::vm::kernel::{self, Kernel};
use crate::vm::machine::Machine;
use crate::vm::neighbours::{self, Neighbours};
use crate::vm::programs as of_debian;
use crate::vm::qemu::Qemu;
use crate::workspace::{self, Cache};

/// What a guest has, in megabytes.
const MEMORY: u32 = 2048;

/// The guest's programs.
struct Programs {
    init: PathBuf,
    portwatch: PathBuf,
    runner: PathBuf,
    /// Path in the guest, and the file here.
    neighbours: Vec<(String, PathBuf)>,
    /// The root file system with Debian's programs, if a pass needs it and it is to be had.
    of_debian: Option<PathBuf>,
}

/// Runs the chosen kernels, as many at once as this machine has room for.
pub(crate) fn run(selection: &Selection) -> Vec<Tier> {
    let prepared = Cache::open().and_then(|cache| {
        let qemu = Qemu::find_or_fetch(&cache)?;
        say(format_args!("QEMU {}.{}", qemu.version.0, qemu.version.1));
        let cpus = || std::thread::available_parallelism().map_or(1, usize::from);
        let wished = selection.machines.unwrap_or_else(cpus);
        let available = side_by_side::available_memory()?;
        let at_once = side_by_side::at_once(wished, available, MEMORY.into());
        let neighbours = Neighbours::own().map_or_else(|| Neighbours::fetched(&cache), Ok);
        // What is compared with them is skipped then, which is told.
        let neighbours = neighbours
            .and_then(|found| found.files())
            .unwrap_or_else(|error| {
                say(chain(&error));
                Vec::new()
            });
        Ok((cache, qemu, programs(neighbours)?, at_once))
    });
    let (cache, qemu, mut programs, at_once) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return vec![Tier::time("vm", || Err(error))],
    };
    // One after the other: apt locks its lists.
    let kernels: Vec<_> = kernel::MATRIX
        .iter()
        .filter(|line| selection.wants_kernel(line.tag))
        .map(|line| (line.tag, Kernel::find_or_fetch(&cache, line)))
        .collect();
    let passes = Pass::plan(selection, at_once, kernels.len());
    if passes.iter().any(|(pass, _)| *pass == Pass::Programs) {
        // What needs them is skipped without them, which is told.
        programs.of_debian = of_debian::find_or_fetch(&cache)
            .map_err(|error| say(chain(&error)))
            .ok();
    }
    let mut tiers = Vec::new();
    for (pass, at_once) in passes {
        let wanted = kernels.iter().filter(|(tag, _)| pass.wants(selection, tag));
        let of_pass = side_by_side::each(at_once, wanted.collect(), |(tag, kernel)| {
            of_kernel(&pass.label(tag), || {
                let kernel = kernel
                    .as_ref()
                    .map_err(|error| anyhow!("{}", chain(error)))?;
                boot(selection, pass, &qemu, kernel, &programs)
            })
        });
        tiers.extend(of_pass.into_iter().flatten());
    }
    tiers
}

/// The tiers of a boot. It is one itself too: what belongs to no backend stands there.
fn of_kernel(label: &str, boot: impl FnOnce() -> Result<Results>) -> Vec<Tier> {
    say(format_args!("--- vm/{label}"));
    let since = Instant::now();
    let (mut tiers, counts) = boot().unwrap_or_else(|error| {
        say(format_args!("vm/{label}: {}", chain(&error)));
        (Vec::new(), Counts::one_failed("boot", chain(&error)))
    });
    let tier = Tier {
        name: format!("vm/{label}"),
        elapsed: since.elapsed(),
        counts,
    };
    say(tier.summary());
    tiers.push(tier);
    tiers
}

fn programs(neighbours: Vec<(String, PathBuf)>) -> Result<Programs> {
    let built = super::programs()?;
    Ok(Programs {
        init: built.executable("vm-init")?.to_path_buf(),
        portwatch: built.executable("portwatch")?.to_path_buf(),
        runner: built.executable("portwatch-tests")?.to_path_buf(),
        neighbours,
        of_debian: None,
    })
}

/// Results by backend, and those of the boot as such.
type Results = (Vec<Tier>, Counts);

fn boot(
    selection: &Selection,
    pass: Pass,
    qemu: &Qemu,
    kernel: &Kernel,
    programs: &Programs,
) -> Result<Results> {
    let label = pass.label(kernel.tag);
    let logs = workspace::scratch().join("vm").join(&label);
    fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
    let initramfs = logs.join("initramfs.cpio");
    let mut files = vec![
        ("/bin/portwatch".to_string(), programs.portwatch.clone()),
        ("/bin/portwatch-tests".to_string(), programs.runner.clone()),
    ];
    files.extend(programs.neighbours.iter().cloned());
    let of_debian = programs.of_debian.as_deref();
    let tree = of_debian.filter(|_| pass == Pass::Programs);
    let mut here = Vec::new();
    if !programs.neighbours.is_empty() {
        here.extend(["--neighbours", neighbours::GUEST_ROOT]);
    }
    if tree.is_some() {
        here.extend(["--programs", of_debian::GUEST_ROOT]);
    }
    if selection.kernel_for_all() != Some(kernel.tag) {
        here.push("--one-of-many");
    }
    let jobs = jobs(selection, pass, &here);
    let contents = Contents {
        init: &programs.init,
        files: &files,
        tree: tree.map(|root| (of_debian::GUEST_ROOT, root)),
        modules: NETWORK_MODULES,
        jobs: &jobs,
    };
    fs::write(&initramfs, initramfs::pack(kernel, &contents)?)
        .with_context(|| format!("cannot write {}", initramfs.display()))?;
    let limit = Duration::from_secs(selection.limit());
    // Slow disks and busy neighbours stretch a boot of two seconds, but not to two minutes.
    let patience = Patience {
        boot: Duration::from_secs(120),
        // PID 1 ends a job that takes too long; this is for a guest in which PID 1 is stuck.
        silence: limit + Duration::from_secs(60),
    };
    let machine = Machine {
        qemu,
        kernel,
        initramfs: &initramfs,
        logs: &logs,
        cpus: 2,
        memory: MEMORY,
        icount: None,
        expedited: true,
        patience,
    };
    let mut collector = Collector::new(kernel, label.clone());
    let ending = machine.run(|line| collector.line(line, Instant::now()))?;
    for note in &ending.notes {
        say(format_args!("vm/{label}: {}", printable(note)));
    }
    Ok(collector.finish(
        ending
            .trouble
            .map(|trouble| format!("{trouble} (logs: {})", logs.display())),
    ))
}

/// What PID 1 is to run: the rules of sharing a port, and the scenarios with the backends that were
/// asked for, else those that the runner lists there. `here`: options that it gets in this guest.
fn jobs(selection: &Selection, pass: Pass, here: &[&str]) -> Vec<Job> {
    let words = |words: &[&str]| {
        words
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<String>>()
    };
    let run = |backend: &str, place: &str| {
        let mut argv = words(&[
            "/bin/portwatch-tests",
            "run",
            "--portwatch",
            "/bin/portwatch",
            "--attach",
            backend,
            "--place",
            place,
        ]);
        argv.extend(words(here));
        argv.extend(selection.scenario_options());
        argv.extend(words(&pass.options()));
        argv
    };
    let limit = selection.limit();
    let mut jobs = Vec::new();
    if pass.has_the_rest()
        && let Some(of_rules) = rules::argv(selection)
    {
        let mut argv = words(&["/bin/portwatch-tests"]);
        argv.extend(of_rules);
        jobs.push(Job::Run {
            id: rules::ID.into(),
            limit,
            argv,
        });
    }
    if !rules::wants_scenarios(selection) {
        return jobs;
    }
    let locked = || Job::Run {
        id: LOCKED.into(),
        limit,
        argv: words(&[
            "/bin/portwatch-tests",
            "locked",
            "--portwatch",
            "/bin/portwatch",
        ]),
    };
    if selection
        .filter
        .as_ref()
        .is_some_and(|filter| filter.starts_with(LOCKED))
    {
        return vec![locked()];
    }
    let of_pass = pass.backends().filter(|_| selection.attach.is_empty());
    if let Some((backend, other)) = of_pass {
        let mut argv = run(backend, "0");
        argv.extend(words(&["--also", other]));
        jobs.push(Job::Run {
            id: backend.into(),
            limit,
            argv,
        });
    } else if selection.attach.is_empty() {
        let list = words(&[
            "/bin/portwatch-tests",
            "backends",
            "--portwatch",
            "/bin/portwatch",
        ]);
        jobs.push(Job::Each {
            limit,
            list,
            argv: run("{}", "{n}"),
        });
    }
    let chosen = selection.attach.iter().enumerate();
    jobs.extend(chosen.map(|(place, backend)| Job::Run {
        id: backend.clone(),
        limit,
        argv: run(backend, &place.to_string()),
    }));
    // Who asks for one scenario does not ask for this.
    if selection.filter.is_none() && pass.has_the_rest() {
        jobs.push(Job::Run {
            id: VERIFIER.into(),
            limit,
            argv: verifier::argv(&selection.attach),
        });
    }
    // Last of all: nobody can take it back.
    if selection.filter.is_none() && pass.has_the_rest() {
        jobs.push(locked());
    }
    jobs
}

/// Sorts what a guest says into tiers.
struct Collector<'a> {
    kernel: &'a Kernel,
    /// What stands for the kernel in names.
    label: String,
    tiers: Vec<Tier>,
    rest: Counts,
    job: Option<Running>,
    started: Instant,
}

struct Running {
    id: String,
    since: Instant,
    output: scenario::Output,
    /// What the verifier had to do, in that job.
    verified: verifier::Counts,
    /// The last of what it wrote to stderr: shown if it fails.
    errors: Vec<String>,
}

/// The job in which PID 1 asks for the backends.
const LIST: &str = "list";

/// The job that tells how much work the verifier had.
const VERIFIER: &str = "verifier";

/// The job that locks the kernel down.
const LOCKED: &str = "lockdown";

/// Lines of stderr kept for a job.
const KEPT: usize = 20;

impl<'a> Collector<'a> {
    fn new(kernel: &'a Kernel, label: String) -> Collector<'a> {
        Collector {
            kernel,
            label,
            tiers: Vec::new(),
            rest: Counts::default(),
            job: None,
            started: Instant::now(),
        }
    }

    fn line(&mut self, line: &Line, now: Instant) {
        let tag = &self.label;
        match line {
            Line::Hello => {}
            Line::Kernel(release) => {
                let release = printable(release);
                say(format_args!(
                    "vm/{tag}: {release} booted in {}",
                    duration(now - self.started)
                ));
                if release == self.kernel.release {
                    self.rest.passed += 1;
                } else {
                    let why = format!("{release} booted, but {} was meant", self.kernel.release);
                    self.rest.failures.push(Failure {
                        name: "boot".into(),
                        why,
                    });
                }
            }
            Line::Note(text) | Line::Unknown(text) => {
                say(format_args!("vm/{tag}: {}", printable(text)));
            }
            Line::Begin(id) => {
                let (id, output) = (printable(id), scenario::Output::default());
                self.job = Some(Running {
                    id,
                    since: now,
                    output,
                    verified: verifier::Counts::new(),
                    errors: Vec::new(),
                });
            }
            Line::Out(text) => {
                let Some(job) = &mut self.job else { return };
                if job.id == VERIFIER {
                    verifier::take(&mut job.verified, text);
                } else if let Some(news) = job.output.line(text) {
                    say(format_args!("vm/{tag}/{}: {news}", job.id));
                }
            }
            Line::Err(text) => {
                if let Some(job) = &mut self.job {
                    if job.errors.len() == KEPT {
                        job.errors.remove(0);
                    }
                    job.errors.push(printable(text));
                }
            }
            Line::End(_, end) => self.end(end, now),
            Line::Done => {}
        }
    }

    fn end(&mut self, end: &End, now: Instant) {
        let Some(Running {
            id,
            since,
            output,
            verified,
            errors,
        }) = self.job.take()
        else {
            return;
        };
        let said = || {
            errors
                .iter()
                .map(|line| format!("\n    {line}"))
                .collect::<String>()
        };
        if id == LIST {
            if *end != End::Exit(0) {
                let why = format!(
                    "the runner could not list this kernel's backends ({end:?}){}",
                    said()
                );
                self.rest.failures.push(Failure {
                    name: "backends".into(),
                    why,
                });
            }
            return;
        }
        let mut counts = if id == VERIFIER {
            judge_verified(self.kernel.tag, end, &verified)
        } else {
            output.finish(end)
        };
        if let Some(failure) = counts.failures.last_mut() {
            failure.why.push_str(&said());
        }
        let tier = Tier {
            name: format!("vm/{}/{id}", self.label),
            elapsed: now - since,
            counts,
        };
        say(tier.summary());
        self.tiers.push(tier);
    }

    fn finish(mut self, trouble: Option<String>) -> Results {
        self.end(&End::Other("the end of its machine".into()), Instant::now());
        if let Some(why) = trouble {
            say(format_args!("vm/{}: {}", self.label, printable(&why)));
            self.rest.failures.push(Failure {
                name: "boot".into(),
                why,
            });
        } else if self.tiers.is_empty() && self.rest.failures.is_empty() {
            self.rest.failures.push(Failure {
                name: "backends".into(),
                why: "no backend was run".into(),
            });
        }
        (self.tiers, self.rest)
    }
}

/// One test a program.
fn judge_verified(tag: &str, end: &End, verified: &verifier::Counts) -> Counts {
    if *end != End::Exit(0) {
        return Counts::one_failed(VERIFIER, format!("the programs do not load ({end:?})"));
    }
    match Record::read() {
        Err(error) => Counts::one_failed(VERIFIER, chain(&error)),
        Ok(record) => {
            let failures: Vec<Failure> = record
                .complaints(tag, verified)
                .into_iter()
                .map(|(name, why)| Failure { name, why })
                .collect();
            Counts {
                passed: (verified.len() - failures.len()) as u32,
                failures,
                ..Counts::default()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel() -> Kernel {
        Kernel {
            tag: "6.1",
            release: "6.1.0-50".into(),
            vmlinuz: PathBuf::new(),
            modules: PathBuf::new(),
        }
    }

    fn collect(lines: &[&str], trouble: Option<&str>) -> Results {
        let kernel = kernel();
        let mut collector = Collector::new(&kernel, kernel.tag.into());
        for line in lines {
            collector.line(&Line::parse(line), Instant::now());
        }
        collector.finish(trouble.map(String::from))
    }

    #[test]
    fn the_rules_run_once_a_kernel() {
        let count = |filter: Option<&str>| {
            let selection = Selection {
                machines: None,
                kernels: Vec::new(),
                attach: vec!["tracing".into(), "kprobe".into()],
                long: false,
                filter: filter.map(String::from),
            };
            let jobs = jobs(&selection, Pass::Whole, &[]);
            let is_rules = |job: &&Job| matches!(job, Job::Run { id, .. } if id == rules::ID);
            (jobs.iter().filter(is_rules).count(), jobs.len())
        };
        assert_eq!(count(None), (1, 5));
        assert_eq!(count(Some("bind_v4")), (0, 2));
        assert_eq!(count(Some("rules_random")), (1, 1));
        assert_eq!(count(Some("lockdown")), (0, 1));
    }

    #[test]
    fn programs_are_run_once_and_watched_twice() {
        let selection = |attach: &[&str]| Selection {
            machines: None,
            kernels: Vec::new(),
            attach: attach.iter().map(ToString::to_string).collect(),
            long: false,
            filter: None,
        };
        let argvs = |attach: &[&str]| {
            let jobs = jobs(
                &selection(attach),
                Pass::Programs,
                &["--programs", "/programs"],
            );
            let argv = |job: &Job| match job {
                Job::Run { argv, .. } => argv.join(" "),
                Job::Each { .. } => String::new(),
            };
            jobs.iter().map(argv).collect::<Vec<_>>()
        };
        let both = "/bin/portwatch-tests run --portwatch /bin/portwatch --attach tracing --place 0 \
                    --programs /programs --only programs_ --also kprobe";
        assert_eq!(argvs(&[]), [both]);
        let one = "/bin/portwatch-tests run --portwatch /bin/portwatch --attach kprobe --place 0 \
                   --programs /programs --only programs_";
        assert_eq!(argvs(&["kprobe"]), [one]);
    }

    #[test]
    fn each_backend_becomes_a_tier() {
        let (tiers, rest) = collect(
            &[
                "hello 1",
                "kernel 6.1.0-50",
                "begin list",
                "out tracing",
                "out kprobe",
                "end list exit 0",
                "begin tracing",
                "out ok a (1 ms)",
                "out 1 passed, 0 failed, 0 skipped",
                "end tracing exit 0",
                "begin kprobe",
                "out FAILED a: wrong port",
                "err thread panicked",
                "out 0 passed, 1 failed, 0 skipped",
                "end kprobe exit 1",
                "done ",
            ],
            None,
        );
        assert_eq!(
            tiers
                .iter()
                .map(|tier| tier.name.as_str())
                .collect::<Vec<_>>(),
            ["vm/6.1/tracing", "vm/6.1/kprobe"]
        );
        let whys: Vec<_> = tiers
            .iter()
            .flat_map(|tier| &tier.counts.failures)
            .map(|failure| failure.why.as_str())
            .collect();
        assert_eq!(whys, ["wrong port\n    thread panicked"]);
        assert_eq!(rest, Counts::one_passed());
    }

    #[test]
    fn a_machine_that_dies_fails_its_job_and_its_boot() {
        let (tiers, rest) = collect(
            &[
                "hello 1",
                "kernel 6.1.0-50",
                "begin tracing",
                "out ok a (1 ms)",
            ],
            Some("kernel: Oops"),
        );
        let whys: Vec<_> = tiers
            .iter()
            .flat_map(|tier| &tier.counts.failures)
            .map(|failure| failure.why.as_str())
            .collect();
        assert_eq!(whys, ["ended by the end of its machine"]);
        assert_eq!(
            rest.failures,
            [Failure {
                name: "boot".into(),
                why: "kernel: Oops".into()
            }]
        );
    }

    #[test]
    fn a_machine_without_results_fails() {
        assert_eq!(
            collect(&["hello 1", "kernel 6.1.0-50", "done"], None)
                .1
                .failures
                .len(),
            1
        );
        assert_eq!(
            collect(&["hello 1", "kernel 6.0.0-1", "done"], None)
                .1
                .failures
                .len(),
            1
        );
        assert_eq!(
            collect(
                &[
                    "hello 1",
                    "kernel 6.1.0-50",
                    "begin list",
                    "end list exit 3"
                ],
                None
            )
            .1
            .failures
            .len(),
            1
        );
    }
}
