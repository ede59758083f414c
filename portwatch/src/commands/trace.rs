//! `portwatch trace`: the loop from the ring to the sink.

use std::{io, time::Duration};

use anyhow::Context as _;
use nix::sys::signal::Signal as Signo;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    child::{Child, Exit, RunAs},
    cli::TraceOptions,
    decode,
    enrich::{self, Enricher, clock::StepWatch},
    event::{End, Event, Item, Lost, LostReason, Outcome, Start, UnknownReason},
    failure::Failure,
    filter,
    host::{cgroup, facts, kernel, limits},
    load::{self, FilterValues, Loaded, Losses},
    plan::{self, Attach, Plan, blind},
    selection::Selection,
    sink::{self, Sink},
    source::{
        assemble::{Assembled, Assembler},
        ring::Ring,
    },
};

/// Runs a trace to its end; the value is the exit status.
///
/// # Errors
/// When the trace cannot start, or its output cannot be written. A reader that went away is no
/// error.
pub fn run(options: &TraceOptions) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .context("cannot set up the event loop")?;
    runtime.block_on(trace(options))
}

async fn trace(options: &TraceOptions) -> Result<u8, Failure> {
    let say = Notes {
        quiet: options.output.quiet,
        verbosity: options.output.verbosity,
    };
    for note in &options.notes {
        say.note(note);
    }
    let values = FilterValues {
        cgroups: cgroup::ids(&options.selection.cgroups)?,
    };
    // Before anything that a command should not inherit: limits, descriptors, threads.
    let mut child = start_command(options, &say)?;
    let mut attached = attach(options, &values, &say)?;
    let sink = sink::open(&options.output, options.args).map_err(Failure::from_open)?;

    let watch = StepWatch::new().context("cannot watch the clock")?;
    let enricher = Enricher::new(enrich::Options {
        numeric: options.output.numeric,
        args: options.args,
        backend: attached.plan.backend,
    })
    .context("cannot read the clocks")?;
    let mut signals = Signals::new()?;
    let mut ring =
        Ring::new(attached.loaded.take_ring()?).context("cannot watch the ring buffer")?;
    if let Some(child) = &child {
        attached.loaded.follow(child.pid())?;
    }
    attached.loaded.attach(&attached.plan)?;
    let mut stream = Stream::new(sink, enricher, options, &attached.loaded);
    quietly(stream.start(&attached.plan), options)?;
    let code = follow(
        &mut stream,
        &mut ring,
        &watch,
        &mut signals,
        child.as_mut(),
        options,
    )
    .await;
    let code = match code {
        Ok(code) => code,
        Err(failure) if failure.is_closed_pipe() => return Ok(0),
        Err(failure) => return Err(failure),
    };
    attached.loaded.detach(&attached.plan);
    match stream.finish(&mut ring, &mut attached.loaded) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(code),
        Err(error) => Err(Failure::from_write(error, &options.output.destination)),
        Ok(()) => Ok(code),
    }
}

/// What is said on stderr beside the data.
struct Notes {
    quiet: bool,
    verbosity: u8,
}

impl Notes {
    fn note(&self, text: &str) {
        if !self.quiet {
            eprintln!("portwatch: {text}");
        }
    }

    fn detail(&self, text: impl FnOnce() -> String) {
        if self.verbosity > 0 {
            eprintln!("portwatch: {}", text());
        }
    }
}

fn start_command(options: &TraceOptions, say: &Notes) -> Result<Option<Child>, Failure> {
    let Some(command) = &options.command else {
        return Ok(None);
    };
    let run_as = RunAs::caller().context("cannot tell whose command it is")?;
    if let Some(note) = &run_as.note {
        say.note(note);
    }
    let child = Child::spawn(command, &run_as).context("cannot start a process for the command")?;
    Ok(Some(child))
}

/// Programs loaded for a plan.
struct Ready {
    plan: Plan,
    loaded: Loaded,
}

/// Facts, plan, load; where the best way in is refused at the last step, the next one, saying so.
fn attach(options: &TraceOptions, values: &FilterValues, say: &Notes) -> Result<Ready, Failure> {
    if kernel::Release::read().and_then(|release| release.bpf_counts_as_memlock()) != Some(false) {
        limits::raise_memlock();
    }
    let mut gathered = facts::gather().map_err(Failure::no_btf)?;
    let wish = options.backend.map_or(Attach::Auto, Attach::Only);
    loop {
        let mut plan = plan::plan(&gathered.facts, &options.selection, wish)
            .map_err(|error| Failure::no_way_in(error, &gathered.facts))?;
        plan.config.diagnostics = u32::from(options.output.verbosity > 1);
        match load::load(&gathered, &plan, &options.selection, values, options.buffer) {
            Ok(loaded) => {
                for (backend, reason) in &plan.stepped_down {
                    say.detail(|| format!("not {}: {reason}", backend.as_str()));
                }
                if say.verbosity > 1 {
                    for (program, count) in loaded.verified(&plan) {
                        say.detail(|| format!("{program}: {count} instructions verified"));
                    }
                }
                return Ok(Ready { plan, loaded });
            }
            Err(error) if wish == Attach::Auto => {
                let first = format!("{:#}", anyhow::Error::from(error));
                say.note(&format!(
                    "{}: {first}; trying the next way in",
                    plan.backend.as_str()
                ));
                gathered.facts.refuse(plan.backend, first);
            }
            Err(error) => {
                let whole = options.output.verbosity > 1;
                return Err(Failure::from_load(error, whole));
            }
        }
    }
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?,
        })
    }
}

/// A write that failed because nobody reads is the end, not an error.
fn quietly(result: io::Result<()>, options: &TraceOptions) -> Result<(), Failure> {
    result.map_err(|error| Failure::from_write(error, &options.output.destination))
}

