//! The sums, in order.

use std::{cmp::Reverse, net::IpAddr, time::Duration};

use crate::event::{Errno, Hazard, Kind, LostReason, Op, Overlap, Reason, Time, Transport, Word};

use super::{
    Alarming, Failed, Kept, Scope, Summary, Who,
    conflicts::{Group, Key, between},
    gaps::Pause,
    tally::Tally,
};

/// What there was altogether.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Events.
    pub events: u64,
    /// Failures among them.
    pub failures: u64,
    /// Conflicts among those.
    pub conflicts: u64,
    /// The first and the last.
    pub span: Option<(Time, Time)>,
}

impl Seen {
    pub(super) fn note(&mut self, time: Time, is_failure: bool, is_conflict: bool) {
        self.events += 1;
        self.failures += u64::from(is_failure);
        self.conflicts += u64::from(is_failure && is_conflict);
        self.span = Some((self.span.map_or(time, |(first, _)| first), time));
    }
}

/// A stream, summed up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Name of the host.
    pub host: Option<String>,
    /// What there was altogether.
    pub seen: Seen,
    /// What was to be summed up.
    pub scope: Scope,
    /// Starts of the recorder.
    pub runs: u64,
    /// What was kept of what happened.
    pub kept: Kept,
    /// The last sign of life of a recorder that has not ended: it is at work, or was killed.
    pub unended: Option<Time>,
    /// Those that are not resolved first, then by their number.
    pub conflicts: Vec<ConflictGroup>,
    /// Warnings, most frequent first.
    pub warnings: Vec<WarningGroup>,
    /// Other failures, most frequent first.
    pub failures: Vec<FailureGroup>,
    /// Ports that were taken most often; `None` where not everything was kept.
    pub turnover: Option<Vec<Turnover>>,
    /// Programs to which the kernel gave most ports; likewise.
    pub automatic: Option<Vec<Automatic>>,
    /// Times in which nobody recorded, the last first.
    pub gaps: Vec<Gap>,
    /// What was lost.
    pub lost: Vec<Loss>,
    /// Groups of each list above, from conflicts to gaps, that are not in it.
    pub more: [u64; 6],
    /// Events of groups for which there was no room.
    pub unnamed: u64,
}

/// Conflicts of one kind.
#[derive(Clone, Debug, PartialEq)]
pub struct ConflictGroup {
    /// What was refused.
    pub op: Op,
    /// How.
    pub errno: Errno,
    /// Transport.
    pub transport: Transport,
    /// The address asked for the last time.
    pub address: Option<IpAddr>,
    /// The port; `None` where the kernel was to choose it.
    pub port: Option<u16>,
    /// Who was refused.
    pub loser: Who,
    /// Who was in the way.
    pub holder: Option<Who>,
    /// What was.
    pub kind: Kind,
    /// How the addresses overlap.
    pub overlap: Option<Overlap>,
    /// By which rule they do not share.
    pub reason: Option<Reason>,
    /// How often.
    pub count: u64,
    /// First time.
    pub first: Time,
    /// Last time.
    pub last: Time,
    /// The words of the last time.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Whether it could be seen that the loser gets the port in the end.
    pub resolvable: bool,
    /// That it did.
    pub resolution: Option<Resolution>,
    /// The loser was started again and again.
    pub flapping: Option<Flapping>,
}

/// The loser got the port in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// How often; it may be refused again after that.
    pub times: u64,
    /// How long it took from the first failure on, the last time.
    pub took: Option<Duration>,
    /// It has been refused since, and not got it.
    pub open_again: bool,
}

/// A program that is started again and again, and refused each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flapping {
    /// Processes that were refused.
    pub processes: u64,
    /// Time from one to the next, on average.
    pub every: Option<Duration>,
}

