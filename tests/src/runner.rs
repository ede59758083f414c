//! Runs scenarios one after the other and keeps the score.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::mpsc::channel,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::{
    bench::Bench,
    degraded::Backend,
    expect::{self, Expected, Mismatch},
    scenarios::{self, Scenario, Spread},
    script::{self, Ctx, Keepers, Script, Skip},
    shared::Shared,
    sys::netns::Netns,
    tracer::PATIENCE,
};

/// What to run.
pub(crate) struct Options {
    pub(crate) portwatch: PathBuf,
    pub(crate) backend: Backend,
    /// Which of the backends of a run it is: what does not depend on the backend runs with the first, 0.
    pub(crate) place: usize,
    /// Another kernel is the one for what does not depend on it, or on it and the backend together.
    pub(crate) one_of_many: bool,
    /// Root of the file system with ss, netstat and lsof.
    pub(crate) neighbours: Option<PathBuf>,
    /// Root of the file system with Debian's programs.
    pub(crate) programs: Option<PathBuf>,
    /// Backends that watch these at the same time.
    pub(crate) also: Vec<Backend>,
    pub(crate) long: bool,
    pub(crate) filter: String,
    /// Beginnings of names; without any, all.
    pub(crate) only: Vec<String>,
    /// Beginnings of names that are left out.
    pub(crate) without: Vec<String>,
}

/// How a scenario's process ended.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Told {
    /// The calls did what they should, and must be told like this.
    Expect(Expected),
    /// It cannot run here.
    Skip(String),
    /// The calls did something else.
    Wrong(String),
}

/// Names of everything there is to run.
pub(crate) fn names() -> impl Iterator<Item = String> {
    let mut asked: Vec<_> = scenarios::all_sessions()
        .filter_map(|session| session.asks)
        .collect();
    asked.dedup();
    let ends = asked.into_iter().map(whole_of);
    scenarios::all()
        .map(|scenario| scenario.name)
        .chain([WHOLE])
        .chain(scenarios::all_sessions().map(|session| session.name))
        .map(String::from)
        .chain(ends)
}

/// The end of the portwatch that most scenarios share, checked as a scenario of its own.
const WHOLE: &str = "whole_session";

/// The same of one that was asked for an event.
fn whole_of(event: &str) -> String {
    format!("whole_{event}")
}

fn find(name: &str) -> Result<Scenario> {
    scenarios::workload(name).with_context(|| format!("no workload {name}"))
}

/// Runs a workload in this process. Who takes part in it stays there as long as the second value.
fn perform(scenario: Scenario, backend: Backend, long: bool) -> (Told, Keepers) {
    let done = Ctx::new(backend, long).and_then(|ctx| {
        let mut script = Script::new(ctx)?;
        (scenario.run)(&mut script)?;
        Ok(script.end())
    });
    match done {
        Ok((expected, keepers)) => (Told::Expect(expected), keepers),
        Err(error) => {
            let told = match error.downcast::<Skip>() {
                Ok(Skip(reason)) => Told::Skip(reason),
                Err(error) => Told::Wrong(format!("{error:#}")),
            };
            (told, Keepers::default())
        }
    }
}

/// `portwatch-tests child`: one workload, told in a line on stdout. The process stays until stdin
/// ends, so that portwatch can look at it and at its namespaces.
pub(crate) fn child(name: &str, backend: Backend, long: bool, paused: bool) -> Result<ExitCode> {
    let mut stdin = std::io::stdin().lock();
    if paused {
        stdin.read_exact(&mut [0])?;
    }
    let (told, keepers) = perform(find(name)?, backend, long);
    let mut line = serde_json::to_vec(&told)?;
    line.push(b'\n');
    std::io::stdout().lock().write_all(&line)?;
    stdin.read_to_end(&mut Vec::new())?;
    drop(keepers);
    Ok(ExitCode::SUCCESS)
}

/// `portwatch-tests part`: somebody else in a workload; see [`Script::program`].
pub(crate) fn part(name: &str, backend: Backend) -> Result<ExitCode> {
    let role = scenarios::role(name).with_context(|| format!("no part {name}"))?;
    script::play(Ctx::new(backend, false)?, role)?;
    Ok(ExitCode::SUCCESS)
}

