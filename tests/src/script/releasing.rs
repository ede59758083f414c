//! Ports that are free again.

use std::net::SocketAddr;

use super::Script;
use crate::{
    expect::{Expect, Want},
    sys::{clock, sock::Kind},
};

/// A port whose last socket is going to leave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Port {
    /// Of that socket.
    pub(crate) kind: Kind,
    /// Its address.
    pub(crate) local: SocketAddr,
    /// Before the first socket got it, CLOCK_BOOTTIME, ns.
    pub(crate) since: u64,
}

impl Script {
    /// The line of a port whose last socket this process has closed.
    pub(crate) fn released(&mut self, port: Port, reason: &str) -> &mut Expect {
        let mut line = self.free(port, reason);
        self.process(&mut line);
        // Who they were is noted with the port, which is later than that.
        line.forget("process.linux.cgroup");
        self.expect(line)
    }

    /// The same where some other process had the port last.
    pub(crate) fn released_by(&mut self, pid: u32, port: Port, reason: &str) -> &mut Expect {
        let mut line = self.free(port, reason);
        line.is("process.pid", pid);
        self.expect(line)
    }

    fn free(&self, port: Port, reason: &str) -> Expect {
        let Port { kind, local, since } = port;
        let now = clock::boot_ns();
        let mut line = Expect::default();
        line.is("schema", "portwatch/1")
            .is("event.name", "release")
            .is("event.outcome", "success")
            .is("event.reason", reason)
            .is("event.via", "implicit")
            .set("event.duration", Want::Absent)
            .is("network.transport", kind.transport())
            .is("network.type", if kind.is_v6() { "ipv6" } else { "ipv4" })
            .is("network.local.address", local.ip().to_string())
            .is("network.local.port", local.port())
            .set("network.peer", Want::Absent)
            .is("socket.netns", self.me.netns)
            .set("release.held", super::within(0, now - since))
            .set("conflict", Want::Absent);
        line
    }
}
