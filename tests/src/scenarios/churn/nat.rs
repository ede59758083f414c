//! A gateway that translates source ports, between a client and a server in network namespaces of their own.

use std::{
    net::Ipv4Addr,
    ops::RangeInclusive,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use serde_json::Value;

use super::{
    super::{
        Session,
        privilege::{LOADING, TELLING, helper, portwatch_as_nobody},
        sessions,
    },
    totals::listener,
    watched::{Churn, number, numbers},
};
use crate::{
    bench::Bench,
    contract,
    expect::lookup,
    script::skip,
    sys::{
        netlink,
        netns::{Netns, link_index, link_up, sysctl},
        nftables,
        sock::{Kind, Sock},
    },
};

pub(super) const ALL: &[Session] = sessions![
    churn_nat_of_a_gateway: each_kernel,
    churn_nat_has_no_port_left: each_kernel,
    churn_nat_needs_net_admin: once,
];

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);
const OTHER_CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 3);
const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 1);
const EXTERNAL: Ipv4Addr = Ipv4Addr::new(10, 77, 2, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 2, 2);

/// Client, gateway and server.
struct Network {
    gateway: Netns,
    /// A process there, without which nothing leads to it.
    resident: Child,
    client: Netns,
    server: Sock,
}

/// In a network of its own, whatever comes of it; with those ports for the external address, or what the kernel
/// chooses.
fn in_network(
    ports: Option<RangeInclusive<u16>>,
    act: impl FnOnce(&Network) -> Result<()>,
) -> Result<()> {
    let home = Netns::current()?;
    let done = Network::new(ports).and_then(|network| act(&network));
    home.enter()?;
    done
}

impl Network {
    fn new(ports: Option<RangeInclusive<u16>>) -> Result<Self> {
        let (client, gateway, server) = (Netns::new()?, Netns::new()?, Netns::new()?);
        gateway.enter()?;
        if let Err(error) = netlink::add_veth("in", "client") {
            return skip(format!("no veth devices ({error:?})"));
        }
        netlink::add_veth("out", "server")?;
        netlink::move_link(link_index("client")?, &client)?;
        netlink::move_link(link_index("server")?, &server)?;
        for (device, address) in [("in", INSIDE), ("out", EXTERNAL)] {
            netlink::add_address(link_index(device)?, address.into(), 24)?;
            link_up(device)?;
        }
        sysctl("ipv4/ip_forward", "1")?;
        let mut resident = Command::new(Bench::own_program()?);
        resident.args(["helper", "idle"]).stdin(Stdio::piped());
        match nftables::masquerade(ports) {
            Ok(()) => {}
            // What answers, or a part of the rule, is not there.
            Err(
                error @ (Errno::ENOENT
                | Errno::EOPNOTSUPP
                | Errno::EPROTONOSUPPORT
                | Errno::EINVAL
                | Errno::EAFNOSUPPORT),
            ) => return skip(format!("no NAT on this kernel ({error:?})")),
            Err(error) => return Err(error).context("cannot set the rule"),
        }
        client.enter()?;
        for address in [CLIENT, OTHER_CLIENT] {
            netlink::add_address(link_index("client")?, address.into(), 24)?;
        }
        link_up("client")?;
        netlink::add_gateway(Ipv4Addr::UNSPECIFIED.into(), 0, INSIDE.into())?;
        server.enter()?;
        netlink::add_address(link_index("server")?, SERVER.into(), 24)?;
        link_up("server")?;
        let server = listener(SERVER.into(), 8080)?;
        gateway.enter()?;
        let resident = resident.spawn()?;
        Ok(Self {
            gateway,
            resident,
            client,
            server,
        })
    }

    /// A connection of the client: its own end, and the server's.
    fn connect(&self, source: Ipv4Addr, port: u16) -> Result<(Sock, Sock)> {
        self.client.enter()?;
        let near = Sock::new(Kind::Tcp4)?;
        near.bind(&(source, port).into())?;
        near.connect(&(SERVER, 8080).into())?;
        let far = self.server.accept()?;
        ensure!(
            far.peer().is_some_and(|peer| peer.ip() == EXTERNAL),
            "not translated: {:?}",
            far.peer()
        );
        Ok((near, far))
    }

    fn pool<'a>(&self, line: &'a Value) -> Option<&'a Value> {
        let pools = lookup(line, "churn.nat.pools")?.as_array()?;
        let mut own = pools.iter().filter(|pool| {
            number(pool, "socket.netns").is_ok_and(|netns| netns == self.gateway.inode)
        });
        own.next()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        drop(self.resident.stdin.take());
        // It ends with its input.
        let _ = self.resident.wait();
    }
}

/// What happened in the intervals so far.
#[derive(Debug, Default, PartialEq)]
struct Sums {
    taken: u64,
    given: u64,
    waited: u64,
}

impl Sums {
    /// Intervals until the pool is as it should be; it is then.
    fn until(
        &mut self,
        churn: &mut Churn,
        network: &Network,
        expected: &[(&str, u64)],
    ) -> Result<Value> {
        let line = churn.until("NAT is told as it is", |line| {
            let Some(pool) = network.pool(line) else {
                return false;
            };
            for (sum, path) in [
                (&mut self.taken, "taken"),
                (&mut self.given, "given"),
                (&mut self.waited, "waited"),
            ] {
                *sum += number(pool, path).unwrap_or_default();
            }
            numbers(pool, expected).is_ok()
        })?;
        network.pool(&line).cloned().context("no pool")
    }
}

