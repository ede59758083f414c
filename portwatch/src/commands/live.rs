//! What `trace` and `record` share: the loop from the ring to the sink. They differ in the sink.

pub(super) mod attach;
pub(super) mod confine;
mod held;
mod older;
mod stream;

use std::{ffi::OsString, io, path::Path, time::Duration};

use anyhow::{Context as _, anyhow};
use nix::sys::signal::Signal as Signo;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::Interval,
};

use crate::{
    child::{Child, Exit, RunAs},
    cli::TraceOptions,
    enrich::{self, Enricher, clock::StepWatch},
    errno, facts,
    failure::{self, Failure},
    host::{
        cgroup,
        namespaces::{Blindness, ContainerHints, Kind as Namespace, OWN_PIDS, is_initial},
    },
    load::{self, FilterValues},
    plan::blind,
    sink::Sink,
    source::{
        diagnostics::{Diagnostics, Stderr},
        ring::Ring,
    },
    stderr::say,
    store::writer::Pulse,
};
use confine::Needs;
use stream::{News, Rest, Stream};

/// Who wants to know how the loop fares: a service manager, for one.
pub(super) trait Attendant {
    /// Every hook is attached and the first item is written.
    fn ready(&mut self) {}

    /// How often [`Attendant::tick`] is to be called.
    fn period(&self) -> Option<Duration> {
        None
    }

    /// The loop goes round.
    fn tick(&mut self) {}

    /// A directory in which something is to be removed at the end.
    fn directory(&self) -> Option<&Path> {
        None
    }

    /// What takes the items, where that may end before the stream does.
    fn pulse(&self) -> Option<Pulse> {
        None
    }
}

/// Nobody does.
pub(super) struct Alone;

impl Attendant for Alone {}

/// Follows the kernel to the end of the stream; the value is the exit status. `reserve` opens where
/// items are to go, before anything that takes time, and gives what makes a sink of it, once every hook
/// is attached.
///
/// # Errors
/// When it cannot start, or items cannot be written. A reader that went away is no error.
pub(super) fn run<F: FnOnce() -> io::Result<Box<dyn Sink>>>(
    options: &TraceOptions,
    attendant: &mut dyn Attendant,
    reserve: impl FnOnce() -> Result<F, Failure>,
) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .context("cannot set up the event loop")?;
    runtime.block_on(live(options, attendant, reserve))
}