/// The loop. The value is the exit status.
async fn follow(
    stream: &mut Stream<'_>,
    ring: &mut Ring,
    watch: &StepWatch,
    signals: &mut Signals,
    mut child: Option<&mut Child>,
    options: &TraceOptions,
) -> Result<u8, Failure> {
    if let Some(child) = child.as_mut()
        && let Err(error) = child.release()
    {
        let code = error.code();
        eprintln!("portwatch: {error}");
        return Ok(code);
    }
    let deadline = tokio::time::sleep(options.duration.unwrap_or(Duration::MAX));
    tokio::pin!(deadline);
    let mut status = None;
    loop {
        tokio::select! {
            ready = ring.ready() => {
                ready.context("cannot wait for the kernel")?;
                quietly(stream.drain(ring), options)?;
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
            stepped = watch.stepped() => {
                stepped.context("cannot watch the clock")?;
                stream.enricher.resample().context("cannot read the clocks")?;
            }
        }
    }
    // A command that goes on after -c or --duration is left alone; the trace is over.
    Ok(status.unwrap_or(0))
}

async fn wait(child: &mut Option<&mut Child>) -> io::Result<Exit> {
    match child {
        Some(child) => child.wait().await,
        None => std::future::pending().await,
    }
}

/// Records on their way to the sink.
struct Stream<'a> {
    assembler: Assembler,
    enricher: Enricher,
    selection: &'a Selection,
    sink: Box<dyn Sink>,
    /// Events to print at most.
    limit: u64,
    events: u64,
    failures: u64,
    lost: u64,
    malformed: u64,
    losses: Losses,
    /// Losses seen so far in the records of each CPU.
    seen: Vec<u32>,
}

impl<'a> Stream<'a> {
    fn new(
        sink: Box<dyn Sink>,
        enricher: Enricher,
        options: &'a TraceOptions,
        loaded: &Loaded,
    ) -> Self {
        Self {
            assembler: Assembler::default(),
            enricher,
            selection: &options.selection,
            sink,
            limit: options.count.unwrap_or(u64::MAX),
            events: 0,
            failures: 0,
            lost: 0,
            malformed: 0,
            losses: loaded.losses(),
            seen: Vec::new(),
        }
    }

    fn start(&mut self, plan: &Plan) -> io::Result<()> {
        let time = self.enricher.now()?;
        self.sink.item(&Item::Start(Start {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel_release: kernel::Release::read()
                .map_or_else(String::new, |release| release.text),
            host_name: kernel::host_name().unwrap_or_default(),
            backend: plan.backend,
            degraded: blind::of(plan.backend).map(ToString::to_string).collect(),
            time,
        }))?;
        self.sink.flush()
    }

    fn is_full(&self) -> bool {
        self.events >= self.limit
    }

    /// Prints everything the ring holds.
    fn drain(&mut self, ring: &mut Ring) -> io::Result<()> {
        let mut result = Ok(());
        ring.drain(|bytes| {
            if result.is_ok() {
                result = self.record(bytes);
            }
        });
        result?;
        self.sink.flush()
    }

    fn record(&mut self, bytes: &[u8]) -> io::Result<()> {
        let record = match decode::record(bytes) {
            Ok(record) => record,
            Err(_) => {
                self.malformed += 1;
                return self.tell_lost(LostReason::Malformed, 1);
            }
        };
        match self.assembler.take(record) {
            None => Ok(()),
            Some(Assembled::Image(image)) => {
                self.enricher.image(image);
                Ok(())
            }
            Some(Assembled::Event { event, cpu, lost }) => {
                if self.is_new_loss(cpu, lost) {
                    self.account()?;
                }
                self.event(*event)
            }
        }
    }

    fn event(&mut self, event: Event) -> io::Result<()> {
        if self.is_full() {
            return Ok(());
        }
        let sighting = self.enricher.event(event);
        if !filter::wants(self.selection, &sighting) {
            return Ok(());
        }
        self.events += 1;
        self.failures += u64::from(sighting.event.outcome.is_failure());
        self.sink.item(&Item::Event(Box::new(sighting)))
    }

    fn is_new_loss(&mut self, cpu: u16, lost: u32) -> bool {
        let cpu = usize::from(cpu);
        if self.seen.len() <= cpu {
            self.seen.resize(cpu + 1, 0);
        }
        let is_new = self.seen[cpu] != lost;
        self.seen[cpu] = lost;
        is_new
    }

    /// Tells what the kernel programs have lost since the last time.
    fn account(&mut self) -> io::Result<()> {
        for (reason, count) in self.losses.since_last()? {
            self.tell_lost(reason, count)?;
        }
        Ok(())
    }

    fn tell_lost(&mut self, reason: LostReason, count: u64) -> io::Result<()> {
        if count == 0 {
            return Ok(());
        }
        self.lost += count;
        let time = self.enricher.now()?;
        self.sink.item(&Item::Lost(Lost {
            count,
            reason,
            time,
        }))
    }

    /// Prints what is left after the programs are detached, and the totals.
    fn finish(&mut self, ring: &mut Ring, loaded: &mut Loaded) -> io::Result<()> {
        self.drain(ring)?;
        for mut event in loaded.pending() {
            event.outcome = Outcome::Unknown(UnknownReason::TraceEnded);
            self.event(event)?;
        }
        self.account()?;
        self.tell_lost(LostReason::Recursion, loaded.skipped())?;
        let time = self.enricher.now()?;
        self.sink.item(&Item::End(End {
            events: self.events,
            failures: self.failures,
            lost: self.lost,
            time,
        }))?;
        self.sink.flush()
    }
}