fn churn_nat_of_a_gateway(bench: &Bench) -> Result<()> {
    in_network(None, |network| {
        let mut open = vec![network.connect(CLIENT, 0)?];
        let port = open
            .first()
            .and_then(|(near, _)| near.local())
            .context("no port")?
            .port();
        let mut churn = Churn::start(bench, &["--top", "100"])?;
        for _ in 0..4 {
            open.push(network.connect(CLIENT, 0)?);
        }
        // The same port twice: one of them has to get another one.
        let other = network.connect(OTHER_CLIENT, port)?;
        let mut sums = Sums::default();
        let pool = sums.until(
            &mut churn,
            network,
            &[
                ("held", 6),
                ("waiting", 0),
                ("changed", 1),
                ("available", 64_512),
                ("range.0", 1024),
                ("range.1", 65_535),
                ("clients_total", 2),
                ("clients.0.held", 5),
                ("clients.1.held", 1),
                ("network.peer.port", 8080),
            ],
        )?;
        let text = |path| lookup(&pool, path).and_then(Value::as_str);
        for (path, right) in [
            ("network.local.address", EXTERNAL),
            ("network.peer.address", SERVER),
            ("clients.0.client.address", CLIENT),
            ("clients.1.client.address", OTHER_CLIENT),
        ] {
            ensure!(text(path) == Some(&right.to_string()), "{path}: {pool}");
        }
        // Who was there at the first look was taken before.
        ensure!(sums.taken == 5, "{sums:?}");
        for (near, far) in open {
            drop(near);
            drop(far);
        }
        sums.until(
            &mut churn,
            network,
            &[("held", 6), ("waiting", 5), ("clients.0.waiting", 5)],
        )?;
        drop(other);
        sums.until(&mut churn, network, &[("held", 6), ("waiting", 6)])?;
        ensure!(
            sums == Sums {
                taken: 5,
                given: 0,
                waited: 6
            },
            "{sums:?}"
        );
        network.gateway.enter()?;
        let line = churn.next()?;
        let place = lookup(&line, "churn.nat.namespaces")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .find(|one| number(one, "netns").is_ok_and(|netns| netns == network.gateway.inode))
            .context("no gateway")?;
        let counted = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count")?;
        ensure!(
            number(place, "tracked.count")? == counted.trim().parse::<u64>()?,
            "the kernel counts {counted}: {place}"
        );
        numbers(place, &[("failed.total", 0)])?;
        ensure!(
            lookup(&line, "missing").is_none_or(|list| !list.to_string().contains("churn.nat"))
        );
        churn.stop()?;
        Ok(())
    })
}

fn churn_nat_has_no_port_left(bench: &Bench) -> Result<()> {
    in_network(Some(40_000..=40_003), |network| {
        let mut open = vec![network.connect(CLIENT, 0)?];
        let mut churn = Churn::start(bench, &["--top", "100"])?;
        for _ in 0..3 {
            open.push(network.connect(CLIENT, 0)?);
        }
        let late = Sock::new(Kind::Tcp4)?;
        late.set_nonblocking(true)?;
        let started = late.connect(&(SERVER, 8080).into());
        ensure!(started == Err(Errno::EINPROGRESS), "{started:?}");
        Sums::default().until(
            &mut churn,
            network,
            &[
                ("held", 4),
                ("changed", 4),
                ("seen.0", 40_000),
                ("seen.1", 40_003),
            ],
        )?;
        churn.until("a connection that was not entered", |line| {
            let places = lookup(line, "churn.nat.namespaces").and_then(Value::as_array);
            places.into_iter().flatten().any(|one| {
                number(one, "netns").is_ok_and(|netns| netns == network.gateway.inode)
                    && number(one, "failed.total").is_ok_and(|failed| failed > 0)
            })
        })?;
        churn.stop()?;
        Ok(())
    })
}

fn churn_nat_needs_net_admin(bench: &Bench) -> Result<()> {
    in_network(None, |network| {
        let _open = network.connect(CLIENT, 0)?;
        let run = |without: &str, format: &str| -> Result<String> {
            let all = LOADING.into_iter().chain(TELLING);
            let capabilities: Vec<&str> = all.filter(|one| *one != without).collect();
            let mut command = Command::new(helper(bench)?);
            command.args(portwatch_as_nobody(bench, &capabilities)?);
            command.args([
                "churn",
                "--once",
                "--interval",
                "100ms",
                "-o",
                format,
                "--attach",
            ]);
            let output = command.arg(bench.backend.as_str()).output()?;
            ensure!(output.status.success(), "{output:?}");
            Ok(String::from_utf8(output.stdout)?)
        };
        for (without, is_missing) in [("CAP_NET_ADMIN", true), ("", false)] {
            let line = contract::churn(run(without, "json")?.trim())?;
            let missing = lookup(&line, "missing").and_then(Value::as_array);
            let missing = missing
                .into_iter()
                .flatten()
                .any(|path| path == "churn.nat");
            ensure!(missing == is_missing, "without {without:?}: {line}");
            ensure!(network.pool(&line).is_some() != is_missing, "{line}");
        }
        let text = run("CAP_NET_ADMIN", "text")?;
        ensure!(
            text.contains("tells of NAT only who has CAP_NET_ADMIN"),
            "{text}"
        );
        Ok(())
    })
}