async fn live<F: FnOnce() -> io::Result<Box<dyn Sink>>>(
    options: &TraceOptions,
    attendant: &mut dyn Attendant,
    reserve: impl FnOnce() -> Result<F, Failure>,
) -> Result<u8, Failure> {
    let say = Notes {
        quiet: options.output.quiet,
        verbosity: options.output.verbosity,
    };
    for note in &options.notes {
        say.note(note);
    }
    say.blindness();
    let values = FilterValues {
        cgroups: cgroup::ids(&options.selection.cgroups)?,
    };
    // Before anything that a command should not inherit: limits, descriptors, threads.
    let mut child = start_command(options.command.as_deref(), &say)?;
    // Before the work of a second, so that a typo is told at once.
    let open = reserve()?;

    let mut signals = Signals::new()?;
    let watch = StepWatch::new().context("cannot watch the clock")?;
    let (plan, mut loaded) = attach::best(
        &mut facts::prepare().map_err(Failure::no_btf)?,
        &options.selection,
        options.backend,
        &say,
        |gathered, plan| {
            let mut loaded =
                load::load(gathered, plan, &options.selection, &values, options.buffer)?;
            if let Some(child) = &child {
                loaded.follow(child.pid())?;
            }
            loaded.attach(plan)?;
            Ok(loaded)
        },
    )?;
    for (op, what) in blind::unseen(plan.backend, &options.selection.events) {
        // Who names no events is told by the line of what is not seen.
        if !options.selection.is_usual() {
            let (backend, op) = (plan.backend.as_str(), op.as_str());
            say.note(&format!("{backend} shows no {op}: it does not see {what}"));
        }
    }
    let mut losses = loaded.losses();
    let older = older::ask(&mut loaded, &plan);
    let before = held::Before::look(&options.selection, &say);
    // Before there is another thread: of the sink, or one that looks into a namespace.
    let needs = Needs {
        command: child.is_some(),
        directory: attendant.directory(),
    };
    confine::confine(&needs, || losses.are_readable(), &say)?;
    let enricher = Enricher::new(enrich::Options {
        numeric: options.output.numeric,
        args: options.args,
        brief: options.selection.brief,
        backend: plan.backend,
    })
    .context("cannot read the clocks")?;
    let mut diagnostics = if say.is_whole() {
        let logger = loaded.take_diagnostics(Stderr)?;
        Some(Diagnostics::new(logger).context("cannot watch the diagnostics")?)
    } else {
        None
    };
    let mut ring = Ring::new(loaded.take_ring()?).context("cannot watch the ring buffer")?;
    let sink = quietly(open(), options)?;
    let mut stream = Stream::new(
        sink,
        enricher,
        &options.selection,
        options.count,
        move || losses.since_last(),
    );
    stream.before(before);
    quietly(stream.start(plan.backend), options)?;
    older::look_up(&mut stream, older, &say);
    say.verified(|| loaded.verified(&plan));
    give_back_memory();
    attendant.ready();
    let code = follow(
        &mut stream,
        &mut ring,
        (&watch, diagnostics.as_mut()),
        &mut signals,
        child.as_mut(),
        attendant,
        options,
    )
    .await;
    let code = match code {
        Ok(code) => code,
        Err(failure) if failure.is_closed_pipe() => return Ok(0),
        Err(failure) => return Err(failure),
    };
    loaded.detach(&plan);
    if let Some(diagnostics) = &mut diagnostics {
        diagnostics.drain();
    }
    let ended = drain(&mut stream, &mut ring).and_then(|()| {
        stream.finish(Rest {
            open: loaded.pending(),
            unreturned: loaded.unreturned(&plan),
            skipped: loaded.skipped(),
        })
    });
    match ended {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(code),
        Err(error) => Err(Failure::from_write(error, &options.output.destination)),
        Ok(()) => Ok(code),
    }
}

/// Hands the memory that setting up took back to the system: glibc keeps what is freed, and the
/// kernel's type information, read and dropped by now, was most of it.
fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no argument can be wrong, and it may be called at any time (malloc_trim(3)).
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Prints everything the ring holds.
fn drain(
    stream: &mut Stream<'_, impl FnMut() -> io::Result<News>>,
    ring: &mut Ring,
) -> io::Result<()> {
    let mut result = Ok(());
    ring.drain(|bytes| {
        if result.is_ok() {
            result = stream.bytes(bytes);
        }
    });
    result?;
    stream.flush()
}

/// What is said on stderr beside the data.
pub(super) struct Notes {
    pub(super) quiet: bool,
    pub(super) verbosity: u8,
}

impl Notes {
    pub(super) fn note(&self, text: &str) {
        if !self.quiet {
            say(format_args!("portwatch: {text}"));
        }
    }

    /// What cannot be seen from inside a container.
    fn blindness(&self) {
        for Blindness { what, next } in ContainerHints::read().blindness() {
            self.note(&format!("{what} ({next})"));
        }
    }

    pub(super) fn detail(&self, text: impl FnOnce() -> String) {
        if self.verbosity > 0 {
            say(format_args!("portwatch: {}", text()));
        }
    }

    /// Whether everything is to be said, down to what the verifier says.
    const fn is_whole(&self) -> bool {
        self.verbosity > 1
    }

