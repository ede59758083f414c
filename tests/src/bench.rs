//! What a session, a scenario that runs portwatch itself, works with.

use std::{
    cell::Cell,
    ffi::{OsStr, OsString},
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{
    contract::Stream,
    degraded::{self, Backend, Feature},
    expect::{self, Expected, lookup},
    runner::{Told, Workload},
    script::Skip,
    shared::Shared,
    sys::netns::Netns,
    tracer::{PATIENCE, Tracer},
};

/// The binary under test, and a place to put things.
pub(crate) struct Bench {
    pub(crate) portwatch: PathBuf,
    pub(crate) backend: Backend,
    pub(crate) long: bool,
    /// Root of the file system with ss, netstat and lsof, if there is one.
    pub(crate) neighbours: Option<PathBuf>,
    /// Root of the file system with Debian's programs, if there is one.
    pub(crate) programs: Option<PathBuf>,
    /// Backends that watch the programs at the same time.
    pub(crate) also: Vec<Backend>,
    /// A portwatch that was asked for an event, for those that come next and ask for the same.
    shared: Cell<Option<(&'static str, Shared)>>,
    scratch: PathBuf,
}

impl Bench {
    /// With a directory of its own.
    pub(crate) fn new(portwatch: &Path, backend: Backend, long: bool) -> Result<Self> {
        let scratch = std::env::temp_dir().join(format!("portwatch-bench-{}", std::process::id()));
        fs::create_dir_all(&scratch)
            .with_context(|| format!("cannot make {}", scratch.display()))?;
        // Nobody has to be able to run what lies here.
        fs::set_permissions(&scratch, fs::Permissions::from_mode(0o755))?;
        Ok(Self {
            portwatch: portwatch.to_owned(),
            backend,
            long,
            neighbours: None,
            programs: None,
            also: Vec::new(),
            shared: Cell::new(None),
            scratch,
        })
    }

    /// The portwatch that was shared, unless it goes on with this event.
    pub(crate) fn settle(&self, event: Option<&str>) -> Option<(&'static str, Shared)> {
        let kept = self.shared.take()?;
        if event == Some(kept.0) {
            self.shared.set(Some(kept));
            return None;
        }
        Some(kept)
    }

    /// A file in the directory, not there yet.
    pub(crate) fn file(&self, name: &str) -> Result<PathBuf> {
        let path = self.scratch.join(name);
        // A scenario that failed may have left a directory.
        let removed = if fs::symlink_metadata(&path).is_ok_and(|old| old.is_dir()) {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(path),
        }
    }

    /// A copy of a program that everybody may run.
    pub(crate) fn for_everybody(&self, program: &Path, name: &str) -> Result<PathBuf> {
        let path = self.file(name)?;
        fs::copy(program, &path).with_context(|| format!("cannot copy {}", program.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(path)
    }

    /// This very program.
    pub(crate) fn own_program() -> Result<PathBuf> {
        fs::read_link("/proc/self/exe").context("cannot read /proc/self/exe")
    }

    /// `trace` with the backend under test, then `args`.
    pub(crate) fn trace_args(
        &self,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Vec<OsString> {
        ["trace", "--attach", self.backend.as_str()]
            .into_iter()
            .map(OsString::from)
            .chain(args.into_iter().map(|arg| arg.as_ref().to_owned()))
            .collect()
    }

    /// A portwatch that prints JSON to a pipe of ours.
    pub(crate) fn trace(
        &self,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Result<Tracer> {
        let mut all = self.trace_args(["-o", "json"]);
        all.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        Tracer::start(&self.portwatch, all)
    }

    /// `portwatch ARGS…`, not started yet: no stdin, pipes for the rest, nobody behind it.
    pub(crate) fn command(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new(&self.portwatch);
        command
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for name in [
            "SUDO_UID",
            "SUDO_GID",
            "SUDO_USER",
            "DOAS_USER",
            "PKEXEC_UID",
        ] {
            command.env_remove(name);
        }
        command
    }

    /// Runs a workload to its end in a namespace of its own.
    pub(crate) fn workload(&self, name: &str) -> Result<Expected> {
        let netns = Netns::new()?;
        told(Workload::start(&netns, name, self.backend, self.long, false)?.finish()?)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.scratch) {
            eprintln!("{} stays: {error}", self.scratch.display());
        }
    }
}

/// The expectations of a workload that did what it should.
pub(crate) fn told(told: Told) -> Result<Expected> {
    match told {
        Told::Expect(expected) => Ok(expected),
        Told::Skip(reason) => Err(Skip(reason).into()),
        Told::Wrong(why) => bail!(why),
    }
}

/// Runs a workload under `portwatch trace -e EVENT`: what comes must be what it expects.
///
/// One portwatch is there for all that ask for the same event. A kernel that preempts programs and then skips
/// others (7.x) may lose an event, and counts it: then the workload gets a portwatch of its own, and another one.
pub(crate) fn asked(bench: &Bench, event: &'static str, name: &str) -> Result<()> {
    if let Some(why) = unseen(bench.backend, event) {
        return Err(Skip(why.to_owned()).into());
    }
    let (lost, result) = asked_together(bench, event, name)?;
    if lost == 0 || result.is_ok() || !degraded::preempts(bench.backend) {
        return result;
    }
    for _ in 0..2 {
        println!("note: {name}: {lost} events were lost; once more, alone");
        let (lost, result) = asked_once(bench, event, name)?;
        if lost == 0 || result.is_ok() {
            return result;
        }
    }
    asked_once(bench, event, name)?.1
}

/// Why a backend shows nothing of a kind at all.
fn unseen(backend: Backend, event: &str) -> Option<&'static str> {
    (event == "release")
        .then(|| degraded::may_miss(backend, Feature::Release))
        .flatten()
}

/// Under the portwatch that is there already, or is left there. Where that did not do it is ended, so that the
/// next one gets another: how many events it has lost, and what is wrong.
fn asked_together(bench: &Bench, event: &'static str, name: &str) -> Result<(u64, Result<()>)> {
    let netns = Netns::new()?;
    // Before portwatch, where this is the first: a process that it has not seen begin.
    let workload = Workload::start(&netns, name, bench.backend, bench.long, true)?;
    let mut shared = match bench.shared.take() {
        Some((_, shared)) => shared,
        None => Shared::start(&bench.portwatch, bench.backend, Some(event))?,
    };
    let (result, got) = shared.watch(netns, workload)?;
    let result = told(result).and_then(|expected| Ok(expect::compare(&expected, &got)?));
    if result.as_ref().err().is_none_or(anyhow::Error::is::<Skip>) {
        bench.shared.set(Some((event, shared)));
        return Ok((0, result));
    }
    match (shared.lost(), result) {
        (Err(end), Err(wrong)) => Err(wrong.context(format!("{end:#}"))),
        (lost, result) => Ok((lost?, result)),
    }
}

fn asked_once(bench: &Bench, event: &str, name: &str) -> Result<(u64, Result<()>)> {
    let netns = Netns::new()?;
    let workload = Workload::start(&netns, name, bench.backend, bench.long, true)?;
    let tracer = bench.trace(["-e", event])?;
    let expected = told(workload.finish()?)?;
    let finished = tracer.stop()?;
    finished.ended_well(0)?;
    let (_, _, lost) = finished.totals;
    let got: Vec<_> = events(finished.lines)
        .into_iter()
        .filter(|line| expected.owns(line))
        .collect();
    let result = expect::compare(&expected, &got).map_err(Into::into);
    Ok((lost, result))
}

/// Starts a program in a network namespace.
pub(crate) fn spawn_in(netns: &Netns, command: &mut Command) -> Result<Child> {
    let home = Netns::current()?;
    netns.enter()?;
    let child = command
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().display()));
    home.enter()?;
    child
}

/// Waits for a program that has to end by itself.
pub(crate) fn ended(mut child: Child) -> Result<Output> {
    let deadline = Instant::now() + PATIENCE;
    // What it writes is little and fits its pipes.
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            child.kill()?;
            let output = child.wait_with_output()?;
            bail!(
                "it does not end; stderr: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child
        .wait_with_output()
        .context("cannot read what it wrote")
}

/// Waits until something holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !holds()? {
        if Instant::now() > deadline {
            bail!("waited in vain for {what}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// The lines of a complete stream, each checked.
pub(crate) fn stream(text: &str) -> Result<Vec<Value>> {
    let mut stream = Stream::default();
    let lines = text
        .lines()
        .map(|text| match stream.check(text) {
            Ok(line) => Ok(line),
            Err(wrong) => bail!("{}: {text}", wrong.join("; ")),
        })
        .collect::<Result<Vec<_>>>()?;
    if !stream.ended() {
        bail!("the stream has no `end`: {text}");
    }
    Ok(lines)
}

/// The lines that tell of ports: neither `start` nor `lost` nor `end`.
pub(crate) fn events(lines: Vec<Value>) -> Vec<Value> {
    lines
        .into_iter()
        .filter(|line| lookup(line, "event.outcome").is_some())
        .collect()
}
