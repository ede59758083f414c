//! The recorder: a workload makes its calls through a [`Script`], which learns the truth from the
//! kernel right there (errno, getsockname(), getsockopt(), fstat(), procfs) and writes down the line
//! that portwatch has to print for it.

mod accepting;
mod holder;
mod keeper;
mod releasing;

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use serde_json::json;

use crate::{
    degraded::{self, Backend, Feature},
    expect::{Expect, Expected, Want},
    sys::{
        addr::Address,
        clock,
        netns::{self, Netns},
        proc::{self, Me},
        sock::{Kind, Origin, Sock},
        task,
    },
};

pub(crate) use holder::Judged;
pub(crate) use keeper::{Keepers, Role, play, tags};
pub(crate) use releasing::Port;

/// What a workload may know of the run it is part of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ctx {
    /// The backend under test.
    pub(crate) backend: Backend,
    /// Whether load tests run at full length.
    pub(crate) long: bool,
    /// Major and minor version of the running kernel.
    pub(crate) kernel: (u32, u32),
}

impl Ctx {
    /// For the running kernel.
    pub(crate) fn new(backend: Backend, long: bool) -> Result<Self> {
        let release = proc::kernel_release()?;
        let kernel = proc::version_of(&release)
            .with_context(|| format!("cannot make sense of kernel release {release:?}"))?;
        Ok(Self {
            backend,
            long,
            kernel,
        })
    }
}

/// The error of a scenario that cannot run here.
#[derive(Debug)]
pub(crate) struct Skip(pub(crate) String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "skip: {}", self.0)
    }
}

impl std::error::Error for Skip {}

/// Leaves a scenario that cannot run here.
pub(crate) fn skip<T>(reason: impl Into<String>) -> Result<T> {
    Err(Skip(reason.into()).into())
}

/// The clocks of user space and of the programs in the kernel differ by less than this, ns.
const CLOCK_SLACK: u64 = 5_000_000;

/// A connection attempt whose outcome is not yet known.
pub(crate) struct Pending {
    before: u64,
    asked: Option<SocketAddr>,
    given: Option<SocketAddr>,
    peer: Address,
}

/// A call that was made, with the line it must give.
#[must_use = "say how it must end"]
pub(crate) struct Call<'a> {
    line: &'a mut Expect,
    what: String,
    result: Result<(), Errno>,
}

impl<'a> Call<'a> {
    /// It must have worked.
    pub(crate) fn ok(self) -> Result<&'a mut Expect> {
        match self.result {
            Ok(()) => Ok(self.line),
            Err(errno) => bail!("{} failed with {errno:?} and should not have", self.what),
        }
    }

    /// It must have failed like this.
    pub(crate) fn fails(self, errno: Errno) -> Result<&'a mut Expect> {
        match self.result {
            Err(got) if got == errno => Ok(self.line),
            got => bail!("{} gave {got:?} instead of {errno:?}", self.what),
        }
    }

    /// How it ended.
    pub(crate) fn result(&self) -> Result<(), Errno> {
        self.result
    }
}

/// A workload in progress.
pub(crate) struct Script {
    /// The run.
    pub(crate) ctx: Ctx,
    /// Who makes the calls.
    pub(crate) me: Me,
    /// Where the calls are made.
    pub(crate) range: (u16, u16),
    expected: Expected,
    keepers: Keepers,
    /// Programs that this one has started and left its sockets to.
    heirs: Vec<u32>,
    /// The program that this one becomes when it has played its part.
    next: Option<String>,
}

impl Script {
    /// For the calling thread.
    pub(crate) fn new(ctx: Ctx) -> Result<Self> {
        let me = Me::learn()?;
        let expected = Expected {
            pids: vec![me.pid],
            netns: vec![me.netns],
            ..Expected::default()
        };
        Ok(Self {
            ctx,
            me,
            range: netns::port_range()?,
            expected,
            keepers: Keepers::default(),
            heirs: Vec::new(),
            next: None,
        })
    }

    /// What portwatch has to print for all this. Who keeps something open for it ends now.
    pub(crate) fn finish(self) -> Expected {
        self.end().0
    }

    /// The same, and who keeps something open until that is dropped: portwatch may look at them.
    pub(crate) fn end(self) -> (Expected, Keepers) {
        let Self {
            expected, keepers, ..
        } = self;
        (expected, keepers)
    }

