//! Conflicts, those of one kind together, and whether they were resolved.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    num::NonZeroUsize,
    time::Duration,
};

use lru::LruCache;

use crate::event::{Errno, Kind, Op, Outcome, Overlap, Reason, Time, Transport};

use super::{
    Fact, WhoId,
    tally::{Counted, Tally, bounded},
};

/// Conflicts that a person takes for one that happens again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) op: Op,
    pub(super) errno: Errno,
    pub(super) transport: Transport,
    /// Of a port that the kernel was to choose there is none.
    pub(super) port: Option<u16>,
    pub(super) loser: WhoId,
    pub(super) holder: Option<WhoId>,
    pub(super) kind: Kind,
    pub(super) overlap: Option<Overlap>,
    pub(super) reason: Option<Reason>,
}

/// All of a kind.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) tally: Tally,
    pub(super) address: Option<IpAddr>,
    pub(super) message: String,
    pub(super) hint: Option<String>,
    /// Processes that were refused, as far as they are counted.
    pids: HashSet<u32>,
    /// How often, and how long it took the last time.
    pub(super) resolved: Option<(u64, Option<Duration>)>,
    /// There is one that was not.
    pub(super) is_open: bool,
}

impl Counted for Group {
    fn count(&self) -> u64 {
        self.tally.count
    }
}

impl Key {
    /// Whether it can be seen that the loser gets the port in the end: it has to ask for the same again.
    pub(super) fn can_be_resolved(&self) -> bool {
        self.port.is_some() && matches!(self.op, Op::Bind | Op::Listen)
    }
}

/// Processes of a group that are told apart.
const PIDS: usize = 100_000;

impl Group {
    pub(super) fn restarts(&self) -> usize {
        self.pids.len()
    }
}

/// A port that a program wants and has not got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Wanted {
    netns: Option<u32>,
    transport: Transport,
    address: Option<IpAddr>,
    port: u16,
    program: u64,
}

/// What is known of it.
#[derive(Debug)]
struct Open {
    since: Time,
    /// The groups it is of.
    keys: Vec<Key>,
    /// Who was refused the last time, and who had it.
    loser: u32,
    holder: Option<u32>,
}

/// All conflicts so far.
#[derive(Debug)]
pub(super) struct Conflicts {
    pub(super) groups: HashMap<Key, Group>,
    open: LruCache<Wanted, Open>,
}

/// Ports that programs want at one time, of those that were refused last.
const OPEN: NonZeroUsize = NonZeroUsize::MIN.saturating_add(19_999);

impl Default for Conflicts {
    fn default() -> Self {
        Self {
            groups: HashMap::new(),
            open: LruCache::new(OPEN),
        }
    }
}

impl Conflicts {
    /// A call was refused; `gone` counts conflicts that go from the table for it.
    pub(super) fn failed(&mut self, fact: &Fact<'_>, gone: &mut u64) {
        let (Some(cause), Outcome::Failure(errno)) = (&fact.cause, fact.outcome) else {
            return;
        };
        let key = Key {
            op: fact.op,
            errno,
            transport: fact.transport,
            port: fact.port.filter(|_| !fact.auto_port),
            loser: fact.who,
            holder: cause.holder,
            kind: cause.kind,
            overlap: cause.overlap,
            reason: cause.reason,
        };
        let group = bounded(&mut self.groups, key, gone);
        group.tally.note(fact.time);
        group.address = fact.address;
        // The words of the last: they say how it stands.
        cause.message.clone_into(&mut group.message);
        group.hint = cause.hint.map(str::to_owned);
        if group.pids.len() < PIDS {
            group.pids.insert(fact.pid);
        }
        group.is_open = true;
        let Some(wanted) = wanted(fact) else {
            return;
        };
        let open = self.open.get_or_insert_mut(wanted, || Open {
            since: fact.time,
            keys: Vec::new(),
            loser: fact.pid,
            holder: None,
        });
        open.loser = fact.pid;
        open.holder = cause.holder_pid;
        if !open.keys.contains(&key) {
            open.keys.push(key);
        }
    }

    /// A program has got what it may have been refused before.
    pub(super) fn worked(&mut self, fact: &Fact<'_>) {
        if self.open.is_empty() {
            return;
        }
        let Some(wanted) = wanted(fact) else {
            return;
        };
        // Where several processes run one program, the one that had it all the time resolves nothing.
        let is_holder = |open: &Open| open.holder == Some(fact.pid) && open.loser != fact.pid;
        if self.open.peek(&wanted).is_none_or(is_holder) {
            return;
        }
        let Some(Open { since, keys, .. }) = self.open.pop(&wanted) else {
            return;
        };
        for key in keys {
            if let Some(group) = self.groups.get_mut(&key) {
                let (count, _) = group.resolved.unwrap_or_default();
                group.resolved = Some((count + 1, between(since, fact.time)));
                group.is_open = false;
            }
        }
    }
}

fn wanted(fact: &Fact<'_>) -> Option<Wanted> {
    Some(Wanted {
        netns: fact.netns,
        transport: fact.transport,
        address: fact.address,
        port: fact.port?,
        program: fact.program,
    })
}

/// How long it took from one moment to a later one. The kernel's clock knows it, unless the machine was
/// started anew between them; the calendar does, unless it was set back.
pub(super) fn between(from: Time, to: Time) -> Option<Duration> {
    let by_calendar = Duration::try_from(to.utc.duration_since(from.utc)).ok();
    match to.boot.checked_sub(from.boot).map(Duration::from_nanos) {
        // Started anew, the kernel's clock may be ahead by chance: the calendar knows better then.
        Some(by_kernel) if by_calendar.is_none_or(|other| other.abs_diff(by_kernel) < HOUR) => {
            Some(by_kernel)
        }
        _ => by_calendar,
    }
}

const HOUR: Duration = Duration::from_secs(3600);
