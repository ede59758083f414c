//! Numbers that are known: taken, held, parked, given back.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::atomic::{AtomicUsize, Ordering},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{
    super::{Session, sessions},
    watched::{
        Churn, in_new_namespace, namespace, needs_releases, number, numbers, pools, sockstat_tw,
    },
};
use crate::{
    bench::Bench,
    expect::lookup,
    sys::{
        addr::Address,
        netns::sysctl,
        sock::{Kind, Sock},
    },
};

pub(super) const ALL: &[Session] = sessions![
    churn_counts_to_the_last_one,
    churn_finds_what_is_held_already,
    churn_names_who_left_a_time_wait,
    churn_tells_the_tail_in_sum,
    churn_remembers_one_port_of_many,
    churn_counts_once_what_two_threads_take,
];

pub(super) const LO: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

pub(super) fn listener(address: IpAddr, port: u16) -> Result<Sock> {
    let sock = Sock::new(if address.is_ipv4() {
        Kind::Tcp4
    } else {
        Kind::Tcp6
    })?;
    sock.bind(&(address, port).into())?;
    sock.listen(512)?;
    Ok(sock)
}

/// A connection to a listener; its own end, and the other.
pub(super) fn connected(server: &Sock) -> Result<(Sock, Sock)> {
    let address = server.local().context("no address")?;
    let near = Sock::new(if address.is_ipv4() {
        Kind::Tcp4
    } else {
        Kind::Tcp6
    })?;
    near.connect(&address.into())?;
    Ok((near, server.accept()?))
}

/// Many connections that the near side closes first, which keeps the TIME_WAIT.
pub(super) fn parked(server: &Sock, count: usize) -> Result<()> {
    for _ in 0..count {
        let (near, far) = connected(server)?;
        closed(near, &far)?;
    }
    Ok(())
}

/// Closes one end of a connection, until the other knows: were both closed at once, their FINs might cross, and both
/// would stay in TIME_WAIT.
fn closed(first: Sock, other: &Sock) -> Result<()> {
    drop(first);
    ensure!(other.receive()? == 0, "something was sent");
    Ok(())
}

fn bound(kind: Kind) -> Result<Sock> {
    let sock = Sock::new(kind)?;
    sock.bind(&(LO, 0).into())?;
    Ok(sock)
}

fn churn_counts_to_the_last_one(bench: &Bench) -> Result<()> {
    needs_releases(bench)?;
    in_new_namespace(|netns| {
        sysctl("ipv4/tcp_tw_reuse", "0")?;
        let mut churn = Churn::start(bench, &[])?;
        let server = listener(LO, 8080)?;
        let server6 = listener(IpAddr::V6(Ipv6Addr::LOCALHOST), 8080)?;
        parked(&server, 40)?;
        parked(&server6, 10)?;
        let open: Vec<_> = (0..6).map(|_| connected(&server)).collect::<Result<_>>()?;
        let binders: Vec<_> = (0..7).map(|_| bound(Kind::Tcp4)).collect::<Result<_>>()?;
        let datagrams: Vec<_> = (0..2).map(|_| bound(Kind::Udp4)).collect::<Result<_>>()?;
        let mut others = Vec::new();
        for _ in 0..3 {
            let sock = Sock::new(Kind::Tcp4)?;
            sock.listen(5)?;
            others.push(sock);
        }
        for at in 0..5 {
            let sock = Sock::new(Kind::Udp4)?;
            if at % 2 == 0 {
                sock.connect(&(LO, 9).into())?;
            } else {
                sock.send_to(&(LO, 9).into(), 0)?;
            }
            others.push(sock);
        }
        // Named, by their callers: none of these is automatic.
        let named = listener(LO, 8081)?;
        let own = Sock::new(Kind::Tcp4)?;
        own.bind(&(LO, 50_000).into())?;
        own.connect(&(LO, 8081).into())?;
        // bind() has given it the port: connect() takes no other.
        let both = bound(Kind::Tcp4)?;
        both.connect(&(LO, 8081).into())?;
        // A connection that is refused gives its port back.
        let refused = Sock::new(Kind::Tcp4)?;
        ensure!(
            refused.connect(&(LO, 1).into()).is_err(),
            "somebody listens on port 1"
        );
        let line = churn.settled()?;
        let told = namespace(&line, netns).context("nothing of the namespace")?;
        numbers(
            told,
            &[
                ("total.taken.connect", 57),
                ("total.taken.bind", 10),
                ("total.taken.listen", 3),
                ("total.taken.udp", 5),
                ("total.taken.total", 75),
                ("total.given", 1),
                ("total.failed", 0),
                ("total.time_wait.entered", 50),
                ("held.count", 74),
                ("held.waiting", 50),
                ("time_wait", 50),
            ],
        )?;
        ensure!(sockstat_tw()? == 50, "the kernel counts {}", sockstat_tw()?);
        let odd = number(told, "held.odd")? + number(told, "held.even")?;
        ensure!(odd == 74, "odd and even ones are {odd}");
        ensure!(
            number(told, "total.taken.odd")? <= 75,
            "more odd ones than ports"
        );
        drop((open, binders, datagrams, others, own, both, named, refused));
        let line = churn.settled()?;
        let told = namespace(&line, netns).context("nothing of the namespace")?;
        // Who has closed first of the six keeps the TIME_WAIT; so did the one that bind() gave a port, and the
        // one whose port was named, which is none of ours.
        let waiting = number(told, "held.waiting")?;
        ensure!(
            number(told, "held.count")? == waiting,
            "only TIME_WAIT holds ports now: {told}"
        );
        ensure!(
            number(told, "total.given")? + waiting == 75,
            "given back and waiting: {told}"
        );
        ensure!(
            number(told, "time_wait")? == sockstat_tw()?,
            "not as the kernel counts: {told}"
        );
        let entered = number(told, "total.time_wait.entered")?;
        let left = number(told, "total.time_wait.left")?;
        ensure!(
            entered - left == sockstat_tw()?,
            "{entered} entered, {left} left: {told}"
        );
        let searched = number(told, "total.taken.connect")?;
        ensure!(searched == 57, "{told}");
        let output = churn.stop()?;
        ensure!(output.status.success(), "{output:?}");
        Ok(())
    })
}

