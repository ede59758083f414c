//! Who has it: programs in their roles, those that keep ports for others, and those that were left
//! something.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;

use super::{
    super::{Scenario, scenarios},
    connections::only_port,
    roles,
};
use crate::{
    expect::Want,
    script::{Role, Script, skip, tags},
    sys::{
        bpf::Cgroup,
        netns, proc,
        sock::{Kind, Sock},
        task,
    },
};

pub(super) const ALL: &[Scenario] = scenarios![
    puzzle_01_root_has_it: [1],
    puzzle_12_socket_unit: [12, 14],
    puzzle_17_resolver_on_a_device: [17],
    puzzle_18_the_same_program_twice: [18, 50],
    puzzle_19_multicast_dns: [19],
    puzzle_22_inherited_by_another_program: [21, 22],
    puzzle_24_forwarder: [24, 25],
    puzzle_26_forwarder_of_a_container: [26],
    puzzle_32_reserved_port: [32],
    puzzle_33_fixed_port_in_the_automatic_range: [33],
    puzzle_47_shared_by_strangers: [47],
];

pub(super) const ROLES: &[Role] = roles![
    web_server,
    stub_resolver,
    dns_server,
    dns_server_refused,
    mdns_responder,
    father,
    docker_proxy,
    rootlessport,
    port_mapper,
    status_monitor,
    message_queue,
];

const LO4: Ipv4Addr = Ipv4Addr::LOCALHOST;
const ANY4: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const NOBODY: u32 = 65534;

fn web_server(s: &mut Script) -> Result<Vec<Sock>> {
    Ok(vec![s.listener(Kind::Tcp4, (ANY4, 80))?])
}

/// Whoever is refused is not root, and sees nothing of a socket that root has.
fn puzzle_01_root_has_it(s: &mut Script) -> Result<()> {
    netns::sysctl("ipv4/ip_unprivileged_port_start", "80")?;
    let kept = s.program("nginx", "web_server", &[])?;
    s.forked(|s| {
        task::become_user(NOBODY)?;
        s.relearn()?;
        let late = s.socket(Kind::Tcp4)?;
        s.bind(&late, (ANY4, 80))
            .fails(Errno::EADDRINUSE)?
            .held_by(0, kept.sock()?, "listen")
            .named(0, &kept.me)
            .judged(("listener", "exact", "no_reuse"))
            .holders_total(1)
            .is("process.user.id", NOBODY)
            .is("conflict.holders.0.process.user.id", 0)
            .says(&[&format!("held by nginx (pid {}", kept.me.pid), "0.0.0.0:80"]);
        Ok(())
    })?;
    Ok(())
}

/// The first process has a port for a socket unit: in the way of a stranger, and of the unit's own
/// service, which should have taken the socket instead of binding one.
fn puzzle_12_socket_unit(s: &mut Script) -> Result<()> {
    let Ok(address) = std::env::var("PID1_LISTENS_ON") else {
        return skip("the first process of this machine is not the test VM's");
    };
    let address: SocketAddr = address.parse()?;
    let port = address.port();
    let directory = Path::new("/run/systemd/system");
    fs::create_dir_all(directory)?;
    fs::write(
        directory.join("knxd.socket"),
        format!("[Socket]\nListenStream={port}\n"),
    )?;
    let service = "knxd.service";
    if !s.cgroup(service)? {
        return skip("cgroup v2 is not mounted");
    }
    let init = proc::Me::of(1)?;
    let refused = |s: &mut Script, hint: &str| -> Result<()> {
        let late = s.socket(Kind::Tcp6)?;
        s.bind(&late, address)
            .fails(Errno::EADDRINUSE)?
            .held(0, Kind::Tcp6, address, None, "listen")
            .named(0, &init)
            .judged(("listener", "exact", "reuse_listening"))
            .holders_total(1)
            .is("conflict.holders.0.systemd.unit", "knxd.socket")
            .says(&["held by systemd for knxd.socket ("])
            .advises(&[hint]);
        Ok(())
    };
    let own = s.me.cgroup.clone().context("no cgroup")?;
    s.in_netns_of(1, |s| {
        refused(s, "stop knxd.socket")?;
        s.forked(|s| {
            Cgroup::existing(&own, service)
                .context("no such cgroup")?
                .join()?;
            s.relearn()?;
            refused(
                s,
                "ake the socket that knxd.socket hands to you (LISTEN_FDS, from descriptor 3 on)",
            )
        })?;
        Ok(())
    })
}

