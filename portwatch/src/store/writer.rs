//! The thread that writes. The loop that empties the ring hands entries over and goes on; it never
//! waits for a disk.

use std::{
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rusqlite::ErrorCode;
use tokio::sync::Notify;

use super::{
    database::{Database, StoreError, Unwritten},
    row::Entry,
};
use crate::enrich::clock::Clock;

/// How long entries are collected before they are written: less than the second that a sudden end may
/// cost.
const COLLECT: Duration = Duration::from_millis(300);
/// How long after a failure it is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How often age is looked after, and a sign of life given, while nothing comes.
const IDLE: Duration = Duration::from_secs(60);
/// How long the end waits for room on a full disk.
const LAST_WAIT: Duration = Duration::from_secs(3);
/// Memory that entries may take that are not written yet, bytes. Beyond it items are lost.
pub(super) const BOUND: usize = 24 << 20;
/// Entries that are waited for no longer: there is enough to do.
const PLENTY: usize = 2 << 20;

/// What happened to the writer that people should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// Nothing can be written, and why; entries are kept in memory. `by_reader`: another program reads,
    /// and does not end.
    Stuck {
        /// What SQLite says.
        why: String,
        /// It is a reader, not the disk.
        by_reader: bool,
    },
    /// It goes on.
    Going,
}

/// What both sides see.
#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    /// Bytes of entries that are not written yet.
    weight: AtomicU64,
    /// Something is being written; since when, as ms since the start, and 0 if nothing is.
    busy_since: AtomicU64,
    /// The thread is gone, whatever it was that ended it.
    ended: AtomicBool,
    /// Told when it is.
    gone: Notify,
}

/// Tells that the thread is gone, even where it panics.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Release);
        self.0.gone.notify_one();
    }
}

#[derive(Debug, Default)]
struct Queue {
    entries: Vec<Entry>,
    closing: bool,
}

/// A thread that writes entries into a file.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<io::Result<()>>>,
    began: Instant,
}

impl Writer {
    /// Starts it. `say` is told what people should know.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start(database: Database, say: impl Fn(Word) + Send + 'static) -> io::Result<Self> {
        Self::start_idling(database, IDLE, say)
    }

    /// Likewise, with a time of its own after which nothing has come for long.
    pub(super) fn start_idling(
        database: Database,
        idle: Duration,
        say: impl Fn(Word) + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let began = Instant::now();
        let mut work = Work {
            database,
            shared: Arc::clone(&shared),
            pending: Vec::new(),
            say: Box::new(say),
            idle,
            stuck: false,
            began,
        };
        let thread = std::thread::Builder::new()
            .name("portwatch-store".to_owned())
            .spawn(move || {
                let _ending = Ending(Arc::clone(&work.shared));
                let ended = work.run();
                ended.and_then(|()| work.database.close().map_err(io::Error::other))
            })?;
        Ok(Self {
            shared,
            thread: Some(thread),
            began,
        })
    }

    /// Whether there is room for more.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.shared.weight.load(Ordering::Relaxed) < BOUND as u64
    }

    /// Hands entries over.
    ///
    /// # Errors
    /// When the writer has ended because the file is broken.
    pub fn give(&mut self, entries: &mut Vec<Entry>) -> io::Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        if self.shared.ended.load(Ordering::Acquire) {
            return self.wait();
        }
        let weight: usize = entries.iter().map(Entry::weight).sum();
        let before = self
            .shared
            .weight
            .fetch_add(weight as u64, Ordering::Relaxed) as usize;
        let mut queue = locked(&self.shared.queue);
        // One that collects need not be told of each.
        let is_news = queue.entries.is_empty() || (before < PLENTY && before + weight >= PLENTY);
        queue.entries.append(entries);
        drop(queue);
        if is_news {
            self.shared.changed.notify_one();
        }
        Ok(())
    }

    /// For whoever wants to know whether it is alive.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        Pulse {
            shared: Arc::clone(&self.shared),
            began: self.began,
        }
    }

    /// Writes what is left, and closes the file.
    ///
    /// # Errors
    /// When not everything could be written.
    pub fn close(&mut self) -> io::Result<()> {
        locked(&self.shared.queue).closing = true;
        self.shared.changed.notify_one();
        self.wait()
    }

    fn wait(&mut self) -> io::Result<()> {
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(ended)) => ended,
            Some(Err(_)) => Err(io::Error::other("the thread that writes has panicked")),
        }
    }
}

/// Whether a writer is alive.
#[derive(Clone, Debug)]
pub struct Pulse {
    shared: Arc<Shared>,
    began: Instant,
}

impl Pulse {
    /// Whether it is there, and has been at one piece of work for no longer than that.
    #[must_use]
    pub fn is_alive(&self, patience: Duration) -> bool {
        if self.has_ended() {
            return false;
        }
        let since = self.shared.busy_since.load(Ordering::Relaxed);
        let now = millis(self.began);
        since == 0 || u128::from(now.saturating_sub(since)) < patience.as_millis()
    }

    fn has_ended(&self) -> bool {
        self.shared.ended.load(Ordering::Acquire)
    }

