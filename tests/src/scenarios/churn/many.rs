//! More tuples than anybody has: they fit, and what is beyond is summed.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::Ipv4Addr,
};

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;

use super::{
    super::{Session, sessions},
    watched::{in_new_namespace, namespace, number},
};
use crate::{
    bench::{self, Bench},
    contract,
    script::skip,
    sys::{
        sock::{Kind, Sock},
        task,
    },
};

pub(super) const ALL: &[Session] = sessions![churn_of_100000_tuples: once];

/// What a process's BPF maps are charged, bytes: `memlock` of their descriptors.
fn maps(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.trim().parse::<u64>().ok())
        };
        if value("map_type:").is_some() {
            sum += value("memlock:").context("no memlock of a map")?;
        }
    }
    ensure!(sum > 0, "no map");
    Ok(sum)
}

/// A hundred thousand connections that are refused, each to a port of its own, and twenty thousand more.
fn churn_of_100000_tuples(bench: &Bench) -> Result<()> {
    const ROOM: u64 = 100_000;
    const BEYOND: u64 = 20_000;
    const LIMIT: u64 = 64 << 20;
    if !bench.long {
        return skip("120,000 connections take a while: --long");
    }
    in_new_namespace(|netns| {
        // One interval for all, so that no row is taken back meanwhile; it is told at the end.
        let mut command = bench.command(["churn", "-v", "-o", "json", "--interval", "1h"]);
        let tuples = ROOM.to_string();
        let mut child = command
            .args(["--tuples", &tuples, "--attach", bench.backend.as_str()])
            .spawn()?;
        let mut said = BufReader::new(child.stderr.take().context("no pipe")?);
        let mut line = String::new();
        while !line.contains("counting") {
            line.clear();
            ensure!(said.read_line(&mut line)? > 0, "it does not start");
        }
        let charged = maps(child.id())?;
        ensure!(charged <= LIMIT, "{charged} bytes of maps");
        for index in 0..ROOM + BEYOND {
            let [.., third, fourth] = u32::try_from(index / 50_000 + 2)?.to_be_bytes();
            let address = Ipv4Addr::new(127, 1, third, fourth);
            let sock = Sock::new(Kind::Tcp4)?;
            let port = u16::try_from(index % 50_000 + 1)?;
            let refused = sock.connect(&(address, port).into());
            ensure!(refused == Err(Errno::ECONNREFUSED), "{index}: {refused:?}");
        }
        ensure!(maps(child.id())? == charged, "the maps have grown");
        task::signal(child.id(), libc::SIGTERM)?;
        let output = bench::ended(child)?;
        let line = contract::churn(String::from_utf8(output.stdout)?.trim())?;
        let told = namespace(&line, netns).context("nothing of the namespace")?;
        let taken = number(told, "total.taken.connect")?;
        ensure!(taken == ROOM + BEYOND, "{taken} taken");
        let pools = number(&line, "churn.pools_total")?;
        let summed = number(&line, "churn.others.taken")?;
        println!("{charged} bytes of maps; {pools} tuples told apart, {summed} connections summed");
        // A connection each; somebody else on this machine may have made some too.
        ensure!(
            (ROOM / 100 * 95..=ROOM).contains(&pools) && pools + summed >= ROOM + BEYOND,
            "{pools} tuples and {summed} in the sum"
        );
        ensure!(
            pools + summed <= ROOM + BEYOND + 100,
            "{pools} and {summed}"
        );
        Ok(())
    })
}