fn stub_resolver(s: &mut Script) -> Result<Vec<Sock>> {
    let mut socks = Vec::new();
    for kind in [Kind::Udp4, Kind::Tcp4] {
        let sock = s.socket(kind)?;
        sock.bind_to_device("lo")?;
        s.bind(&sock, (Ipv4Addr::new(127, 0, 0, 53), 53)).ok()?;
        if kind == Kind::Tcp4 {
            s.listen(&sock, 16).ok()?;
        }
        socks.push(sock);
    }
    Ok(socks)
}

/// A wildcard meets an address on one device.
fn puzzle_17_resolver_on_a_device(s: &mut Script) -> Result<()> {
    let kept = s.program("systemd-resolved", "stub_resolver", &[])?;
    for (sock, state, kind) in [
        (&kept.socks[0], "closed", "bound"),
        (&kept.socks[1], "listen", "listener"),
    ] {
        let late = s.socket(sock.kind)?;
        s.bind(&late, (ANY4, 53))
            .fails(Errno::EADDRINUSE)?
            .held_by(0, sock, state)
            .named(0, &kept.me)
            .judged((kind, "wildcard", "no_reuse"))
            .holders_total(1)
            .is("conflict.device", true)
            .is("conflict.holders.0.network.interface.name", "lo")
            .says(&[
                "held by systemd-resolved (pid ",
                "127.0.0.53%lo:53",
                "your wildcard covers it",
            ])
            .advises(&["Bind another address"]);
    }
    Ok(())
}

fn dns_server(s: &mut Script) -> Result<Vec<Sock>> {
    Ok(vec![s.bound(Kind::Udp4, (ANY4, 53))?])
}

/// The same once more, which is one too many.
fn dns_server_refused(s: &mut Script) -> Result<Vec<Sock>> {
    let late = s.socket(Kind::Udp4)?;
    s.bind(&late, (ANY4, 53)).fails(Errno::EADDRINUSE)?;
    Ok(Vec::new())
}

/// Its own program has the port: the instance of somebody else, with other arguments, or a second start.
fn puzzle_18_the_same_program_twice(s: &mut Script) -> Result<()> {
    let args = ["--conf-file=default.conf"];
    let kept = s.program("dnsmasq", "dns_server", &args)?;
    for args in [&["--conf-file=mine.conf"][..], &args] {
        s.again(&kept, "dns_server_refused", args)?;
        s.last()?
            .held_by(0, kept.sock()?, "closed")
            .named(0, &kept.me)
            .judged(("bound", "exact", "no_reuse"))
            .holders_total(1)
            .is("process.executable.name", "dnsmasq")
            .says(&[&format!("dnsmasq runs already (pid {}", kept.me.pid)]);
    }
    ensure!(
        kept.me.args.iter().any(|arg| arg == args[0]),
        "{:?}",
        kept.me.args
    );
    Ok(())
}

fn mdns_responder(s: &mut Script) -> Result<Vec<Sock>> {
    let sock = s.socket(Kind::Udp4)?.reuseaddr()?.reuseport()?;
    s.bind(&sock, (ANY4, 5353)).ok()?;
    Ok(vec![sock])
}

fn puzzle_19_multicast_dns(s: &mut Script) -> Result<()> {
    let kept = s.program("avahi-daemon", "mdns_responder", &[])?;
    let late = s.socket(Kind::Udp4)?;
    s.bind(&late, (ANY4, 5353))
        .fails(Errno::EADDRINUSE)?
        .held_by(0, kept.sock()?, "closed")
        .named(0, &kept.me)
        .judged(("bound", "exact", "reuse_missing_self"))
        .holders_total(1)
        .says(&[
            "held by avahi-daemon (pid ",
            "it set SO_REUSEADDR, yours did not",
        ])
        .advises(&["SO_REUSEADDR on your socket, set before bind(), would let you share the port"]);
    let late = late.reuseaddr()?;
    s.bind(&late, (ANY4, 5353)).ok()?;
    Ok(())
}

fn message_queue(s: &mut Script) -> Result<Vec<Sock>> {
    let sock = s.socket(Kind::Tcp4)?.reuseport()?;
    s.bind(&sock, (LO4, 5000)).ok()?;
    Ok(vec![sock])
}