    /// The lines may come in any order: several processes or CPUs were at work.
    pub(crate) fn any_order(&mut self) {
        self.expected.any_order = true;
    }

    /// Learns again who makes the calls, and where: after a change of name, user or namespace.
    pub(crate) fn relearn(&mut self) -> Result<()> {
        self.me = Me::learn()?;
        self.range = netns::port_range()?;
        self.expected.pids.push(self.me.pid);
        self.expected.netns.push(self.me.netns);
        Ok(())
    }

    /// Puts down a line by hand.
    pub(crate) fn expect(&mut self, line: Expect) -> &mut Expect {
        self.expected.lines.push(line);
        let last = self.expected.lines.len() - 1;
        &mut self.expected.lines[last]
    }

    /// The line of the last call, to demand more of it.
    pub(crate) fn last(&mut self) -> Result<&mut Expect> {
        self.expected.lines.last_mut().context("no line")
    }

    /// The lines so far, to be put in another order.
    pub(crate) fn lines(&mut self) -> &mut Vec<Expect> {
        &mut self.expected.lines
    }

    /// A socket; skips where this kernel has no such protocol.
    pub(crate) fn socket(&self, kind: Kind) -> Result<Sock> {
        match Sock::new(kind) {
            Ok(sock) => Ok(sock),
            Err(
                errno @ (Errno::EPROTONOSUPPORT
                | Errno::ENOPROTOOPT
                | Errno::EAFNOSUPPORT
                | Errno::ESOCKTNOSUPPORT),
            ) => skip(format!("no {kind:?} sockets on this kernel ({errno:?})")),
            Err(errno) => bail!("socket({kind:?}): {errno}"),
        }
    }

    /// A socket bound to this address, with its line.
    pub(crate) fn bound(&mut self, kind: Kind, address: impl Into<Address>) -> Result<Sock> {
        let sock = self.socket(kind)?;
        self.bind(&sock, address).ok()?;
        Ok(sock)
    }

    /// Something that every backend shows: where all else may be missing, it proves that somebody
    /// looked.
    pub(crate) fn control(&mut self) -> Result<()> {
        self.bound(Kind::Udp4, (Ipv4Addr::LOCALHOST, 7)).map(drop)
    }

    /// A socket listening on this address, with its two lines.
    pub(crate) fn listener(&mut self, kind: Kind, address: impl Into<Address>) -> Result<Sock> {
        let sock = self.bound(kind, address)?;
        self.listen(&sock, 16).ok()?;
        Ok(sock)
    }

    /// A TCP connection to a listener, with its line: (client, accepted).
    pub(crate) fn connected(&mut self, listener: &Sock) -> Result<(Sock, Sock)> {
        let client = self.socket(listener.kind)?;
        let address = listener.local().context("a listener without an address")?;
        self.connect(&client, address).ok()?;
        let accepted = listener.accept().context("accept")?;
        Ok((client, accepted))
    }

