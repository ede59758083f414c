//! `portwatch churn`: where the automatic ports go, interval by interval.

mod around;
mod gateways;
mod look;
mod screen;
mod table;

use anyhow::Context as _;
use nix::sys::signal::Signal as Signo;

use super::live::{
    Notes, Signals, attach,
    confine::{self, Needs},
    start_command,
};
use crate::{
    child::{Child, Exit},
    churn::model::{Model, Reading},
    cli::ChurnOptions,
    enrich::clock::{Clock, StepWatch},
    errno, facts,
    failure::Failure,
    load::churn::{self as load, Counting, Sizes},
    plan, sink,
    stderr::say,
};
use around::Around;
use gateways::Gateways;
use look::Looks;
use screen::Screen;

/// Runs to its end; the value is the exit status.
///
/// # Errors
/// When it cannot start, or its output cannot be written. A reader that went away is no error.
pub fn run(options: &ChurnOptions) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .context("cannot set up the event loop")?;
    runtime.block_on(live(options))
}

async fn live(options: &ChurnOptions) -> Result<u8, Failure> {
    let say = Notes {
        quiet: options.output.quiet,
        verbosity: options.output.verbosity,
    };
    // Before anything that a command should not inherit.
    let mut child = start_command(options.command.as_deref(), &say)?;
    let out = sink::create(&options.output.destination).map_err(Failure::from_open)?;
    let mut screen = Screen::new(out, options);
    let mut signals = Signals::new()?;
    let watch = StepWatch::new().context("cannot watch the clock")?;
    let mut gathered = facts::prepare().map_err(Failure::no_btf)?;
    let descendants = child.is_some();
    let (plan, (counting, looks)) = attach::best_of(
        &mut gathered,
        options.backend,
        &say,
        |facts, wish| plan::churn::plan(facts, descendants, wish),
        |gathered, plan| {
            let mut looks = Looks::plan(gathered, plan, descendants);
            let mut counting = load::load(gathered, plan, looks.iterators(), sizes(options))?;
            if let Some(child) = &child {
                counting.follow(child.pid())?;
            }
            counting.attach(plan)?;
            looks.load(&mut counting);
            Ok((counting, looks))
        },
    )?;
    // Before there is another thread: one that looks into a namespace.
    let needs = Needs {
        command: descendants,
        directory: None,
    };
    confine::confine(&needs, || counting.are_readable(), &say)?;
    let clock = Clock::new().context("cannot read the clocks")?;
    let start = clock.now().context("cannot read the clocks")?;
    let model = Model::new(
        plan.backend,
        options.by,
        options.top,
        counting.rows().len(),
        start,
    );
    say.verified(|| counting.verified(&plan));
    let mut session = Session {
        counting,
        looks,
        model,
        clock,
        around: Around::default(),
        // Whose ports NAT takes is not known by process: of a command there is nothing to tell.
        gateways: (!descendants).then(Gateways::default),
        seen_lost: 0,
        numeric: options.output.numeric,
    };
    session.first_look(&say);
    say.detail(|| "counting".to_owned());
    let ended = follow(
        &mut session,
        &mut screen,
        &watch,
        &mut signals,
        child.as_mut(),
        options,
    )
    .await;
    session.counting.detach(&plan);
    screen.leave();
    match ended {
        Ok(code) => Ok(code),
        Err(failure) if failure.is_closed_pipe() => Ok(0),
        Err(failure) => Err(failure),
    }
}

fn sizes(options: &ChurnOptions) -> Sizes {
    Sizes {
        tuples: options.tuples,
        // A port more for every third tuple that has one.
        holds: (options.tuples / 3 * 4).max(16),
    }
}

/// What an interval needs.
struct Session {
    counting: Counting,
    looks: Looks,
    model: Model,
    clock: Clock,
    around: Around,
    gateways: Option<Gateways>,
    /// What was lost by the last look.
    seen_lost: u64,
    numeric: bool,
}

impl Session {
    /// Finds the ports that are held already.
    fn first_look(&mut self, say: &Notes) {
        match self.looks.take(&mut self.counting) {
            Ok(looked) => {
                if let Some(reason) = looked.unseen {
                    say.note(&format!(
                        "connections without a process are not all counted that were there before: {reason}"
                    ));
                }
            }
            Err(reason) => say.note(&format!(
                "ports that are held already are not counted: {reason}"
            )),
        }
    }

