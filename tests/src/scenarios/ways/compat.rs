//! Calls of 32-bit programs.

use anyhow::{Result, ensure};
use nix::errno::Errno;

use super::LO4;
use crate::{
    degraded::{self, Feature},
    expect::Expect,
    scenarios::{Scenario, scenarios},
    script::{Script, skip},
    sys::{
        addr::Address,
        compat::{self, Convention, LowPage},
        sock::Kind,
    },
};

pub(super) const ALL: &[Scenario] = scenarios![way_int80, way_socketcall];

fn way_int80(s: &mut Script) -> Result<()> {
    thirty_two_bit(s, Convention::Numbers)
}

fn way_socketcall(s: &mut Script) -> Result<()> {
    thirty_two_bit(s, Convention::Socketcall)
}

/// A server, somebody who wants its port too, and a client.
fn thirty_two_bit(s: &mut Script, convention: Convention) -> Result<()> {
    if let Some(why) = compat::missing()? {
        return skip(why);
    }
    let unseen = match convention {
        Convention::Numbers => None,
        Convention::Socketcall => degraded::may_miss(s.ctx.backend, Feature::Socketcall),
    };
    let note = |line: &mut Expect| {
        if let Some(why) = unseen {
            line.optional(why);
        }
    };
    let page = LowPage::new()?;
    let address = Address::from((LO4, 8080));
    let bind = |fd| convention.bind(&page, fd, address.bytes());
    let server = s.socket(Kind::Tcp4)?;
    let call = s.bind_by(&server, &address, Feature::Early, || bind(server.fd()));
    note(call.ok()?);
    let call = s.listen_by(&server, 16, || convention.listen(&page, server.fd(), 16));
    note(call.ok()?);
    let late = s.socket(Kind::Tcp4)?;
    let call = s.bind_by(&late, &address, Feature::Early, || bind(late.fd()));
    let line = call.fails(Errno::EADDRINUSE)?;
    line.is("conflict.holders.0.network.local.port", 8080)
        .judged(("listener", "exact", "no_reuse"));
    note(line);
    let client = s.socket(Kind::Tcp4)?;
    let call = s.connect_by(&client, &address, || {
        convention.connect(&page, client.fd(), address.bytes())
    });
    call.ok()?;
    let nobody = Address::from((LO4, 8081));
    let refused = s.socket(Kind::Tcp4)?;
    let call = s.connect_by(&refused, &nobody, || {
        convention.connect(&page, refused.fd(), nobody.bytes())
    });
    call.fails(Errno::ECONNREFUSED)?;
    ensure!(server.accept().is_ok(), "nobody to accept");
    s.control()
}