/// `portwatch-tests workload`: the same in a namespace of its own, for people.
pub(crate) fn workload(name: &str, backend: Backend, long: bool) -> Result<ExitCode> {
    let netns = Netns::new()?;
    match Workload::start(&netns, name, backend, long, false)?.finish()? {
        Told::Expect(expected) => {
            for line in &expected.lines {
                println!("{}", serde_json::to_string_pretty(line)?);
            }
            println!("{name}: {} lines expected", expected.lines.len());
            Ok(ExitCode::SUCCESS)
        }
        Told::Skip(reason) => {
            println!("skip: {name}: {reason}");
            Ok(ExitCode::SUCCESS)
        }
        Told::Wrong(why) => {
            println!("FAILED {name}: {why}");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// The environment variable that a random workload has its seed from.
pub(crate) const SEED: &str = "PORTWATCH_TESTS_SEED";

/// A workload running in a process of its own.
pub(crate) struct Workload {
    child: Child,
}

impl Workload {
    /// Starts it in a network namespace; `paused` until it is waited for.
    pub(crate) fn start(
        netns: &Netns,
        name: &str,
        backend: Backend,
        long: bool,
        paused: bool,
    ) -> Result<Self> {
        Self::start_with(netns, name, backend, long, paused, None)
    }

    /// The same with a seed, for one that is random.
    pub(crate) fn start_with(
        netns: &Netns,
        name: &str,
        backend: Backend,
        long: bool,
        paused: bool,
        seed: Option<u64>,
    ) -> Result<Self> {
        let home = Netns::current()?;
        let mut command = Command::new("/proc/self/exe");
        command
            .args(["child", name, "--attach", backend.as_str()])
            .args(long.then_some("--long"))
            .args(paused.then_some("--paused"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(seed) = seed {
            command.env(SEED, seed.to_string());
        }
        // A process starts in the namespace of the thread that makes it.
        netns.enter()?;
        let child = command.spawn().context("cannot start a workload");
        home.enter()?;
        Ok(Self { child: child? })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it go on, waits for what it has to tell, and lets it end.
    pub(crate) fn finish(mut self) -> Result<Told> {
        let told = self.told()?;
        self.end(told)
    }

    /// Lets it go on.
    pub(crate) fn go(&mut self) {
        if let Some(stdin) = &mut self.child.stdin {
            // One that does not wait does not read it; what became of one that is gone is told later.
            let _ = stdin.write_all(b"\n");
        }
    }

    /// Lets it go on and waits for what it has to tell. It stays there until [`Workload::end`].
    pub(crate) fn told(&mut self) -> Result<Option<Told>> {
        self.go();
        let stdout = self.child.stdout.take().context("no pipe")?;
        let (send, told) = channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            // Nobody listens after a time-out.
            let _ = BufReader::new(stdout).read_line(&mut line);
            let _ = send.send(line);
        });
        let Ok(line) = told.recv_timeout(10 * PATIENCE) else {
            self.child.kill().context("cannot kill a workload")?;
            return Ok(Some(Told::Wrong(HANGS.to_owned())));
        };
        Ok(serde_json::from_str(&line).ok())
    }

    /// Ends it; what it told, with what it said on stderr if that was nothing good.
    pub(crate) fn end(mut self, told: Option<Told>) -> Result<Told> {
        drop(self.child.stdin.take());
        let mut noise = String::new();
        let stderr = self.child.stderr.take().context("no pipe")?;
        // What could be read is shown.
        let _ = BufReader::new(stderr).read_to_string(&mut noise);
        let status = self.child.wait()?;
        Ok(match told {
            Some(Told::Wrong(why)) if !noise.is_empty() => {
                Told::Wrong(format!("{why} ({})", noise.trim()))
            }
            Some(told) => told,
            None => Told::Wrong(format!(
                "the workload ended with {status}: {}",
                noise.trim()
            )),
        })
    }
}

/// The score so far.
#[derive(Debug, Default)]
struct Score {
    passed: u32,
    failed: u32,
    skipped: u32,
    /// Those that ran once more.
    again: u32,
}

/// What came of a scenario.
enum Verdict {
    Passed,
    Skipped(String),
    Failed(Mismatch),
}

impl Score {
    fn note(&mut self, name: &str, verdict: Verdict, took: Duration) {
        match verdict {
            Verdict::Passed => {
                self.passed += 1;
                println!("ok {name} ({} ms)", took.as_millis());
            }
            Verdict::Skipped(reason) => {
                self.skipped += 1;
                println!("skip: {name}: {}", one_line(&reason));
            }
            Verdict::Failed(mismatch) => {
                self.failed += 1;
                say_mismatch("FAILED", name, &mismatch);
            }
        }
    }

    /// Has it run, once more if it fails: emulated machines stop for as long as they like. That it did fail is
    /// told, and whoever reads this keeps the score of it.
    fn judge(&mut self, name: &str, mut run: impl FnMut() -> Verdict) {
        let mut started = Instant::now();
        let mut verdict = run();
        if let Verdict::Failed(mismatch) = &verdict
            && self.again < AGAIN
            && mismatch.why != HANGS
        {
            self.again += 1;
            say_mismatch("again", name, mismatch);
            started = Instant::now();
            let second = run();
            // It could run, and failed.
            if !matches!(second, Verdict::Skipped(_)) {
                verdict = second;
            }
        }
        self.note(name, verdict, started.elapsed());
    }

    /// The end of a portwatch that scenarios shared.
    fn note_end(&mut self, name: &str, shared: Shared) {
        let started = Instant::now();
        let verdict = shared.end().map_or_else(verdict_of, |()| Verdict::Passed);
        self.note(name, verdict, started.elapsed());
    }

    /// Says what it is, in the last line.
    fn end(&self) -> ExitCode {
        let Self {
            passed,
            failed,
            skipped,
            again: _,
        } = self;
        println!("{passed} passed, {failed} failed, {skipped} skipped");
        if *failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

/// Scenarios that run once more, at most: where more fail, something is wrong.
const AGAIN: u32 = 5;

/// Of a workload that does not come to its end; once more it would take as long.
const HANGS: &str = "the workload hangs";

fn say_mismatch(label: &str, name: &str, Mismatch { why, details }: &Mismatch) {
    println!("{label} {name}: {}", one_line(why));
    for detail in details {
        println!("    {}", one_line(detail));
    }
}

/// The console of a VM is read line by line.
fn one_line(text: &str) -> String {
    text.replace('\n', " | ")
}

/// `portwatch-tests run`
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let begins = |name: &str, with: &[String]| with.iter().any(|prefix| name.starts_with(prefix));
    let wanted = |name: &str| {
        name.contains(&options.filter)
            && (options.only.is_empty() || begins(name, &options.only))
            && !begins(name, &options.without)
    };
    ensure!(
        names().any(|name| wanted(&name)),
        "no scenario of that name ({:?})",
        options.filter
    );
    let mut score = Score::default();
    let mut shared = None;
    for scenario in scenarios::all().filter(|scenario| wanted(scenario.name)) {
        score.judge(scenario.name, || {
            observe(options, scenario, &mut shared).unwrap_or_else(|error| {
                // Whatever it was, the next scenario gets a fresh portwatch.
                shared = None;
                verdict_of(error)
            })
        });
    }
    if let Some(shared) = shared {
        score.note_end(WHOLE, shared);
    }
    let mut bench = Bench::new(&options.portwatch, options.backend, options.long)?;
    bench.neighbours.clone_from(&options.neighbours);
    bench.programs.clone_from(&options.programs);
    bench.also.clone_from(&options.also);
    let (here, elsewhere): (Vec<_>, Vec<_>) = scenarios::all_sessions()
        .filter(|session| wanted(session.name))
        .partition(|session| is_here(options, session.spread));
    if !elsewhere.is_empty() {
        println!(
            "note: {} scenarios that do not depend on backend and kernel together run with the first backend, or on another kernel",
            elsewhere.len()
        );
    }
    for session in here {
        // The others want to be alone.
        if let Some((event, shared)) = bench.settle(session.asks) {
            score.note_end(&whole_of(event), shared);
        }
        score.judge(session.name, || {
            (session.run)(&bench).map_or_else(verdict_of, |()| Verdict::Passed)
        });
    }
    if let Some((event, shared)) = bench.settle(None) {
        score.note_end(&whole_of(event), shared);
    }
    Ok(score.end())
}

/// Whether a session is run here, of all the backends and kernels of a run.
fn is_here(options: &Options, spread: Spread) -> bool {
    // Who asks by name gets what bears it.
    if !options.filter.is_empty() {
        return true;
    }
    match spread {
        Spread::EachBackend => true,
        // At length, all pairs.
        Spread::Crossed => options.long || options.place == 0 || !options.one_of_many,
        Spread::EachKernel => options.place == 0,
        Spread::Once => options.place == 0 && !options.one_of_many,
    }
}

/// `portwatch-tests locked`
pub(crate) fn locked(portwatch: &Path) -> Result<ExitCode> {
    let bench = Bench::new(portwatch, Backend::RawTp, false)?;
    let mut score = Score::default();
    for session in scenarios::locked::ALL {
        let started = Instant::now();
        let verdict = (session.run)(&bench).map_or_else(verdict_of, |()| Verdict::Passed);
        score.note(session.name, verdict, started.elapsed());
    }
    Ok(score.end())
}

/// What an error means for the score.
fn verdict_of(error: anyhow::Error) -> Verdict {
    match error.downcast::<Skip>() {
        Ok(Skip(reason)) => Verdict::Skipped(reason),
        Err(error) => match error.downcast::<Mismatch>() {
            Ok(mismatch) => Verdict::Failed(mismatch),
            Err(error) => failed(&format!("{error:#}")),
        },
    }
}

fn failed(why: &str) -> Verdict {
    Verdict::Failed(Mismatch {
        why: why.to_owned(),
        details: Vec::new(),
    })
}

/// One scenario under the eyes of the portwatch that all of them share. Once more if it fails and the kernel has
/// skipped a program: what that should have told is lost, and counted as such.
fn observe(options: &Options, scenario: Scenario, shared: &mut Option<Shared>) -> Result<Verdict> {
    let shared = match shared {
        Some(shared) => shared,
        None => shared.insert(Shared::start(&options.portwatch, options.backend, None)?),
    };
    let verdict = observe_once(options, scenario, shared)?;
    if !matches!(verdict, Verdict::Failed(_)) || !shared.has_skipped()? {
        return Ok(verdict);
    }
    let name = scenario.name;
    println!("note: {name}: the kernel has skipped a program; once more");
    observe_once(options, scenario, shared)
}

fn observe_once(options: &Options, scenario: Scenario, shared: &mut Shared) -> Result<Verdict> {
    let netns = Netns::new()?;
    let workload = Workload::start(&netns, scenario.name, options.backend, options.long, false)?;
    let (told, own) = shared.watch(netns, workload)?;
    Ok(match told {
        Told::Skip(reason) => Verdict::Skipped(reason),
        Told::Wrong(why) => failed(&why),
        Told::Expect(expected) => match expect::compare(&expected, &own) {
            Ok(()) => Verdict::Passed,
            Err(mismatch) => Verdict::Failed(mismatch),
        },
    })
}

/// `portwatch-tests backends`: those a trace of no duration starts and ends with.
pub(crate) fn backends(portwatch: &Path) -> Result<ExitCode> {
    let mut found = false;
    for backend in Backend::ALL {
        let output = Command::new(portwatch)
            .args(["trace", "-o", "json", "--duration", "1ms", "--attach"])
            .arg(backend.as_str())
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot start {}", portwatch.display()))?;
        match output.status.code() {
            Some(0) => {
                found = true;
                println!("{}", backend.as_str());
            }
            Some(3) => {}
            _ => bail!(
                "portwatch --attach {} ended with {}: {}",
                backend.as_str(),
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            ),
        }
    }
    ensure!(found, "portwatch runs with no backend here");
    Ok(ExitCode::SUCCESS)
}