/// Warnings of one kind.
#[derive(Clone, Debug, PartialEq)]
pub struct WarningGroup {
    /// What it is.
    pub hazard: Hazard,
    /// Transport.
    pub transport: Transport,
    /// The port, where the program chose it.
    pub port: Option<u16>,
    /// Who does that.
    pub who: Who,
    /// How often.
    pub count: u64,
    /// First time.
    pub first: Time,
    /// Last time.
    pub last: Time,
    /// The words of the last time.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Failures of one kind that are no conflicts.
#[derive(Clone, Debug, PartialEq)]
pub struct FailureGroup {
    /// What failed.
    pub op: Op,
    /// How.
    pub errno: Errno,
    /// Transport.
    pub transport: Transport,
    /// Of a connect the peer's, else the local one.
    pub address: Option<IpAddr>,
    /// Likewise.
    pub port: Option<u16>,
    /// Who failed.
    pub who: Who,
    /// How often.
    pub count: u64,
    /// First time.
    pub first: Time,
    /// Last time.
    pub last: Time,
}

/// How often a port was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turnover {
    /// Transport.
    pub transport: Transport,
    /// Port.
    pub port: u16,
    /// How often.
    pub count: u64,
}

/// How many ports the kernel gave to a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Automatic {
    /// The program.
    pub who: Who,
    /// How many.
    pub count: u64,
}

/// A time in which nobody recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The last sign of life before it.
    pub from: Time,
    /// The start after it.
    pub to: Time,
    /// The recorder had not ended by itself.
    pub killed: bool,
}

/// What was lost for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Why.
    pub reason: LostReason,
    /// How many events.
    pub count: u64,
    /// First time.
    pub first: Time,
    /// Last time.
    pub last: Time,
}

/// Processes from which on a program is said to be started again and again.
const FLAPPING: usize = 3;

/// Processes that follow each other faster on average are those of one start, its workers.
const TOGETHER: Duration = Duration::from_millis(100);

pub(super) fn finish(summary: Summary, top: usize) -> Report {
    let Summary {
        scope,
        names,
        seen,
        conflicts,
        warnings,
        failures,
        taken,
        automatic,
        gaps,
        unnamed,
    } = summary;
    let mut conflicts: Vec<ConflictGroup> = conflicts
        .groups
        .into_iter()
        .filter_map(|(key, group)| conflict(key, group, |id| names.get(id)))
        .collect();
    // Down to the last difference, so that the same events always give the same report.
    conflicts.sort_by_cached_key(|group| {
        let is_settled = match group.resolution {
            Some(one) if !one.open_again => 2,
            None if !group.resolvable => 1,
            _ => 0,
        };
        let what = (group.port, group.transport.word(), group.op, group.errno.0);
        let who = (group.loser.clone(), group.holder.clone());
        let rule = (
            group.kind,
            group.overlap.map(Word::word),
            group.reason.map(Word::word),
        );
        (is_settled, Reverse(group.count), what, who, rule)
    });
    let mut warnings: Vec<WarningGroup> = warnings
        .into_iter()
        .filter_map(|(key, (tally, message, hint))| {
            let Alarming {
                hazard,
                transport,
                port,
                who,
            } = key;
            let (first, last) = tally.span?;
            Some(WarningGroup {
                hazard,
                transport,
                port,
                who: names.get(who),
                count: tally.count,
                first,
                last,
                message,
                hint,
            })
        })
        .collect();
    warnings.sort_by_cached_key(|group| {
        let what = (group.hazard, group.port, group.transport.word());
        (Reverse(group.count), what, group.who.clone())
    });
    let mut failures: Vec<FailureGroup> = failures
        .into_iter()
        .filter_map(|(key, tally)| failure(key, tally, |id| names.get(id)))
        .collect();
    failures.sort_by_cached_key(|group| {
        let place = (group.port, group.address, group.transport.word());
        let what = (group.op, group.errno.0);
        (Reverse(group.count), place, what, group.who.clone())
    });
    let mut turnover: Vec<Turnover> = Transport::WORDS
        .iter()
        .flat_map(|&transport| {
            let counts = (0u16..=u16::MAX).zip(&taken[super::place(transport)]);
            // Once is no turnover.
            counts
                .filter(|(_, count)| **count > 1)
                .map(move |(port, count)| Turnover {
                    transport,
                    port,
                    count: u64::from(*count),
                })
        })
        .collect();
    turnover.sort_by_key(|one| Reverse(one.count));
    let mut automatic: Vec<Automatic> = automatic
        .into_iter()
        .map(|(who, count)| Automatic {
            who: names.get(who),
            count,
        })
        .collect();
    automatic.sort_by_cached_key(|one| (Reverse(one.count), one.who.clone()));
    let mut pauses: Vec<Gap> = gaps
        .pauses
        .iter()
        .rev()
        .map(|&Pause { from, to, killed }| Gap { from, to, killed })
        .collect();
    let mut lost: Vec<Loss> = gaps
        .lost
        .iter()
        .filter_map(|(reason, (tally, count))| {
            let (first, last) = tally.span?;
            Some(Loss {
                reason: *reason,
                count: *count,
                first,
                last,
            })
        })
        .collect();
    lost.sort_by_key(|loss| (Reverse(loss.count), loss.reason.word()));
    let unended = gaps.unended(scope.until);
    let is_whole = gaps.kept.least.is_none();
    let more = [
        cut(&mut conflicts, top),
        cut(&mut warnings, top),
        cut(&mut failures, top),
        cut(&mut turnover, top),
        cut(&mut automatic, top),
        cut(&mut pauses, top) + gaps.more_pauses,
    ];
    Report {
        host: gaps.host,
        seen,
        scope,
        runs: gaps.runs,
        kept: gaps.kept,
        unended,
        conflicts,
        warnings,
        failures,
        turnover: is_whole.then_some(turnover),
        automatic: is_whole.then_some(automatic),
        gaps: pauses,
        lost,
        more,
        unnamed,
    }
}