/// Both have set SO_REUSEPORT, so nothing fails, and each gets half of what is meant for the other. Of one
/// program that is what SO_REUSEPORT is for.
fn puzzle_47_shared_by_strangers(s: &mut Script) -> Result<()> {
    let kept = s.program("nanomsg", "message_queue", &[])?;
    let other = s.program("grpc_server", "message_queue", &[])?;
    for (name, stranger) in [("nanomsg", kept.me.pid), ("grpc_server", other.me.pid)] {
        s.last()?
            .forget("warning")
            .is("warning.kind", "shared_port")
            .is("warning.processes.0.pid", stranger)
            .is("warning.processes.0.executable.name", name)
            .set("warning.processes.1", Want::Absent)
            .set("warning.hint", Want::Present);
        if name == "nanomsg" {
            s.again(&kept, "message_queue", &[])?;
        }
    }
    Ok(())
}

/// Listens, starts another program without closing its socket for it, and is about to end.
fn father(s: &mut Script) -> Result<Vec<Sock>> {
    let sock = s.listener(Kind::Tcp4, (ANY4, 2020))?;
    sock.stay_open_on_exec()?;
    s.bequeath(tags().first().context("no program")?)?;
    Ok(vec![sock])
}

/// It was left a socket that it has never asked for.
fn puzzle_22_inherited_by_another_program(s: &mut Script) -> Result<()> {
    let program = s.copy("mpv")?;
    let kept = s.program("httpd", "father", &[&program])?;
    let &[heir] = &kept.heirs[..] else {
        anyhow::bail!("{:?}", kept.heirs);
    };
    proc::Me::executing(heir, &program)?;
    s.dismiss(&kept)?;
    // It has another parent now.
    let heir = proc::Me::of(heir)?;
    let late = s.socket(Kind::Tcp4)?;
    s.bind(&late, (ANY4, 2020))
        .fails(Errno::EADDRINUSE)?
        .held_by(0, kept.sock()?, "listen")
        .named(0, &heir)
        .judged(("listener", "exact", "no_reuse"))
        .holders_total(1)
        .set("conflict.holders.0.processes.1", Want::Absent)
        .is("conflict.holders.0.creator.pid", kept.me.pid)
        .is("conflict.holders.0.creator.executable.name", "httpd")
        .is("conflict.holders.0.creator.exited", true)
        .says(&[&format!(
            "bound by httpd (pid {}, exited), still open in mpv (pid {}",
            kept.me.pid, heir.pid
        )])
        .advises(&["If mpv has inherited it by mistake, httpd lacks SOCK_CLOEXEC."]);
    Ok(())
}

/// Listens for a container, and has a connection into it.
fn docker_proxy(s: &mut Script) -> Result<Vec<Sock>> {
    let listener = s.listener(Kind::Tcp4, (ANY4, 8080))?;
    let inside = s.socket(Kind::Tcp4)?;
    s.connect(&inside, (LO4, 3000)).ok()?;
    Ok(vec![listener, inside])
}

/// The port that it forwards, and the one that its own connection to the container has got.
fn puzzle_24_forwarder(s: &mut Script) -> Result<()> {
    only_port(s, (55_026, 55_027), 55_026)?;
    let _inside = s.listener(Kind::Tcp4, (LO4, 3000))?;
    let args = "-proto tcp -host-ip 0.0.0.0 -host-port 8080 -container-ip 172.17.0.16 \
                -container-port 8080";
    let args: Vec<_> = args.split_whitespace().collect();
    let kept = s.program("docker-proxy", "docker_proxy", &args)?;
    let [listener, client] = &kept.socks[..] else {
        anyhow::bail!("{:?}", kept.socks);
    };
    let late = s.socket(Kind::Tcp4)?;
    s.bind(&late, (ANY4, 8080))
        .fails(Errno::EADDRINUSE)?
        .held_by(0, listener, "listen")
        .named(0, &kept.me)
        .judged(("listener", "exact", "no_reuse"))
        .holders_total(1)
        .says(&[
            &format!("held by docker-proxy (pid {}", kept.me.pid),
            "which forwards to 172.17.0.16:8080",
        ])
        .advises(&["stop or re-map that container"]);
    s.bind(&late, (ANY4, 55_026))
        .fails(Errno::EADDRINUSE)?
        .held_by(0, client, "established")
        .named(0, &kept.me)
        .judged(("client", "wildcard", "no_reuse"))
        .holders_total(1)
        .says(&["held as the source port of docker-proxy's connection to 127.0.0.1:3000"]);
    Ok(())
}