    /// Comes back when it is gone. Why, [`Writer::give`] and [`Writer::close`] say.
    pub async fn ended(&self) {
        while !self.has_ended() {
            self.shared.gone.notified().await;
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // One that ends in another way than by `close` has nobody to tell.
        let _ = self.close();
    }
}

fn millis(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn locked(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread's side.
struct Work {
    database: Database,
    shared: Arc<Shared>,
    /// Taken from the queue and not written yet.
    pending: Vec<Entry>,
    say: Box<dyn Fn(Word) + Send>,
    idle: Duration,
    stuck: bool,
    began: Instant,
}

impl Work {
    fn run(&mut self) -> io::Result<()> {
        loop {
            let closing = self.collect();
            self.shared
                .busy_since
                .store(millis(self.began).max(1), Ordering::Relaxed);
            let is_idle = self.pending.is_empty() && !closing;
            let written = match is_idle {
                true => self.write().and_then(|()| self.say_alive()),
                false => self.write(),
            };
            self.shared.busy_since.store(0, Ordering::Relaxed);
            match written {
                Ok(()) if closing => return Ok(()),
                Ok(()) => {}
                Err(error) if closing => return self.give_up(error),
                Err(Unwritten::NoRoom(error)) => self.pause(&error),
                Err(Unwritten::Broken(error)) => {
                    let error = StoreError::sql(self.database.path(), error);
                    return Err(io::Error::other(error));
                }
            }
        }
    }

    /// Waits until there is something to write, and a little longer for more; the value is whether it
    /// is the last.
    fn collect(&mut self) -> bool {
        let Self {
            shared,
            pending,
            idle,
            ..
        } = self;
        let mut queue = locked(&shared.queue);
        if pending.is_empty() {
            let nothing = |queue: &mut Queue| queue.entries.is_empty() && !queue.closing;
            queue = shared
                .changed
                .wait_timeout_while(queue, *idle, nothing)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            let weight = &shared.weight;
            let few = |queue: &mut Queue| {
                !queue.closing && weight.load(Ordering::Relaxed) < PLENTY as u64
            };
            queue = shared
                .changed
                .wait_timeout_while(queue, COLLECT, few)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        // What could not be written yet stays by itself, so that it grows no further; at the end
        // everything is tried once more.
        if pending.is_empty() {
            std::mem::swap(pending, &mut queue.entries);
        } else if queue.closing {
            pending.append(&mut queue.entries);
        }
        queue.closing
    }

    fn write(&mut self) -> Result<(), Unwritten> {
        let mut done = 0;
        let mut written = Ok(());
        loop {
            match self.database.write(&self.pending[done..], Timestamp::now()) {
                Ok(count) => {
                    self.unburden(done, count);
                    done += count;
                }
                Err(error) => written = Err(error),
            }
            if written.is_err() || done >= self.pending.len() {
                break;
            }
        }
        self.pending.drain(..done);
        // The next list is as likely a short one.
        if self.pending.is_empty() && self.pending.capacity() > 4 * 1024 {
            self.pending = Vec::new();
        }
        if written.is_ok() && std::mem::take(&mut self.stuck) {
            (self.say)(Word::Going);
        }
        written
    }

    /// With nothing to write: that it is there.
    fn say_alive(&mut self) -> Result<(), Unwritten> {
        // Without a clock nobody can be told when.
        match Clock::new().and_then(|clock| clock.now()) {
            Ok(now) => self.database.alive(now),
            Err(_) => Ok(()),
        }
    }

    fn unburden(&self, first: usize, count: usize) {
        let weight: usize = self.pending[first..first + count]
            .iter()
            .map(Entry::weight)
            .sum();
        self.shared
            .weight
            .fetch_sub(weight as u64, Ordering::Relaxed);
    }

    /// Says once that nothing can be written, and waits a little.
    fn pause(&mut self, error: &rusqlite::Error) {
        if !std::mem::replace(&mut self.stuck, true) {
            let code = error.sqlite_error_code();
            (self.say)(Word::Stuck {
                why: error.to_string(),
                by_reader: matches!(
                    code,
                    Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
                ),
            });
        }
        let queue = locked(&self.shared.queue);
        drop(
            self.shared
                .changed
                .wait_timeout_while(queue, RETRY, |queue| !queue.closing),
        );
    }

    /// The end has come and there is no room: perhaps in a moment.
    fn give_up(&mut self, mut error: Unwritten) -> io::Result<()> {
        let until = Instant::now() + LAST_WAIT;
        while let Unwritten::NoRoom(_) = error
            && Instant::now() < until
        {
            std::thread::sleep(RETRY / 4);
            match self.write() {
                Ok(()) => return Ok(()),
                Err(next) => error = next,
            }
        }
        let count = self
            .pending
            .iter()
            .filter(|entry| matches!(entry, Entry::Row(_)))
            .count();
        let (Unwritten::NoRoom(error) | Unwritten::Broken(error)) = error;
        let lost = match count {
            0 => "the totals could not be written".to_owned(),
            _ => format!("{count} events that were kept in memory are lost"),
        };
        Err(io::Error::other(format!("{lost}: {error}")))
    }
}