/// Sockets that are older than the look, bound ones and what is in TIME_WAIT too.
fn churn_finds_what_is_held_already(bench: &Bench) -> Result<()> {
    needs_releases(bench)?;
    in_new_namespace(|netns| {
        sysctl("ipv4/tcp_tw_reuse", "0")?;
        let server = listener(LO, 8080)?;
        parked(&server, 9)?;
        let open: Vec<_> = (0..4).map(|_| connected(&server)).collect::<Result<_>>()?;
        let binders: Vec<_> = (0..3).map(|_| bound(Kind::Tcp4)).collect::<Result<_>>()?;
        let datagrams: Vec<_> = (0..2).map(|_| bound(Kind::Udp4)).collect::<Result<_>>()?;
        let named = Sock::new(Kind::Udp4)?;
        named.bind(&(LO, 40_000).into())?;
        let mut churn = Churn::start(bench, &[])?;
        let line = churn.settled()?;
        let told = namespace(&line, netns).context("nothing of the namespace")?;
        numbers(
            told,
            &[
                ("held.count", 18),
                ("held.waiting", 9),
                ("time_wait", 9),
                ("total.taken.total", 0),
            ],
        )?;
        for (near, far) in open {
            closed(near, &far)?;
        }
        drop((binders, datagrams));
        let line = churn.settled()?;
        let told = namespace(&line, netns).context("nothing of the namespace")?;
        let waiting = number(told, "held.waiting")?;
        ensure!(number(told, "held.count")? == waiting, "{told}");
        ensure!(waiting == sockstat_tw()?, "{told}");
        Ok(())
    })
}

fn churn_names_who_left_a_time_wait(bench: &Bench) -> Result<()> {
    needs_releases(bench)?;
    in_new_namespace(|netns| {
        sysctl("ipv4/tcp_tw_reuse", "0")?;
        let server = listener(LO, 8080)?;
        let mut churn = Churn::start(bench, &[])?;
        let (pid, _, _) = crate::sys::task::fork_with(None, || {
            crate::sys::task::rename(b"parker")?;
            parked(&server, 12)
        })?;
        let line = churn.settled()?;
        let all = pools(&line, netns);
        let pool = all
            .iter()
            .find(|pool| lookup(pool, "scope").and_then(Value::as_str) == Some("tuple"))
            .context("no tuple")?;
        numbers(
            pool,
            &[("waiting", 12), ("held", 12), ("processes.0.waiting", 12)],
        )?;
        ensure!(
            lookup(pool, "processes.0.process.pid").and_then(Value::as_u64) == Some(pid.into())
                && lookup(pool, "processes.0.process.comm").and_then(Value::as_str)
                    == Some("parker"),
            "it is not named: {pool}"
        );
        ensure!(
            lookup(pool, "network.peer.port").and_then(Value::as_u64) == Some(8080),
            "{pool}"
        );
        Ok(())
    })
}