const CONTAINER: &str = "5f1d0c6a7b2e93847561a0b9c8d7e6f5041322314455667788990a0b0c0d0e0f";

/// Joins the cgroup that it is told and listens.
fn rootlessport(s: &mut Script) -> Result<Vec<Sock>> {
    let own = s.me.cgroup.clone().context("no cgroup")?;
    let name = tags().first().cloned().context("no name")?;
    Cgroup::existing(&own, &name)
        .context("no such cgroup")?
        .join()?;
    s.relearn()?;
    Ok(vec![s.listener(Kind::Tcp4, (ANY4, 8443))?])
}

fn puzzle_26_forwarder_of_a_container(s: &mut Script) -> Result<()> {
    let name = format!("libpod-{CONTAINER}.scope");
    if !s.cgroup(&name)? {
        return skip("cgroup v2 is not mounted");
    }
    let kept = s.program("rootlessport", "rootlessport", &[&name])?;
    let late = s.socket(Kind::Tcp4)?;
    s.bind(&late, (ANY4, 8443))
        .fails(Errno::EADDRINUSE)?
        .held_by(0, kept.sock()?, "listen")
        .named(0, &kept.me)
        .judged(("listener", "exact", "no_reuse"))
        .holders_total(1)
        .is("conflict.holders.0.container.id", CONTAINER)
        .is("conflict.holders.0.container.runtime.name", "podman")
        .says(&[
            &format!("held by rootlessport (pid {}", kept.me.pid),
            "podman container 5f1d0c6a7b2e",
            "which forwards to a container",
        ])
        .advises(&["stop or re-map that container"]);
    Ok(())
}

/// bindresvport(3): one reserved port after the other until one is free.
fn port_mapper(s: &mut Script) -> Result<Vec<Sock>> {
    let sock = s.socket(Kind::Udp4)?;
    for port in 748..=1023 {
        let call = s.bind(&sock, (ANY4, port));
        if call.result().is_ok() {
            call.ok()?;
            break;
        }
        call.fails(Errno::EADDRINUSE)?
            .judged(("bound", "exact", "no_reuse"));
    }
    Ok(vec![sock])
}

/// Nobody has told it to take this port, and the kernel has not picked it: it has tried.
fn puzzle_32_reserved_port(s: &mut Script) -> Result<()> {
    let _taken = s.bound(Kind::Udp4, (ANY4, 748))?;
    let kept = s.program("rpcbind", "port_mapper", &[])?;
    ensure!(kept.sock()?.port() == 749, "{:?}", kept.socks);
    let late = s.socket(Kind::Udp4)?;
    s.bind(&late, (ANY4, 749))
        .fails(Errno::EADDRINUSE)?
        .held_by(0, kept.sock()?, "closed")
        .named(0, &kept.me)
        .judged(("bound", "exact", "no_reuse"))
        .holders_total(1)
        .says(&["held by rpcbind (pid ", "0.0.0.0:749"]);
    Ok(())
}

/// Takes whatever port the kernel gives it.
fn status_monitor(s: &mut Script) -> Result<Vec<Sock>> {
    Ok(vec![s.bound(Kind::Udp4, (IpAddr::V4(ANY4), 0))?])
}

/// A service has a port of its own, which the kernel may give away too.
fn puzzle_33_fixed_port_in_the_automatic_range(s: &mut Script) -> Result<()> {
    only_port(s, (54_045, 54_046), 54_045)?;
    let kept = s.program("rpc.statd", "status_monitor", &[])?;
    ensure!(kept.sock()?.port() == 54_045, "{:?}", kept.socks);
    let late = s.socket(Kind::Udp4)?;
    s.bind(&late, (ANY4, 54_045))
        .fails(Errno::EADDRINUSE)?
        .held_by(0, kept.sock()?, "closed")
        .named(0, &kept.me)
        .judged(("bound", "exact", "no_reuse"))
        .holders_total(1)
        .is("network.local.ephemeral", true)
        .is("conflict.holders.0.network.local.ephemeral", true)
        .says(&["held by rpc.statd (pid ", "0.0.0.0:54045"]);
    Ok(())
}
