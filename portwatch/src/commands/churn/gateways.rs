//! Network namespaces that track connections, and what NAT has taken there.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{
    churn::nat::{Accounts, Hidden, Nat, Tracked},
    enrich::{conntrack, netns},
    sockets::namespaces,
};

/// A gateway need not have a port of its own, so all namespaces are looked at: not each time, because each costs a
/// thread.
const SEARCHED: Duration = Duration::from_secs(5);

/// Gateways that are looked at.
const LIMIT: usize = 64;

/// What all of them may take, at least; else a half of the interval.
const PATIENCE: Duration = Duration::from_millis(500);

/// Those that are known.
#[derive(Default)]
pub(super) struct Gateways {
    ways: BTreeMap<u32, Option<PathBuf>>,
    searched: Option<Instant>,
    closed: usize,
    accounts: Accounts,
}

/// What came of a visit.
type Visit = Option<(Tracked, Result<(), Hidden>)>;

impl Gateways {
    /// Looks at all; `None` where no source is translated, as far as that is known.
    pub(super) fn look(&mut self, interval: Duration, top: usize) -> Option<Nat> {
        let is_due = self.searched.is_none_or(|time| time.elapsed() >= SEARCHED);
        if is_due {
            self.searched = Some(Instant::now());
            self.search();
        }
        let mut tracked = Vec::new();
        let deadline = Instant::now() + PATIENCE.max(interval / 2);
        let mut hidden = (self.closed > 0).then_some(Hidden::Closed(self.closed));
        let ways = self.ways.clone();
        let beyond = ways.len().saturating_sub(LIMIT);
        if beyond > 0 {
            hidden = Some(Hidden::TooMany(beyond));
        }
        for (inode, way) in ways.into_iter().take(LIMIT) {
            match visit(inode, way.as_deref(), deadline) {
                Some((one, told)) => {
                    hidden = told.err().or(hidden);
                    tracked.push(one);
                }
                None => {
                    // Perhaps there is another way.
                    self.ways.remove(&inode);
                    self.searched = None;
                }
            }
        }
        let nat = self.accounts.update(&tracked, hidden, interval, top);
        (!nat.gateways.is_empty() || nat.hidden.is_some()).then_some(nat)
    }

    /// Finds those that track connections.
    fn search(&mut self) {
        let own = namespaces::own().map(|own| (own, None));
        let (others, _) = namespaces::ways();
        let others = others.into_iter().map(|(inode, way)| (inode, Some(way)));
        let known = std::mem::take(&mut self.ways);
        self.closed = 0;
        for (inode, way) in own.into_iter().chain(others) {
            match inside(inode, way.as_deref(), is_tracking) {
                Ok(tracks) => {
                    // One that has nothing left begins no new account when it has again.
                    if tracks || known.contains_key(&inode) {
                        self.ways.insert(inode, way);
                    }
                }
                Err(Closed::NotPermitted) => self.closed += 1,
                Err(Closed::Gone) => {}
            }
        }
    }
}

/// Why a namespace was not entered.
enum Closed {
    /// It cannot be entered.
    NotPermitted,
    /// It is another one, or none any more.
    Gone,
}

/// Does something in a namespace; in our own where no way is needed.
fn inside<T: Send + 'static>(
    inode: u32,
    way: Option<&Path>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Closed> {
    let Some(way) = way else {
        return Ok(work());
    };
    let file = netns::open_if(way, inode).ok_or(Closed::Gone)?;
    netns::run_inside(file, work).ok_or(Closed::NotPermitted)
}

fn visit(inode: u32, way: Option<&Path>, deadline: Instant) -> Visit {
    inside(inode, way, move || read(inode, deadline))
        .ok()
        .flatten()
}

/// Whether there are connections that the kernel tracks. Where there are none, nothing is asked: the first question
/// would make the kernel load what answers it (net/netfilter/nfnetlink.c, `request_module`).
fn is_tracking() -> bool {
    number("nf_conntrack_count").is_some_and(|count| count > 0)
}

fn read(netns: u32, deadline: Instant) -> Visit {
    let count = number("nf_conntrack_count")?;
    let mut tracked = Tracked {
        netns,
        count,
        limit: number("nf_conntrack_max"),
        time_wait: number("nf_conntrack_tcp_timeout_time_wait").map(Duration::from_secs),
        ..Tracked::default()
    };
    let mut ask = || -> io::Result<()> {
        let mut translated = Vec::new();
        if !conntrack::translated(deadline, |one| translated.push(one))? {
            return Err(io::ErrorKind::TimedOut.into());
        }
        tracked.translated = Some(translated);
        tracked.failed = Some(conntrack::failed(deadline)?);
        Ok(())
    };
    let told = ask().map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => Hidden::NotPermitted,
        _ => Hidden::NotAnswered,
    });
    Some((tracked, told))
}

/// A variable of the namespace that the calling thread is in.
fn number(name: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/sys/net/netfilter/{name}")).ok()?;
    text.trim().parse().ok()
}
