//! Connections that are accepted.

use anyhow::{Context as _, Result};
use nix::errno::Errno;

use super::{Call, Script, set_end, truth};
use crate::{
    degraded::{self, Feature},
    sys::{
        clock,
        sock::{Kind, Sock},
    },
};

impl Script {
    /// accept() of a connection that is there, or comes, with its line.
    pub(crate) fn accept(&mut self, listener: &Sock) -> Result<Sock> {
        self.accept_by(listener, || listener.accept())
    }

    /// The same by whatever means.
    pub(crate) fn accept_by(
        &mut self,
        listener: &Sock,
        call: impl FnOnce() -> Result<Sock, Errno>,
    ) -> Result<Sock> {
        let before = clock::boot_ns();
        let accepted = call().with_context(|| format!("accept({:?})", listener.kind))?;
        self.accepted(&accepted, accepted.kind, before);
        Ok(accepted)
    }

    /// The line of a connection that was accepted since then; `kind` is what it is to the kernel.
    pub(crate) fn accepted(&mut self, accepted: &Sock, kind: Kind, before: u64) {
        let mut line = self.line("accept", accepted, Ok(()), before);
        set_end(&mut line, "local", accepted.local());
        set_end(&mut line, "peer", accepted.peer());
        line.set("socket.mptcp", truth(kind.is_mptcp()))
            .set("socket.auto_port", truth(false));
        self.note_ephemeral(&mut line);
        self.expect(line);
    }

    /// accept() that fails; its line is that of the listener.
    pub(crate) fn accept_refused<'a>(
        &'a mut self,
        listener: &Sock,
        feature: Feature,
        call: impl FnOnce() -> Result<Sock, Errno>,
    ) -> Call<'a> {
        let before = clock::boot_ns();
        let result = call().map(drop);
        let mut line = self.line("accept", listener, result, before);
        set_end(&mut line, "local", listener.local());
        line.forget("conflict.kind")
            .set("conflict", crate::expect::Want::Absent)
            .set("network.peer", crate::expect::Want::Absent);
        if let Some(why) = degraded::may_miss(self.ctx.backend, feature) {
            line.optional(why);
        }
        self.note_ephemeral(&mut line);
        Call {
            line: self.expect(line),
            what: format!("accept({:?})", listener.kind),
            result,
        }
    }
}
