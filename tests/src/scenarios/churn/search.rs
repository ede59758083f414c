//! What a search for a port costs, and in which half it ends.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{
    super::{Session, sessions},
    totals::{LO, connected, listener},
    watched::{Churn, in_new_namespace, namespace, needs_releases, number, numbers, pools},
};
use crate::{
    bench::Bench,
    sys::{
        netns::{Netns, sysctl},
        sock::{Kind, Sock},
    },
};

pub(super) const ALL: &[Session] = sessions![churn_tells_how_long_it_searched];

/// How many connections are made to know what a search takes.
const SEARCHES: usize = 10;

/// p50 and p99 of the searches for this many connections, ns.
fn searched(
    churn: &mut Churn,
    netns: &Netns,
    server: &Sock,
    open: &mut Vec<(Sock, Sock)>,
) -> Result<(u64, u64)> {
    // Whatever was before is in an interval that is over.
    churn.settled()?;
    for _ in 0..SEARCHES {
        open.push(connected(server)?);
    }
    let mut told = None;
    churn.until("the searches are told", |line| {
        let Some(one) = namespace(line, netns) else {
            return false;
        };
        // Of two intervals, if the connections fall into two, the one that is told last.
        if let (Ok(middle), Ok(most)) = (number(one, "searched.p50"), number(one, "searched.p99")) {
            told = Some((middle, most));
        }
        told.is_some() && number(one, "now.taken.connect").is_ok_and(|taken| taken == 0)
    })?;
    told.context("no search is told")
}

/// A thousand ports, of which one half is taken: each connect() goes through that before it finds one in the other.
fn churn_tells_how_long_it_searched(bench: &Bench) -> Result<()> {
    needs_releases(bench)?;
    in_new_namespace(|netns| {
        sysctl("ipv4/ip_local_port_range", "40000 40999")?;
        let server = listener(LO, 8080)?;
        let mut churn = Churn::start(bench, &["--top", "100"])?;
        let mut open = Vec::new();
        let before = searched(&mut churn, netns, &server, &mut open)?;
        let line = churn.settled()?;
        let pool = tuple(&line, netns)?;
        // As long as there are enough, all are of one half.
        numbers(
            pool,
            &[
                ("halves.even.held", SEARCHES as u64),
                ("halves.even.available", 500),
                ("halves.odd.held", 0),
                ("halves.odd.available", 500),
            ],
        )?;
        // What the connections have cannot be bound, and is passed over all the same.
        let bound: Vec<_> = (40_000..41_000)
            .step_by(2)
            .filter_map(|port| {
                let sock = Sock::new(Kind::Tcp4).ok()?;
                sock.bind(&(LO, port).into()).ok()?;
                Some(sock)
            })
            .collect();
        ensure!(bound.len() >= 480, "only {} bound", bound.len());
        let after = searched(&mut churn, netns, &server, &mut open)?;
        let line = churn.settled()?;
        numbers(
            tuple(&line, netns)?,
            &[
                ("halves.even.held", SEARCHES as u64),
                ("halves.odd.held", SEARCHES as u64),
            ],
        )?;
        // Of ten searches the slowest may have been disturbed, with ports bound or without.
        ensure!(
            after.0 > 2 * before.0 && after.1 >= after.0,
            "{after:?} ns with {} ports bound, {before:?} ns without",
            bound.len()
        );
        Ok(())
    })
}

fn tuple<'a>(line: &'a Value, netns: &Netns) -> Result<&'a Value> {
    pools(line, netns)
        .into_iter()
        .find(|pool| pool.get("scope").and_then(Value::as_str) == Some("tuple"))
        .context("no tuple")
}