    /// bind()
    pub(crate) fn bind<'a>(&'a mut self, sock: &Sock, address: impl Into<Address>) -> Call<'a> {
        let address = address.into();
        self.bind_by(sock, &address, Feature::Early, || sock.bind(&address))
    }

    /// A bind by whatever means; `feature` says which (a plain call is one that no backend misses
    /// unless it ends early).
    pub(crate) fn bind_by<'a>(
        &'a mut self,
        sock: &Sock,
        address: &Address,
        feature: Feature,
        call: impl FnOnce() -> Result<(), Errno>,
    ) -> Call<'a> {
        let before = clock::boot_ns();
        let result = call();
        let mut line = self.line("bind", sock, result, before);
        if feature != Feature::Early
            && let Some(why) = degraded::may_miss(self.ctx.backend, feature)
        {
            line.optional(why);
        }
        if result.is_ok() {
            let local = sock.local();
            sock.origin.set(match address.port {
                Some(0) => Origin::Kernel,
                _ => Origin::Caller,
            });
            set_end(&mut line, "local", local);
            let chosen = address.port == Some(0) && local.is_some_and(|local| local.port() != 0);
            line.set("socket.auto_port", truth(chosen));
        } else if let (Some(ip), Some(port)) = (address.ip, address.port) {
            set_end(&mut line, "local", Some((ip, port).into()));
            line.set("socket.auto_port", truth(port == 0));
        }
        self.note_ephemeral(&mut line);
        let what = format!(
            "bind({:?} to {:?} {:?})",
            sock.kind, address.ip, address.port
        );
        Call {
            line: self.expect(line),
            what,
            result,
        }
    }

    /// listen()
    pub(crate) fn listen<'a>(&'a mut self, sock: &Sock, backlog: i32) -> Call<'a> {
        self.listen_by(sock, backlog, || sock.listen(backlog))
    }

    /// A listen by whatever means.
    pub(crate) fn listen_by<'a>(
        &'a mut self,
        sock: &Sock,
        backlog: i32,
        call: impl FnOnce() -> Result<(), Errno>,
    ) -> Call<'a> {
        let asked = sock.local();
        let before = clock::boot_ns();
        let result = call();
        let mut line = self.line("listen", sock, result, before);
        line.is("socket.backlog", backlog);
        if result.is_ok() {
            set_end(&mut line, "local", sock.local());
        } else {
            set_end(&mut line, "local", asked);
        }
        set_auto_port(&mut line, sock);
        self.note_ephemeral(&mut line);
        Call {
            line: self.expect(line),
            what: format!("listen({:?})", sock.kind),
            result,
        }
    }

    /// connect() that ends with its outcome: a blocking one, or UDP's.
    pub(crate) fn connect<'a>(&'a mut self, sock: &Sock, address: impl Into<Address>) -> Call<'a> {
        let address = address.into();
        self.connect_by(sock, &address, || sock.connect(&address))
    }

    /// A connect by whatever means.
    pub(crate) fn connect_by<'a>(
        &'a mut self,
        sock: &Sock,
        address: &Address,
        call: impl FnOnce() -> Result<(), Errno>,
    ) -> Call<'a> {
        let asked = sock.local();
        let before = clock::boot_ns();
        let result = call();
        let pending = Pending {
            before,
            asked,
            given: sock.local(),
            peer: address.clone(),
        };
        let what = format!(
            "connect({:?} to {:?} {:?})",
            sock.kind, address.ip, address.port
        );
        Call {
            line: self.connect_ended(sock, &pending, result),
            what,
            result,
        }
    }

    /// A connect() that returns before its outcome is known: EINPROGRESS, EINTR. No line yet.
    pub(crate) fn connect_start(
        &self,
        sock: &Sock,
        address: impl Into<Address>,
        errno: Errno,
    ) -> Result<Pending> {
        connect_starts(sock, address.into(), Err(errno))
    }

    /// The same of one that succeeds before anything is sent (TCP_FASTOPEN_CONNECT).
    pub(crate) fn connect_deferred(
        &self,
        sock: &Sock,
        address: impl Into<Address>,
    ) -> Result<Pending> {
        connect_starts(sock, address.into(), Ok(()))
    }

    /// The line of a connection attempt whose outcome is known now.
    pub(crate) fn connect_ended(
        &mut self,
        sock: &Sock,
        pending: &Pending,
        result: Result<(), Errno>,
    ) -> &mut Expect {
        let mut line = self.line("connect", sock, result, pending.before);
        self.connect_ends(&mut line, sock, pending, result);
        self.expect(line)
    }

    fn connect_ends(
        &self,
        line: &mut Expect,
        sock: &Sock,
        pending: &Pending,
        result: Result<(), Errno>,
    ) {
        let Pending {
            before: _,
            asked,
            given,
            peer,
        } = pending;
        // Every backend sees both ends of an attempt that was sent.
        let duration = within(0, clock::boot_ns() - pending.before);
        let sent = sock.kind.transport() == "tcp"
            && matches!(result, Ok(()) | Err(Errno::ECONNREFUSED | Errno::ETIMEDOUT));
        line.set(
            "event.duration",
            match degraded::may_miss(self.ctx.backend, Feature::Duration) {
                Some(_) if !sent => duration.maybe(),
                None if matches!(result, Err(Errno::EACCES | Errno::EPERM)) => duration.known(),
                _ => duration,
            },
        );
        let asked_peer = peer.ip.zip(peer.port).map(SocketAddr::from);
        if result.is_ok() {
            set_end(line, "local", sock.local());
            set_end(line, "peer", sock.peer().or(asked_peer));
        } else {
            set_end(line, "peer", asked_peer);
            match sock.origin.get() {
                Origin::Nobody => {
                    // The kernel's own choice may be shown, if it is the right one.
                    if let Some(given) = given.filter(|given| given.port() != 0) {
                        line.set("network.local.port", Want::is(given.port()).maybe());
                    }
                }
                Origin::Caller | Origin::Kernel => set_end(line, "local", *asked),
            }
        }
        set_auto_port(line, sock);
        self.note_ephemeral(line);
    }

    /// Closes a socket whose connection attempt has no outcome yet.
    pub(crate) fn connect_given_up(&mut self, sock: Sock, pending: &Pending) -> &mut Expect {
        let mut line = self.line("connect", &sock, Ok(()), pending.before);
        self.connect_ends(&mut line, &sock, pending, Ok(()));
        set_end(&mut line, "local", pending.given);
        drop(sock);
        let now = clock::boot_ns();
        line.is("event.outcome", "unknown")
            .is("event.reason", "closed")
            .set("event.duration", within(0, now - pending.before).maybe())
            .set("time_boot", within(pending.before, now));
        self.expect(line)
    }

    /// sendto() that may take a port on the way.
    pub(crate) fn send_to<'a>(&'a mut self, sock: &Sock, address: impl Into<Address>) -> Call<'a> {
        let address = address.into();
        let before = clock::boot_ns();
        let result = sock.send_to(&address, 0);
        let mut line = self.line("autobind", sock, result, before);
        if result.is_ok() {
            // The port is taken before the source address is known: `sock` keeps the wildcard.
            set_end(&mut line, "local", sock.local());
        }
        line.is("socket.auto_port", true);
        self.via(&mut line, "implicit");
        if let Some(why) = degraded::may_miss(self.ctx.backend, Feature::Autobind) {
            line.optional(why);
        }
        self.note_ephemeral(&mut line);
        Call {
            line: self.expect(line),
            what: format!("sendto({:?})", sock.kind),
            result,
        }
    }

    /// Runs a part of the workload in another process.
    pub(crate) fn forked(&mut self, work: impl FnOnce(&mut Self) -> Result<()>) -> Result<u32> {
        let ctx = self.ctx;
        let (pid, expected) = task::fork_and(|| {
            let mut script = Self::new(ctx)?;
            work(&mut script)?;
            Ok(script.finish())
        })?;
        self.merge(expected);
        Ok(pid)
    }

    /// The same in a process with a chosen pid.
    pub(crate) fn forked_as(
        &mut self,
        pid: i32,
        work: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        let ctx = self.ctx;
        let (_, ended, expected) = task::fork_with(Some(pid), || {
            let mut script = Self::new(ctx)?;
            work(&mut script)?;
            Ok(script.finish())
        })?;
        let expected = expected.with_context(|| format!("process {pid} ended with {ended:?}"))?;
        self.merge(expected);
        Ok(())
    }

    /// The same in a process that then becomes another program, which must succeed.
    pub(crate) fn forked_then_exec(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<()>,
        program: &Path,
        args: &[&str],
    ) -> Result<u32> {
        let ctx = self.ctx;
        let before = || {
            let mut script = Self::new(ctx)?;
            work(&mut script)?;
            Ok(script.finish())
        };
        let (pid, expected) = task::fork_then_exec(before, program, args)?;
        self.merge(expected);
        Ok(pid)
    }

    /// Runs a part of the workload in another thread.
    pub(crate) fn threaded(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<()> + Send,
    ) -> Result<()> {
        let ctx = self.ctx;
        let expected = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    let mut script = Self::new(ctx)?;
                    work(&mut script)?;
                    anyhow::Ok(script.finish())
                })
                .join()
        });
        match expected {
            Ok(expected) => self.merge(expected?),
            Err(_) => bail!("a thread of the workload panicked"),
        }
        Ok(())
    }

    /// Runs a part of the workload in another network namespace, which goes away with it.
    pub(crate) fn elsewhere(&mut self, work: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let home = Netns::current()?;
        let other = Netns::new()?;
        other.enter()?;
        self.relearn()?;
        let done = work(self);
        home.enter()?;
        self.relearn()?;
        done
    }

    /// Runs a part of the workload in the network namespace of a process that is none of it.
    pub(crate) fn in_netns_of(
        &mut self,
        pid: u32,
        work: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        let home = Netns::current()?;
        let other = Netns::of(pid)?;
        other.enter()?;
        self.relearn()?;
        let done = work(self);
        home.enter()?;
        self.relearn()?;
        // What others do there is none of this scenario's.
        self.expected.netns.retain(|netns| *netns != other.inode);
        done
    }

    /// Takes over the lines, processes and namespaces of a part of the workload.
    pub(crate) fn merge(&mut self, part: Expected) {
        let Expected {
            lines,
            any_order,
            pids,
            netns,
        } = part;
        self.expected.lines.extend(lines);
        self.expected.any_order |= any_order;
        self.expected.pids.extend(pids);
        self.expected.netns.extend(netns);
    }

    /// What every line of this thread and socket has in common.
    fn line(&self, name: &str, sock: &Sock, result: Result<(), Errno>, before: u64) -> Expect {
        let after = clock::boot_ns();
        let mut line = Expect::default();
        line.is("schema", "portwatch/1")
            .is("event.name", name)
            .set("time", Want::Present)
            .set("time_boot", within(before, after))
            .is("network.transport", sock.kind.transport())
            .is(
                "network.type",
                if sock.kind.is_v6() { "ipv6" } else { "ipv4" },
            )
            .is("socket.netns", self.me.netns);
        match result {
            Ok(()) => {
                line.is("event.outcome", "success")
                    .set("error", Want::Absent)
                    .set("conflict", Want::Absent)
                    .set("warning", Want::Absent);
            }
            Err(errno) => {
                line.is("event.outcome", "failure")
                    .is("error.type", format!("{errno:?}"))
                    .is("error.code", errno as i32);
                // contract.md: refusals of the network carry no `conflict`.
                if matches!(
                    errno,
                    Errno::ECONNREFUSED
                        | Errno::ETIMEDOUT
                        | Errno::ENETUNREACH
                        | Errno::EHOSTUNREACH
                ) {
                    line.set("conflict", Want::Absent);
                }
                match (name, errno) {
                    (_, Errno::EPERM) => line.judged_alone("policy"),
                    ("bind", Errno::EADDRNOTAVAIL) => line.judged_alone("not_local"),
                    ("connect", Errno::EADDRNOTAVAIL) | (_, Errno::EAGAIN) => {
                        line.judged_alone("exhausted")
                    }
                    // Which kind it is the scenario has to say.
                    (_, Errno::EACCES | Errno::EINVAL | Errno::EADDRINUSE) => {
                        line.set("conflict.kind", Want::Present)
                    }
                    _ => &mut line,
                };
            }
        }
        self.via(&mut line, "syscall");
        let duration = within(0, after - before);
        line.set(
            "event.duration",
            match degraded::may_miss(self.ctx.backend, Feature::Duration) {
                Some(_) => duration.maybe(),
                // Policy may refuse it before the function that is timed, and so does listen() on a
                // socket in use.
                None if matches!(result, Err(Errno::EACCES | Errno::EPERM | Errno::EINVAL)) => {
                    duration.known()
                }
                // The kernel may have skipped the program that sees the call begin.
                None if degraded::preempts(self.ctx.backend) => duration.known(),
                None => duration,
            },
        );
        self.process(&mut line);
        self.socket_facts(&mut line, sock);
        line
    }

    /// Who asked.
    pub(crate) fn via(&self, line: &mut Expect, via: &str) {
        let want = Want::is(via);
        line.set(
            "event.via",
            // contract.md: required on the other two.
            match self.ctx.backend {
                Backend::RawTp => want.maybe(),
                Backend::Tracing | Backend::Kprobe => want,
            },
        );
    }

    /// The calling thread and its process.
    fn process(&self, line: &mut Expect) {
        let Me {
            pid,
            tid,
            vpid,
            parent,
            uid,
            comm,
            executable,
            args,
            cgroup,
            netns: _,
        } = &self.me;
        line.is("process.pid", *pid)
            .is("thread.id", *tid)
            .is("process.parent_pid", *parent)
            .is("process.vpid", *vpid)
            .is("process.user.id", *uid)
            .is("process.comm", comm.as_str())
            .is("process.executable.path", executable.as_str())
            .is(
                "process.executable.name",
                executable.rsplit('/').next().unwrap_or_default(),
            )
            .is("process.command_args", json!(args))
            .set("process.creation.time", Want::Present);
        if let Some(cgroup) = cgroup {
            line.set("process.linux.cgroup", Want::is(cgroup.as_str()).known());
        }
    }

    /// The socket as it stands after the call.
    fn socket_facts(&self, line: &mut Expect, sock: &Sock) {
        let options = sock.options();
        for (name, value) in [
            ("reuseaddr", options.reuseaddr),
            ("reuseport", options.reuseport),
            ("v6only", options.v6only),
            ("freebind", options.freebind),
            ("transparent", options.transparent),
            ("bind_no_port", options.bind_no_port),
        ] {
            if let Some(value) = value {
                line.is(&format!("socket.{name}"), value);
            }
        }
        if sock.kind.is_mptcp() {
            // The kernel's bind() sets it on the socket inside, and the options of the outer one do
            // not show it.
            line.forget("socket.v6only");
        }
        line.set("socket.mptcp", truth(sock.kind.is_mptcp()));
        if let Ok((inode, uid)) = sock.inode_and_uid() {
            line.is("socket.inode", inode).is("socket.uid", uid);
        }
        if let Ok(cookie) = sock.cookie() {
            let cookie = self.cookie(cookie);
            // The programs act on the socket inside; the kernel gives no cookie to the outer one.
            let cookie = if sock.kind.is_mptcp() {
                cookie.known()
            } else {
                cookie
            };
            line.set("socket.cookie", cookie);
        }
    }

    /// A cookie that nobody had asked for before the call: bpf_get_socket_cookie() in a tracing
    /// program (not on 5.10) makes the kernel assign it, elsewhere it can only be read if assigned.
    fn cookie(&self, cookie: u64) -> Want {
        let want = Want::is(hex(cookie));
        if self.ctx.backend == Backend::Tracing && self.ctx.kernel > (5, 10) {
            want
        } else {
            want.known()
        }
    }

    /// Whether the local port is one the kernel itself gives out here.
    fn note_ephemeral(&self, line: &mut Expect) {
        if let Some(port) = line.port("network.local.port") {
            let ephemeral = (self.range.0..=self.range.1).contains(&port);
            line.set("network.local.ephemeral", Want::is(ephemeral).known());
        }
    }
}

