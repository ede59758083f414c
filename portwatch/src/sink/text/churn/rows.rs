//! Lines of pools, groups and failures.

use std::{net::SocketAddr, time::Duration};

use super::numbers::rate;
use crate::{
    churn::{
        causes::outlook,
        figures::{Failure, Group, GroupName, Halves, Pool, Use, Who},
    },
    conflict::words::phrase::thousands,
    errno,
};

fn called(who: &Who) -> String {
    let name = who.comm.as_deref().unwrap_or("a process that is not known");
    let container = who.container.as_deref().map_or_else(String::new, |id| {
        format!(" in {}", id.get(..12).unwrap_or(id))
    });
    match who.pid {
        Some(pid) => format!("{name} (pid {pid}){container}"),
        None => format!("{name}{container}"),
    }
}

fn numbers(used: &str, of: &str, one: &Use, interval: Duration, sees: bool) -> String {
    let waiting = if sees {
        thousands(one.waiting)
    } else {
        "-".to_owned()
    };
    format!(
        "{used:>7} {of:>7} {waiting:>9} {:>8} {:>7}",
        rate(one.taken, interval),
        thousands(one.failed)
    )
}

pub(super) fn pool(pool: &Pool, interval: Duration, sees: bool) -> Vec<String> {
    let used = if sees {
        thousands(pool.used())
    } else {
        "-".to_owned()
    };
    let of = pool.available.map_or_else(|| "-".to_owned(), thousands);
    let ends = match pool.peer {
        Some((address, port)) => format!("{} → {}", pool.local, SocketAddr::new(address, port)),
        None => pool.local.to_string(),
    };
    let whose: Vec<String> = pool
        .shares
        .iter()
        .take(2)
        .map(|(who, _)| called(who))
        .collect();
    let more = pool.processes.saturating_sub(whose.len());
    let more = if more > 0 {
        format!(" and {} more", thousands(more as u64))
    } else {
        String::new()
    };
    let mut lines = vec![format!(
        "{}  {} {ends}  {}{more}",
        numbers(&used, &of, &pool.total, interval, sees),
        pool.transport.as_str(),
        whose.join(", ")
    )];
    lines.extend(outlook(pool).map(|words| format!("        {words}")));
    lines.extend(pool.halves.as_ref().and_then(halves));
    lines
}

/// Worth a line once one is filled by more than half.
fn halves(halves: &Halves) -> Option<String> {
    let Halves { odd, even } = halves;
    let (odd, even) = (odd.share()?, even.share()?);
    (odd.max(even) > 0.5).then(|| {
        format!(
            "        of the odd ports {:.0} % are held, of the even ones {:.0} %",
            odd * 100.0,
            even * 100.0
        )
    })
}

pub(super) fn group(group: &Group, interval: Duration, sees: bool) -> String {
    let held = if sees {
        thousands(group.total.held)
    } else {
        "-".to_owned()
    };
    let name = match &group.name {
        GroupName::Process(who, processes) if *processes > 1 => {
            format!("{}, {} processes", called(who), thousands(*processes))
        }
        GroupName::Process(who, _) => called(who),
        GroupName::Destination(Some((address, port))) => {
            SocketAddr::new(*address, *port).to_string()
        }
        GroupName::Destination(None) => "no peer of its own (bind, listen, UDP)".to_owned(),
        GroupName::Source(address) => address.to_string(),
        GroupName::Netns(netns) => netns.to_string(),
        GroupName::Container(Some(id)) => id.clone(),
        GroupName::Container(None) => "outside of containers".to_owned(),
    };
    format!(
        "{}  {name}",
        numbers(&held, "", &group.total, interval, sees)
    )
}

pub(super) fn failure(failure: &Failure) -> Vec<String> {
    let Failure {
        pool: _,
        who,
        errno,
        now,
        total,
        cause,
    } = failure;
    let name = errno::name(*errno).map_or_else(|| errno.0.to_string(), str::to_owned);
    let mut lines = vec![format!(
        "{} of {}: {} now, {} in all: {}",
        name,
        called(who),
        thousands(*now),
        thousands(*total),
        cause.message
    )];
    lines.extend(cause.hint.as_ref().map(|hint| format!("  hint: {hint}")));
    lines
}
