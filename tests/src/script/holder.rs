//! What a line has to say of the sockets that were in the way.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::hex;
use crate::{
    expect::{Expect, Want},
    sys::{
        proc::Me,
        sock::{Kind, Options, Origin, Sock},
    },
};

/// `conflict.kind`, `.overlap` and `.reason`.
pub(crate) type Judged = (&'static str, &'static str, &'static str);

/// A socket as others see it: all that a conflict tells of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Portrait {
    pub(crate) kind: Kind,
    pub(crate) local: SocketAddr,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) inode: u64,
    uid: u32,
    options: Options,
    cookie: Option<u64>,
    origin: Origin,
    /// The process that made it.
    creator: u32,
}

impl Portrait {
    /// Of a socket of this process, as it stands now.
    pub(crate) fn of(sock: &Sock) -> Result<Self> {
        let (inode, uid) = sock.inode_and_uid()?;
        Ok(Self {
            kind: sock.kind,
            local: sock.local().context("a holder without an address")?,
            peer: sock.peer(),
            inode,
            uid,
            options: sock.options(),
            cookie: sock.cookie().ok(),
            origin: sock.origin.get(),
            creator: sock.creator,
        })
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.local.port()
    }
}

impl Expect {
    /// The conflict names this socket at this place, and says `state`.
    pub(crate) fn holder(&mut self, index: usize, sock: &Sock, state: &str) -> Result<&mut Self> {
        Ok(self.held_by(index, &Portrait::of(sock)?, state))
    }

    /// The conflict names the socket of this portrait at this place, and says `state`.
    pub(crate) fn held_by(&mut self, index: usize, sock: &Portrait, state: &str) -> &mut Self {
        let Portrait {
            kind,
            local,
            peer,
            inode,
            uid,
            options,
            cookie,
            origin,
            creator,
        } = sock;
        self.held(index, *kind, *local, *peer, state);
        let at = |path: &str| format!("conflict.holders.{index}.{path}");
        self.is(&at("socket.inode"), *inode)
            .is(&at("socket.uid"), *uid)
            .is(&at("socket.reuseaddr"), options.reuseaddr)
            .is(&at("socket.reuseport"), options.reuseport);
        if let Some(v6only) = options.v6only {
            self.is(&at("socket.v6only"), v6only);
        }
        if let Some(cookie) = cookie {
            self.set(&at("socket.cookie"), Want::is(hex(*cookie)).maybe());
        }
        // bind() and listen() are seen by every way in, and so is who called them.
        let noted = match origin {
            Origin::Caller | Origin::Kernel if state != "established" => {
                [Want::is(*creator), Want::Present]
            }
            _ => [Want::is(*creator).maybe(), Want::Present.maybe()],
        };
        let [creator_pid, since] = noted;
        self.is(&at("processes.0.pid"), *creator)
            .is(&at("process.pid"), *creator)
            .set(&at("creator.pid"), creator_pid)
            .set(&at("creator.exited"), Want::Absent)
            .set(&at("since"), since)
    }

    /// The process that has it first of all is this one, with everything that can be known of it.
    pub(crate) fn named(&mut self, index: usize, me: &Me) -> &mut Self {
        for entry in ["process", "processes.0"] {
            self.process_at(&format!("conflict.holders.{index}.{entry}"), me);
        }
        self
    }

    /// A process that stands at this path.
    pub(crate) fn process_at(&mut self, path: &str, me: &Me) -> &mut Self {
        let Me {
            pid,
            tid: _,
            vpid,
            parent,
            uid,
            comm,
            executable,
            args,
            cgroup,
            netns: _,
        } = me;
        let at = |name: &str| format!("{path}.{name}");
        self.is(&at("pid"), *pid)
            .is(&at("vpid"), *vpid)
            .is(&at("parent_pid"), *parent)
            .is(&at("user.id"), *uid)
            .is(&at("comm"), comm.as_str())
            .is(&at("executable.path"), executable.as_str())
            .is(
                &at("executable.name"),
                executable.rsplit('/').next().unwrap_or_default(),
            )
            .is(&at("command_args"), args.clone());
        if let Some(cgroup) = cgroup {
            self.is(&at("linux.cgroup"), cgroup.as_str());
        }
        self
    }