    /// Looks again at all sockets if something was missed since the last time, so that no figure stays
    /// wrong.
    fn make_good(&mut self, say: &Notes) {
        let lost = self.model.lost();
        if lost == self.seen_lost {
            return;
        }
        self.seen_lost = lost;
        match self.looks.take(&mut self.counting) {
            Ok(looked) => {
                self.model.looked(looked.gone);
                if let Some(reason) = looked.unseen {
                    say.note(&format!(
                        "something was missed, and cannot be made good everywhere: {reason}"
                    ));
                }
            }
            Err(reason) => say.note(&format!(
                "something was missed, and cannot be made good: {reason}"
            )),
        }
    }

    /// Prints what there was since the last interval, when somebody ends it; a screen keeps its last whole one.
    fn last(&mut self, screen: &mut Screen, options: &ChurnOptions) -> Result<(), Failure> {
        if screen.is_drawn() {
            return Ok(());
        }
        self.tell(screen, options)
    }

    /// Reads the tables and prints what the interval was like.
    fn tell(&mut self, screen: &mut Screen, options: &ChurnOptions) -> Result<(), Failure> {
        let time = self.clock.now().context("cannot read the clocks")?;
        let places = self.counting.places()?;
        self.around
            .look(places.iter().map(|(netns, _)| *netns), self.numeric);
        let (mut figures, housekeeping) = self.model.update(
            &Reading {
                time,
                table: self.counting.rows(),
                places,
                skipped: self.counting.skipped(),
            },
            &self.around,
        );
        figures.nat = self
            .gateways
            .as_mut()
            .and_then(|gateways| gateways.look(figures.interval, options.top));
        for key in &housekeeping.abandon {
            self.counting.abandon(key);
        }
        for &row in &housekeeping.free {
            self.counting.rows().free(row);
        }
        self.model.freed(&housekeeping.free);
        for netns in self.around.gone() {
            self.counting.forget_place(netns)?;
        }
        screen
            .show(&figures)
            .map_err(|error| Failure::from_write(error, &options.output.destination))
    }
}

async fn follow(
    session: &mut Session,
    screen: &mut Screen,
    watch: &StepWatch,
    signals: &mut Signals,
    mut child: Option<&mut Child>,
    options: &ChurnOptions,
) -> Result<u8, Failure> {
    let notes = Notes {
        quiet: options.output.quiet,
        verbosity: options.output.verbosity,
    };
    if let Some(child) = child.as_mut()
        && let Err(error) = child.release()
    {
        let code = error.code();
        say(format_args!("portwatch: {}", errno::words(&error)));
        return Ok(code);
    }
    let mut ticks = tokio::time::interval_at(
        tokio::time::Instant::now() + options.interval,
        options.interval,
    );
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut status = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                session.tell(screen, options)?;
                if options.once {
                    break;
                }
                session.make_good(&notes);
            }
            exit = wait(&mut child), if status.is_none() => {
                status = Some(exit.context("cannot wait for the command")?.code());
                session.tell(screen, options)?;
                break;
            }
            _ = signals.interrupt.recv() => {
                // The terminal sends it to the command too; what it does ends us.
                if child.is_none() {
                    session.last(screen, options)?;
                    break;
                }
            }
            _ = signals.terminate.recv() => match &child {
                Some(child) => drop(child.signal(Signo::SIGTERM)),
                None => {
                    session.last(screen, options)?;
                    break;
                }
            },
            stepped = watch.stepped() => {
                stepped.context("cannot watch the clock")?;
                session.clock.resample().context("cannot read the clocks")?;
            }
        }
    }
    if status.is_none()
        && let Some(child) = child
    {
        let exit = child.try_wait().context("cannot wait for the command")?;
        status = exit.map(Exit::code);
    }
    Ok(status.unwrap_or(0))
}

async fn wait(child: &mut Option<&mut Child>) -> std::io::Result<Exit> {
    match child {
        Some(child) => child.wait().await,
        None => std::future::pending().await,
    }
}