/// More tuples than there is room for are summed, and what is held is found again by a look.
fn churn_tells_the_tail_in_sum(bench: &Bench) -> Result<()> {
    needs_releases(bench)?;
    in_new_namespace(|netns| {
        sysctl("ipv4/tcp_tw_reuse", "0")?;
        let servers: Vec<Sock> = (8000..8040)
            .map(|port| listener(LO, port))
            .collect::<Result<_>>()?;
        let mut churn = Churn::start(bench, &["--tuples", "8"])?;
        let mut open = Vec::new();
        for server in &servers {
            open.push(connected(server)?);
        }
        // Each port is in one row, or in the sum.
        let (mut pooled, mut summed) = (0, 0);
        let line = churn.until("all is told", |line| {
            let taken = |one: &Value| number(one, "taken").unwrap_or_default();
            pooled += pools(line, netns).into_iter().map(taken).sum::<u64>();
            summed += number(line, "churn.others.taken").unwrap_or_default();
            pooled + summed >= 40
        })?;
        ensure!(
            pooled <= 8 && pooled + summed == 40,
            "{pooled} in pools and {summed} in the sum: {line}"
        );
        // What a namespace has is read before the rows are: some may have come in between.
        let all = |line: &Value| {
            namespace(line, netns)
                .is_some_and(|told| number(told, "total.taken.connect").is_ok_and(|all| all == 40))
        };
        if !all(&line) {
            churn.until("the namespace has them all", all)?;
        }
        let held: u64 = pools(&line, netns)
            .into_iter()
            .map(|pool| number(pool, "held").unwrap_or_default())
            .sum();
        // Those that there was no room to remember are told apart from it.
        let forgotten = number(&line, "churn.lost.forgotten")?;
        ensure!(
            forgotten > 0 && held + number(&line, "churn.others.held")? + forgotten == 40,
            "{held} held in pools: {line}"
        );
        churn.until("all sockets are looked at again", |line| {
            number(line, "churn.lost.looks").is_ok_and(|looks| looks > 0)
        })?;
        Ok(())
    })
}

/// Sockets with one port, each to another peer, more than there are places for a port: those beyond them enter
/// TIME_WAIT and are given back as the others are.
fn churn_remembers_one_port_of_many(bench: &Bench) -> Result<()> {
    const PEERS: u16 = 20;
    needs_releases(bench)?;
    in_new_namespace(|netns| {
        sysctl("ipv4/tcp_tw_reuse", "0")?;
        sysctl("ipv4/ip_local_port_range", "40000 40001")?;
        let servers: Vec<Sock> = (8000..8000 + PEERS)
            .map(|port| listener(LO, port))
            .collect::<Result<_>>()?;
        let mut churn = Churn::start(bench, &[])?;
        for server in &servers {
            parked(server, 1)?;
        }
        // The other of the two.
        let open: Vec<_> = servers.iter().map(connected).collect::<Result<_>>()?;
        let line = churn.settled()?;
        let told = namespace(&line, netns).context("nothing of the namespace")?;
        numbers(
            told,
            &[
                ("total.taken.connect", 40),
                ("total.given", 0),
                ("total.time_wait.entered", 20),
                ("held.count", 40),
                ("held.waiting", 20),
                ("held.odd", 20),
            ],
        )?;
        // The far ends first, so that they stay in TIME_WAIT, and the ports of these are given back.
        for (near, far) in open {
            closed(far, &near)?;
        }
        let line = churn.settled()?;
        let told = namespace(&line, netns).context("nothing of the namespace")?;
        numbers(
            told,
            &[
                ("total.given", 20),
                ("held.count", 20),
                ("held.waiting", 20),
                ("held.odd", 0),
            ],
        )?;
        ensure!(
            lookup(&line, "churn.lost.forgotten")
                .and_then(Value::as_u64)
                .unwrap_or_default()
                == 0,
            "some are forgotten: {line}"
        );
        Ok(())
    })
}

/// Two threads send through one socket that is not bound: both get it a port, and one of them is told that it has one
/// already. The socket is not locked any more when either returns.
fn churn_counts_once_what_two_threads_take(bench: &Bench) -> Result<()> {
    const SOCKETS: usize = 2000;
    needs_releases(bench)?;
    in_new_namespace(|netns| {
        let mut churn = Churn::start(bench, &[])?;
        let peer = Sock::new(Kind::Udp4)?;
        peer.bind(&(LO, 7).into())?;
        let peer = Address::from(peer.local().context("no address")?);
        for _ in 0..SOCKETS / 100 {
            let sockets = (0..100)
                .map(|_| Sock::new(Kind::Udp4))
                .collect::<Result<Vec<_>, _>>()?;
            let copies = sockets
                .iter()
                .map(Sock::copy)
                .collect::<Result<Vec<_>, _>>()?;
            let here = AtomicUsize::new(0);
            std::thread::scope(|scope| {
                let other = scope.spawn(|| all_send(copies, &peer, &here));
                let own = all_send(sockets, &peer, &here);
                match other.join() {
                    Ok(sent) => sent.and(own),
                    Err(_) => bail!("a thread panicked"),
                }
            })?;
        }
        let line = churn.settled()?;
        let told = namespace(&line, netns).context("nothing of the namespace")?;
        let count = SOCKETS as u64;
        numbers(
            told,
            &[
                ("total.taken.udp", count),
                ("total.given", count),
                ("held.count", 0),
            ],
        )
    })
}

/// Sends through each of them when another thread does so too.
fn all_send(sockets: Vec<Sock>, peer: &Address, here: &AtomicUsize) -> Result<()> {
    for (index, sock) in sockets.iter().enumerate() {
        here.fetch_add(1, Ordering::AcqRel);
        while here.load(Ordering::Acquire) < 2 * (index + 1) {
            std::hint::spin_loop();
        }
        if let Err(errno) = sock.send_to(peer, 0) {
            // Nobody is to wait for this one.
            here.store(2 * sockets.len(), Ordering::Release);
            bail!("send: {errno}");
        }
    }
    Ok(())
}