    /// How the conflict is judged: the kind, the overlap and the reason of the first socket in the way,
    /// which are those of the whole.
    pub(crate) fn judged(&mut self, (kind, overlap, reason): Judged) -> &mut Self {
        for at in ["conflict", "conflict.holders.0"] {
            self.is(&format!("{at}.kind"), kind)
                .is(&format!("{at}.overlap"), overlap)
                .is(&format!("{at}.reason"), reason);
        }
        self.set("conflict.message", Want::Present)
    }

    /// The call failed without a socket in the way.
    pub(crate) fn judged_alone(&mut self, kind: &str) -> &mut Self {
        self.is("conflict.kind", kind)
            .set("conflict.overlap", Want::Absent)
            .set("conflict.reason", Want::Absent)
            .set("conflict.message", Want::Present)
    }

    /// The message has all of these words in it.
    pub(crate) fn says(&mut self, words: &[&str]) -> &mut Self {
        self.set("conflict.message", Want::says(words))
    }

    /// The hint has all of these words in it.
    pub(crate) fn advises(&mut self, words: &[&str]) -> &mut Self {
        self.set("conflict.hint", Want::says(words))
    }

    /// The conflict names a socket that no descriptor leads to, such as one in TIME_WAIT.
    pub(crate) fn held(
        &mut self,
        index: usize,
        kind: Kind,
        local: SocketAddr,
        peer: Option<SocketAddr>,
        state: &str,
    ) -> &mut Self {
        let at = |path: &str| format!("conflict.holders.{index}.{path}");
        self.is(&at("network.transport"), kind.transport())
            .is(
                &at("network.type"),
                if kind.is_v6() { "ipv6" } else { "ipv4" },
            )
            .is(&at("network.local.address"), local.ip().to_string())
            .is(&at("network.local.port"), local.port())
            .is(&at("network.connection.state"), state)
            .set("conflict.truncated", Want::NotTrue);
        if let Some(peer) = peer {
            self.is(&at("network.peer.address"), peer.ip().to_string())
                .is(&at("network.peer.port"), peer.port());
        } else {
            self.set(&at("network.peer"), Want::Absent);
        }
        self
    }

    /// So many ports of the range are used, so many of them by connections in TIME_WAIT, and so many by
    /// this process.
    pub(crate) fn used(&mut self, used: u64, time_wait: u64, pid: u32, count: u64) -> &mut Self {
        let at = |path: &str| format!("conflict.exhausted.{path}");
        self.is(&at("used"), used)
            .is(&at("time_wait"), time_wait)
            .is(&at("top.0.process.pid"), pid)
            .is(&at("top.0.count"), count)
            .set(&at("top.1"), Want::Absent)
    }

    /// The listen() opens a port that nobody chose, because this bind() before it was refused.
    pub(crate) fn opened_after(&mut self, asked: SocketAddr, errno: Errno) -> &mut Self {
        let at = |path: &str| format!("warning.refused.{path}");
        self.forget("warning")
            .is("warning.kind", "listen_after_failed_bind")
            .is(&at("error.type"), format!("{errno:?}"))
            .is(&at("network.local.address"), asked.ip().to_string())
            .set("warning.message", Want::Present)
            .set("warning.hint", Want::Present)
            .is("socket.auto_port", true);
        let port = match asked.port() {
            0 => Want::Absent,
            port => Want::is(port),
        };
        self.set(&at("network.local.port"), port)
    }

    /// How many owners the port has.
    pub(crate) fn holders_total(&mut self, total: u64) -> &mut Self {
        self.is("conflict.holders_total", total)
    }
}
