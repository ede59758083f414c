//! The fifty puzzles, and for each what portwatch answers or why that cannot be shown here.

use std::fmt::Write as _;

use super::super::{Scenario, all};

/// Something that people could not explain.
struct Puzzle {
    /// What happens.
    what: &'static str,
    /// Where it was told.
    told: &'static str,
    answer: Answer,
}

/// What there is to say to it.
enum Answer {
    /// Scenarios prove that portwatch says this.
    Shown(&'static str),
    /// Why no scenario makes it.
    NotMade(&'static str),
}

use Answer::{NotMade, Shown};

const fn puzzle(what: &'static str, told: &'static str, answer: Answer) -> Puzzle {
    Puzzle { what, told, answer }
}

/// In the order of their numbers, from 1.
const LIST: [Puzzle; 50] = [
    puzzle(
        "`lsof -i:80` shows nothing to an ordinary user",
        "nodejs/help#1860",
        Shown("the listener, its process and that it is root's"),
    ),
    puzzle(
        "a router cannot take its port: a client on the same machine has it as source port",
        "cloudfoundry/routing-release#206",
        Shown("whose connection, to where, and the line for ip_local_reserved_ports"),
    ),
    puzzle(
        "an ingress cannot take 10254: the API server's connection to etcd has it",
        "rancher/rancher#12510",
        Shown("whose connection, and to which port of the peer"),
    ),
    puzzle(
        "a port was in use, and lsof finds nothing: the connection has ended meanwhile",
        "hashicorp/nomad#1728",
        Shown("who had it when the call was refused, though it has ended since"),
    ),
    puzzle(
        "a port is busy now and then, where the automatic range begins at 1025",
        "bottlerocket-os/bottlerocket#1386",
        Shown("whose connection, and that the port lies in the automatic range"),
    ),
    puzzle(
        "a port is busy for 0.0.0.0 and free for each other address",
        "HelloZeroNet/ZeroNet#1948",
        Shown("the client on one address that the wildcard covers"),
    ),
    puzzle(
        "a watchdog starts a service again and again, in vain",
        "MagnaCapax/PMSS#653",
        Shown("the same long-lived connection each time, and its age"),
    ),
    puzzle(
        "a server cannot be started again, whatever is done to tcp_tw_reuse",
        "dermesser/libsocket#61",
        Shown(
            "a TIME_WAIT of the previous run, and that SO_REUSEADDR helps only from the next one on",
        ),
    ),
    puzzle(
        "a server sets SO_REUSEADDR too late, or not at all",
        "xapi-project/xen-api#493",
        Shown("that the old socket set it and this one did not, before bind()"),
    ),
    puzzle(
        "SO_REUSEPORT is set after bind()",
        "systemd/systemd#459",
        Shown("that the holder has not set it"),
    ),
    puzzle(
        "SO_REUSEPORT on both sides, of two users",
        "systemd/systemd#28039",
        Shown("the rule, and both users"),
    ),
    puzzle(
        "pid 1 has the port",
        "knxd/knxd#103",
        Shown("systemd, and the socket unit that it holds the port for"),
    ),
    puzzle(
        "two socket units want one port",
        "systemd/systemd#14044",
        NotMade(
            "systemd refuses itself, and for which of two units it asks stands in no system call: portwatch says that pid 1 has the port already",
        ),
    ),
    puzzle(
        "a program ignores LISTEN_FDS and binds the port of its own socket unit",
        "cherrypy/cherrypy#1494",
        Shown("that its own socket unit hands the socket to it"),
    ),
    puzzle(
        "a program binds [::] and then 0.0.0.0",
        "nodejs/node#7200",
        Shown("that its own [::] takes IPv4 too"),
    ),
    puzzle(
        "a program fails only where net.ipv6.bindv6only is 0",
        "rfc1036/udptunnel#13",
        Shown("that its own [::] takes IPv4 too, and IPV6_V6ONLY"),
    ),
    puzzle(
        "dnsmasq on 0.0.0.0:53 beside the stub resolver on 127.0.0.53%lo",
        "poseidon/matchbox#708",
        Shown("the resolver, its address and device, and that the wildcard covers it"),
    ),
    puzzle(
        "dnsmasq beside the dnsmasq of libvirt",
        "vagrant-landrush/landrush#252",
        Shown("that the same program runs already, with its parent and its arguments"),
    ),
    puzzle(
        "port 5353 beside avahi-daemon",
        "hoobs-org/soma-connect#13",
        Shown("that the holder set SO_REUSEADDR, and that this would let both share"),
    ),
    puzzle(
        "UDP on [::] and 0.0.0.0, one port",
        "webtorrent/bittorrent-tracker#77",
        Shown("that the [::] socket takes IPv4 too"),
    ),
    puzzle(
        "a program listens on a port that it never asked for",
        "samhocevar/rinetd#10",
        Shown("who bound the socket and has exited, and who has inherited it"),
    ),
    puzzle(
        "a server has ended and a child of it has its port still",
        "cesanta/mongoose#1302",
        Shown("the same, and that SOCK_CLOEXEC was missing"),
    ),
    puzzle(
        "nobody listens, but connections in CLOSE_WAIT remain",
        "Unitech/pm2#238",
        Shown("the connections, whose they are, and that their peers have closed them"),
    ),
    puzzle(
        "docker-proxy has the port",
        "moby/moby#7856",
        Shown("the forwarder and the address that it forwards to"),
    ),
    puzzle(
        "docker-proxy has a port as the source of its own connection",
        "docker/for-linux#1278",
        Shown("the forwarder's connection into the container"),
    ),
    puzzle(
        "rootlessport has the port of a container",
        "podman-container-tools/podman#9587",
        Shown("the forwarder and its container"),
    ),
    puzzle(
        "a service answers on 8080, and nothing listens there: a DNAT rule",
        "containerd/nerdctl#543",
        NotMade("no call is refused: bind() succeeds, and portwatch does not look at NAT rules"),
    ),
    puzzle(
        "a removed network leaves its NAT rule behind",
        "podman-container-tools/podman#10806",
        NotMade("no call is refused: as number 27"),
    ),
    puzzle(
        "kube-proxy no longer binds its nodePorts",
        "kubernetes/kubernetes#111682",
        NotMade("no call is refused: the port is one in rules only, as number 27"),
    ),
    puzzle(
        "bind() gives EPERM, and netstat shows nothing: a BPF program of the CNI",
        "cilium/cilium#19067",
        Shown("a policy, and nobody who has the port"),
    ),
    puzzle(
        "an NFS client has taken a server's port",
        "ltsp/ltsp#875",
        Shown("the kernel itself, no process"),
    ),
    puzzle(
        "rpcbind has taken a reserved port of another service",
        "freeipa/freeipa#2581",
        Shown("rpcbind, and the ports that it tried before"),
    ),
    puzzle(
        "a service's fixed port lies in the automatic range",
        "delphix/delphix-platform#226",
        Shown("who was given it, and that it lies in that range"),
    ),
    puzzle(
        "bind(address, 0) gives EADDRINUSE",
        "shadowsocks/shadowsocks-libev#2930",
        Shown("that no automatic port is left, the range, and IP_BIND_ADDRESS_NO_PORT"),
    ),
    puzzle(
        "connect() gives EADDRNOTAVAIL",
        "envoyproxy/envoy#44747",
        Shown("that no automatic port is left towards this destination"),
    ),
    puzzle(
        "a client binds the source port of its last connection",
        "envoyproxy/envoy#9595",
        Shown("the TIME_WAIT of that connection, and its peer"),
    ),
    puzzle(
        "connect() of a UDP socket gives EAGAIN",
        "openresty/lua-resty-dns#36",
        Shown("that EAGAIN means that no port is left"),
    ),
    puzzle(
        "EADDRNOTAVAIL in a process with few connections",
        "emqx/emqx#17893",
        Shown("that the range is used up towards this destination, by others"),
    ),
    puzzle(
        "WSL: a port is busy because Windows has reserved it",
        "httptoolkit/httptoolkit#611",
        NotMade("it takes a Windows host and its kernel"),
    ),
    puzzle(
        "an IPv6 address is there and cannot be bound",
        "gdnsd/gdnsd#30",
        Shown("that it is tentative"),
    ),
    puzzle(
        "a virtual address is on another node",
        "acassen/keepalived#2514",
        Shown("that no interface has it, and ip_nonlocal_bind"),
    ),
    puzzle(
        "EINVAL for a link-local address",
        "acassen/keepalived#1728",
        Shown("that an interface has to be named"),
    ),
    puzzle(
        "EACCES for a low port",
        "microsoft/WSL#2007",
        Shown("the capability that is missing, of whom, and how to give it"),
    ),
    puzzle(
        "SELinux forbids a port",
        "SELinuxProject/refpolicy#629",
        NotMade(
            "it takes a machine with an SELinux policy; Landlock, which policy_landlock has, refuses at the same hook",
        ),
    ),
    puzzle(
        "Landlock's port rules do not see Go programs: their sockets are MPTCP",
        "landlock-lsm/go-landlock#50",
        Shown("what was refused or not, and that the socket is MPTCP"),
    ),
    puzzle(
        "a service listens on 0.0.0.0 and a random port",
        "stalwartlabs/stalwart#2023",
        Shown("its bind() that failed, and its listen() that took a port all the same"),
    ),
    puzzle(
        "two programs share a port and do not know",
        "nanomsg/nanomsg#404",
        Shown("a warning at the second bind(), with the other program"),
    ),
    puzzle(
        "a test's port is taken between probing and binding",
        "near/nearcore#8415",
        Shown("the probe, who took the port after it, and since when"),
    ),
    puzzle(
        "a port was in use, and a moment later it is not",
        "systemd/systemd#26512",
        Shown("who had it, though that process has ended since"),
    ),
    puzzle(
        "a program is started twice",
        "omega8cc/boa#867",
        Shown("that it runs already, and its pid"),
    ),
];

/// Who proves the puzzle of this number.
fn proofs(number: usize) -> impl Iterator<Item = Scenario> {
    all().filter(move |scenario| scenario.proves.iter().any(|it| usize::from(*it) == number))
}

/// The list as a page for readers.
pub(crate) fn markdown() -> String {
    let shown = LIST
        .iter()
        .filter(|puzzle| matches!(puzzle.answer, Shown(_)))
        .count();
    let mut page = format!(
        "# Puzzles\n\n\
         Fifty questions that people asked in public, and what portwatch answers. {shown} of them are\n\
         made again by scenarios (`cargo xtask test`), on every kernel and backend that can: kind, overlap\n\
         and reason of the conflict and its holders are compared exactly, and the words that carry the answer.\n\n\
         Written by `portwatch-tests puzzles`; a unit test compares.\n\n\
         | | what happens | told in | portwatch says | proven by |\n|---:|---|---|---|---|\n"
    );
    for (number, Puzzle { what, told, answer }) in (1..).zip(&LIST) {
        let (says, by) = match answer {
            Shown(says) => {
                let by: Vec<_> = proofs(number)
                    .map(|scenario| format!("`{}`", scenario.name))
                    .collect();
                (*says, by.join(", "))
            }
            NotMade(why) => ("–", format!("not made: {why}")),
        };
        let _ = writeln!(page, "| {number} | {what} | {told} | {says} | {by} |");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_puzzle_is_proven_or_there_is_a_reason_why_not() {
        for (number, puzzle) in (1..).zip(&LIST) {
            match puzzle.answer {
                Shown(_) => assert_ne!(proofs(number).count(), 0, "nothing proves {number}"),
                NotMade(_) => assert_eq!(proofs(number).count(), 0, "{number} is proven"),
            }
        }
    }

    #[test]
    fn scenarios_prove_puzzles_that_there_are() {
        for scenario in all() {
            for number in scenario.proves {
                assert!(
                    (1..=LIST.len()).contains(&usize::from(*number)),
                    "{}: {number}",
                    scenario.name
                );
            }
        }
    }

    #[test]
    fn most_are_proven() {
        let shown = (1..=LIST.len()).filter(|number| proofs(*number).count() > 0);
        assert!(shown.count() >= 35);
    }

    #[test]
    fn the_page_is_up_to_date() {
        let kept = include_str!("../../../../docs/puzzles.md");
        assert!(
            kept == markdown(),
            "run: cargo run -p portwatch-tests -- puzzles > docs/puzzles.md"
        );
    }
}