/// Leaves the first `top`; the value is how many went.
fn cut<T>(list: &mut Vec<T>, top: usize) -> u64 {
    let more = list.len().saturating_sub(top);
    list.truncate(top);
    more as u64
}

fn conflict(key: Key, group: Group, name: impl Fn(super::WhoId) -> Who) -> Option<ConflictGroup> {
    let restarts = group.restarts();
    let Key {
        op,
        errno,
        transport,
        port,
        loser,
        holder,
        kind,
        overlap,
        reason,
    } = key;
    let Group {
        tally,
        address,
        message,
        hint,
        resolved,
        is_open,
        ..
    } = group;
    let (first, last) = tally.span?;
    let every = between(first, last)
        .zip(u32::try_from(restarts.saturating_sub(1)).ok())
        .and_then(|(time, steps)| time.checked_div(steps));
    let is_flapping = restarts >= FLAPPING && every.is_none_or(|every| every >= TOGETHER);
    let flapping = is_flapping.then_some(Flapping {
        processes: restarts as u64,
        every,
    });
    Some(ConflictGroup {
        op,
        errno,
        transport,
        address,
        port,
        loser: name(loser),
        holder: holder.map(name),
        kind,
        overlap,
        reason,
        count: tally.count,
        first,
        last,
        message,
        hint,
        resolvable: key.can_be_resolved(),
        resolution: resolved.map(|(times, took)| Resolution {
            times,
            took,
            open_again: is_open,
        }),
        flapping,
    })
}

fn failure(key: Failed, tally: Tally, name: impl Fn(super::WhoId) -> Who) -> Option<FailureGroup> {
    let Failed {
        op,
        errno,
        transport,
        address,
        port,
        who,
    } = key;
    let (first, last) = tally.span?;
    Some(FailureGroup {
        op,
        errno,
        transport,
        address,
        port,
        who: name(who),
        count: tally.count,
        first,
        last,
    })
}