/// A cookie as `ss -e` prints it.
pub(crate) fn hex(cookie: u64) -> String {
    format!("{cookie:x}")
}

/// connect() whose outcome is not yet known when it returns.
fn connect_starts(sock: &Sock, peer: Address, expected: Result<(), Errno>) -> Result<Pending> {
    let asked = sock.local();
    let before = clock::boot_ns();
    let result = sock.connect(&peer);
    ensure!(
        result == expected,
        "connect() gave {result:?} instead of {expected:?}"
    );
    Ok(Pending {
        before,
        asked,
        given: sock.local(),
        peer,
    })
}

/// A range on the clock, or of a duration on it.
fn within(low: u64, high: u64) -> Want {
    Want::Within(low.saturating_sub(CLOCK_SLACK), high + CLOCK_SLACK)
}

/// `true`, or what stands for `false`.
fn truth(value: bool) -> Want {
    if value { Want::is(true) } else { Want::NotTrue }
}

/// Whether the kernel chose the port, now or at an earlier bind(0); or would have, had it not refused.
fn set_auto_port(line: &mut Expect, sock: &Sock) {
    line.set(
        "socket.auto_port",
        truth(sock.origin.get() != Origin::Caller),
    );
}

/// An end of a socket, `network.local` or `network.peer`; port 0 is no port.
pub(crate) fn set_end(line: &mut Expect, end: &str, address: Option<SocketAddr>) {
    let path = |what: &str| format!("network.{end}.{what}");
    let Some(address) = address else { return };
    line.is(&path("address"), address.ip().to_string());
    if address.port() == 0 {
        line.set(&path("port"), Want::Absent);
        return;
    }
    line.is(&path("port"), address.port()).is(
        &path("port_class"),
        match address.port() {
            0..=1023 => "well_known",
            1024..=49151 => "registered",
            _ => "dynamic",
        },
    );
}