    pub(super) fn verified(&self, programs: impl FnOnce() -> Vec<(&'static str, u32)>) {
        if self.is_whole() {
            for (program, count) in programs() {
                self.detail(|| format!("{program}: {count} instructions verified"));
            }
        }
    }
}

pub(super) fn start_command(
    command: Option<&[OsString]>,
    say: &Notes,
) -> Result<Option<Child>, Failure> {
    let Some(command) = command else {
        return Ok(None);
    };
    // The kernel's programs would follow whoever has that number on the machine.
    if is_initial(Namespace::Pid) == Some(false) {
        let error = anyhow!(
            "cannot follow a command from inside a pid namespace: its pid here is not the machine's, by \
             which the kernel's programs know it"
        );
        return Err(Failure::new(failure::Kind::Impossible, error).hint(OWN_PIDS.next));
    }
    let run_as = RunAs::caller().context("cannot tell whose command it is")?;
    if let Some(note) = &run_as.note {
        say.note(note);
    }
    let child = Child::spawn(command, &run_as).context("cannot start a process for the command")?;
    Ok(Some(child))
}

pub(super) struct Signals {
    pub(super) interrupt: Signal,
    pub(super) terminate: Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Self, Failure> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?,
        })
    }
}

/// A write that failed because nobody reads is the end, not an error.
fn quietly<T>(result: io::Result<T>, options: &TraceOptions) -> Result<T, Failure> {
    result.map_err(|error| Failure::from_write(error, &options.output.destination))
}

/// The loop. The value is the exit status.
async fn follow(
    stream: &mut Stream<'_, impl FnMut() -> io::Result<News>>,
    ring: &mut Ring,
    (watch, mut diagnostics): (&StepWatch, Option<&mut Diagnostics>),
    signals: &mut Signals,
    mut child: Option<&mut Child>,
    attendant: &mut dyn Attendant,
    options: &TraceOptions,
) -> Result<u8, Failure> {
    if let Some(child) = child.as_mut()
        && let Err(error) = child.release()
    {
        let code = error.code();
        say(format_args!("portwatch: {}", errno::words(&error)));
        return Ok(code);
    }
    let deadline = tokio::time::sleep(options.duration.unwrap_or(Duration::MAX));
    tokio::pin!(deadline);
    let mut ticks = attendant.period().map(tokio::time::interval);
    let pulse = attendant.pulse();
    let mut status = None;
    loop {
        tokio::select! {
            ready = ring.ready() => {
                ready.context("cannot wait for the kernel")?;
                quietly(drain(stream, ring), options)?;
                if stream.is_full() {
                    break;
                }
            }
            () = &mut deadline, if options.duration.is_some() => break,
            exit = wait(&mut child), if status.is_none() => {
                status = Some(exit.context("cannot wait for the command")?.code());
                break;
            }
            _ = signals.interrupt.recv() => {
                // The terminal sends it to the command too; what it does ends the trace.
                if child.is_none() {
                    break;
                }
            }
            _ = signals.terminate.recv() => match &child {
                // It may have just ended: then the wait above tells.
                Some(child) => drop(child.signal(Signo::SIGTERM)),
                None => break,
            },
            () = tick(&mut ticks) => attendant.tick(),
            // The last item will be told why.
            () = ended(pulse.as_ref()) => break,
            said = print(&mut diagnostics) => said.context("cannot wait for the kernel")?,
            stepped = watch.stepped() => {
                stepped.context("cannot watch the clock")?;
                stream.resample().context("cannot read the clocks")?;
            }
        }
    }
    if status.is_none()
        && let Some(child) = child
    {
        // It may have ended within the batch that ended the trace.
        let exit = child.try_wait().context("cannot wait for the command")?;
        status = exit.map(Exit::code);
    }
    // A command that goes on after -c or --duration is left alone; the trace is over.
    Ok(status.unwrap_or(0))
}

async fn tick(ticks: &mut Option<Interval>) {
    match ticks {
        Some(ticks) => drop(ticks.tick().await),
        None => std::future::pending().await,
    }
}

async fn ended(pulse: Option<&Pulse>) {
    match pulse {
        Some(pulse) => pulse.ended().await,
        None => std::future::pending().await,
    }
}

async fn print(diagnostics: &mut Option<&mut Diagnostics>) -> io::Result<()> {
    match diagnostics {
        Some(diagnostics) => diagnostics.print().await,
        None => std::future::pending().await,
    }
}

async fn wait(child: &mut Option<&mut Child>) -> io::Result<Exit> {
    match child {
        Some(child) => child.wait().await,
        None => std::future::pending().await,
    }
}
