//! Holders that are several processes, or end.

use super::*;

/// The parent has closed it, the child has it still.
pub(super) fn conflict_inherited_descriptor(s: &mut Script) -> Result<()> {
    let holder = s.listener(Kind::Tcp4, (LO4, 8080))?;
    let child = task::Background::spawn(|| {
        loop {
            std::thread::park();
        }
    })?;
    let late = s.socket(Kind::Tcp4)?;
    let line = s.bind(&late, (LO4, 8080)).fails(Errno::EADDRINUSE)?;
    line.holder(0, &holder, "listen")?
        .judged(("listener", "exact", "no_reuse"))
        .is("conflict.holders.0.processes.1.pid", child.pid())
        .holders_total(1);
    // Both are looked at when the event has arrived: they have to have it still.
    std::thread::sleep(Duration::from_millis(200));
    let creator = holder.creator;
    drop(holder);
    let again = s.bind(&late, (LO4, 8080)).result();
    anyhow::ensure!(
        again == Err(Errno::EADDRINUSE),
        "the child does not hold it: {again:?}"
    );
    // The same holder as before, though this process can no longer look at it.
    let lines = s.lines();
    let copy = lines.len() - 2;
    let inode = lines[copy]
        .wanted("conflict.holders.0.socket.inode")
        .cloned();
    if let (Some(inode), Some(last)) = (inode, lines.last_mut()) {
        last.set("conflict.holders.0.socket.inode", inode)
            .judged(("listener", "exact", "no_reuse"))
            .is("conflict.holders.0.creator.pid", creator)
            .set("conflict.holders.0.creator.exited", Want::Absent)
            .is("conflict.holders.0.processes.0.pid", child.pid())
            .set("conflict.holders.0.processes.1", Want::Absent)
            .says(&[
                "bound by this very process",
                "which has closed it, still open in",
            ]);
    }
    std::thread::sleep(Duration::from_millis(200));
    drop(child);
    Ok(())
}

/// Two processes want the same port: the usual case.
pub(super) fn conflict_of_two_processes(s: &mut Script) -> Result<()> {
    let holder = s.listener(Kind::Tcp4, (ANY4, 8080))?;
    s.forked(|s| {
        let late = s.socket(Kind::Tcp4)?;
        let own = s.me.pid;
        s.bind(&late, (ANY4, 8080))
            .fails(Errno::EADDRINUSE)?
            .holder(0, &holder, "listen")?
            .judged(("listener", "exact", "no_reuse"))
            .is("conflict.holders.0.processes.1.pid", own)
            .holders_total(1);
        std::thread::sleep(Duration::from_millis(200));
        Ok(())
    })?;
    Ok(())
}

/// A child has inherited the socket, and is gone before anybody could look at its descriptors.
pub(super) fn conflict_of_short_lived_heir(s: &mut Script) -> Result<()> {
    let holder = s.listener(Kind::Tcp4, (ANY4, 8080))?;
    for _ in 0..3 {
        s.forked(|s| {
            let late = s.socket(Kind::Tcp4)?;
            let own = s.me.pid;
            s.bind(&late, (ANY4, 8080))
                .fails(Errno::EADDRINUSE)?
                .holder(0, &holder, "listen")?
                .judged(("listener", "exact", "no_reuse"))
                .is("conflict.holders.0.processes.1.pid", own)
                .holders_total(1)
                .says(&["held by this very process", "and 1 other"]);
            Ok(())
        })?;
    }
    Ok(())
}

/// Once the holder is gone the same socket may bind.
pub(super) fn conflict_ended_with_the_holder(s: &mut Script) -> Result<()> {
    let holder = s.listener(Kind::Tcp4, (LO4, 8080))?;
    let late = s.socket(Kind::Tcp4)?;
    refused(
        s,
        &late,
        LO4,
        &holder,
        "listen",
        ("listener", "exact", "no_reuse"),
    )?;
    drop(holder);
    s.bind(&late, (LO4, 8080)).ok()?;
    Ok(())
}
