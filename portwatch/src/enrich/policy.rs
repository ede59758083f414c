//! The cgroup programs that may have refused a call.

use std::io;

use crate::{
    event::{Backend, Errno, Event, Family, Op, Outcome, PolicyProgram},
    host::cgroup_programs::{self, Attach, Attached},
};

/// The programs that the kernel asks for such a call (net/ipv4/af_inet.c, net/ipv6/af_inet6.c): by the family
/// of the socket, not of the address.
#[must_use]
pub const fn asked(event: &Event) -> &'static [Attach] {
    match (event.op, event.family) {
        (Op::Bind, Family::Ipv4) => &[Attach::Bind4, Attach::PostBind4],
        (Op::Bind, Family::Ipv6) => &[Attach::Bind6, Attach::PostBind6],
        (Op::Connect, Family::Ipv4) => &[Attach::Connect4],
        (Op::Connect, Family::Ipv6) => &[Attach::Connect6],
        (Op::Listen | Op::Autobind | Op::Accept | Op::Release, _) => &[],
    }
}

/// Whether it was a program: where a refusal by a security module would have been seen, and with an errno
/// that no other part of bind() and connect() chooses.
#[must_use]
pub fn is_program(event: &Event, backend: Backend) -> bool {
    let refused = Outcome::Failure(Errno(libc::EPERM.unsigned_abs()));
    backend != Backend::RawTp && event.outcome == refused && !asked(event).is_empty()
}

/// Those on the cgroup at `path` and above.
///
/// # Errors
/// See [`cgroup_programs::of`].
pub fn programs(path: &str, kinds: &[Attach]) -> io::Result<Vec<PolicyProgram>> {
    let told = |attached| {
        let Attached {
            id,
            name,
            attach,
            cgroup,
        } = attached;
        PolicyProgram {
            id,
            name,
            attach_type: attach.as_str(),
            cgroup,
        }
    };
    let found = cgroup_programs::of(path, kinds)?;
    Ok(found.into_iter().map(told).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{connect, failed, sighting};

    #[test]
    fn a_program_is_only_blamed_where_nobody_else_can_be() {
        let bind = || sighting(Op::Bind, "[::]:80");
        let refused = failed(bind(), libc::EPERM);
        assert!(is_program(&refused.event, Backend::Tracing));
        assert!(is_program(&refused.event, Backend::Kprobe));
        assert!(!is_program(&refused.event, Backend::RawTp));
        let chosen = failed(bind(), libc::EACCES);
        assert!(!is_program(&chosen.event, Backend::Tracing));
        let listen = failed(sighting(Op::Listen, "[::]:80"), libc::EPERM);
        assert!(!is_program(&listen.event, Backend::Tracing));
        let refused = failed(connect("10.0.0.1:1", "10.0.0.9:443"), libc::EPERM);
        assert!(is_program(&refused.event, Backend::Tracing));
        assert_eq!(asked(&refused.event), [Attach::Connect4]);
    }
}
