//! SO_REUSEADDR and SO_REUSEPORT.

use super::*;

pub(super) fn conflict_reuseaddr_bound_both_is_none(s: &mut Script) -> Result<()> {
    let first = s.socket(Kind::Tcp4)?.reuseaddr()?;
    s.bind(&first, (ANY4, 8080)).ok()?;
    let second = s.socket(Kind::Tcp4)?.reuseaddr()?;
    s.bind(&second, (LO4, 8080)).ok()?;
    Ok(())
}

pub(super) fn conflict_reuseaddr_one_sided(s: &mut Script) -> Result<()> {
    let holder = s.socket(Kind::Tcp4)?.reuseaddr()?;
    s.bind(&holder, (LO4, 8080)).ok()?;
    let late = s.socket(Kind::Tcp4)?;
    refused(
        s,
        &late,
        LO4,
        &holder,
        "closed",
        ("bound", "exact", "reuse_missing_self"),
    )?;
    let late = late.reuseaddr()?;
    s.bind(&late, (LO4, 8080)).ok()?;
    let without = s.bound(Kind::Tcp4, (LO4, 8081))?;
    let late = s.socket(Kind::Tcp4)?.reuseaddr()?;
    refused(
        s,
        &late,
        LO4,
        &without,
        "closed",
        ("bound", "exact", "reuse_missing_holder"),
    )
}

pub(super) fn conflict_reuseaddr_listening(s: &mut Script) -> Result<()> {
    let holder = s.socket(Kind::Tcp4)?.reuseaddr()?;
    s.bind(&holder, (LO4, 8080)).ok()?;
    s.listen(&holder, 5).ok()?;
    let late = s.socket(Kind::Tcp4)?.reuseaddr()?;
    refused(
        s,
        &late,
        LO4,
        &holder,
        "listen",
        ("listener", "exact", "reuse_listening"),
    )
}

pub(super) fn conflict_reuseport_is_none(s: &mut Script) -> Result<()> {
    for kind in [Kind::Tcp4, Kind::Udp4] {
        let first = s.socket(kind)?.reuseport()?;
        s.bind(&first, (LO4, 8080)).ok()?;
        let second = s.socket(kind)?.reuseport()?;
        s.bind(&second, (LO4, 8080)).ok()?;
        if kind == Kind::Tcp4 {
            s.listen(&first, 5).ok()?;
            s.listen(&second, 5).ok()?;
        }
    }
    Ok(())
}

pub(super) fn conflict_reuseport_missing(s: &mut Script) -> Result<()> {
    let holder = s.socket(Kind::Tcp4)?.reuseport()?;
    s.bind(&holder, (LO4, 8080)).ok()?;
    s.listen(&holder, 5).ok()?;
    let late = s.socket(Kind::Tcp4)?;
    refused(
        s,
        &late,
        LO4,
        &holder,
        "listen",
        ("listener", "exact", "reuseport_missing_self"),
    )?;
    let late = s.socket(Kind::Tcp4)?.reuseaddr()?;
    refused(
        s,
        &late,
        LO4,
        &holder,
        "listen",
        ("listener", "exact", "reuse_mismatch"),
    )
}

pub(super) fn conflict_reuseport_other_user(s: &mut Script) -> Result<()> {
    for (kind, state, judged) in [
        (Kind::Tcp4, "listen", ("listener", "exact", "reuseport_uid")),
        (Kind::Udp4, "closed", ("bound", "exact", "reuseport_uid")),
    ] {
        let holder = s.socket(kind)?.reuseport()?;
        s.bind(&holder, (LO4, 8080)).ok()?;
        if kind == Kind::Tcp4 {
            s.listen(&holder, 5).ok()?;
        }
        let late = task::with_effective_user(65534, || s.socket(kind))??.reuseport()?;
        refused(s, &late, LO4, &holder, state, judged)?;
        s.last()?.says(&[
            "SO_REUSEPORT shares a port among sockets of one user only",
            "yours is of uid 65534, this one of uid 0",
        ]);
    }
    Ok(())
}

pub(super) fn conflict_reuse_mixed_udp(s: &mut Script) -> Result<()> {
    let holder = s.bound(Kind::Udp4, (LO4, 5353))?;
    let late = s.socket(Kind::Udp4)?.reuseaddr()?;
    refused(
        s,
        &late,
        LO4,
        &holder,
        "closed",
        ("bound", "exact", "reuse_missing_holder"),
    )?;
    let holder = s.socket(Kind::Udp4)?.reuseaddr()?;
    s.bind(&holder, (LO4, 5354)).ok()?;
    let late = s.socket(Kind::Udp4)?.reuseport()?;
    refused(
        s,
        &late,
        LO4,
        &holder,
        "closed",
        ("bound", "exact", "reuse_mismatch"),
    )
}
