//! Sockets that are older than the trace: where they are is looked up once, when the hooks are attached,
//! so that whoever has one is found at once when it is in the way. What happens meanwhile waits in the
//! ring. Nobody is named from memory (`enrich::descriptors`), so that nothing here can become wrong.

use std::{
    io,
    time::{Duration, Instant},
};

use crate::{
    enrich::descriptors::{Entry, LIMIT},
    errno,
    load::Loaded,
    plan::{Attachment, Plan, Snapshot},
    source::descriptors,
};

use super::{
    Notes,
    stream::{News, Stream},
};

/// Looks them up as the plan says; in `/proc` too if the kernel refuses the iterator after all.
pub(super) fn look_up(
    stream: &mut Stream<'_, impl FnMut() -> io::Result<News>>,
    loaded: &mut Loaded,
    plan: &Plan,
    say: &Notes,
) {
    let began = Instant::now();
    let reason = match &plan.snapshot {
        Snapshot::Unneeded => return,
        Snapshot::Procfs(reason) => reason.clone(),
        Snapshot::Iterator(iterator) => match by_iterator(loaded, *iterator) {
            Ok(entries) => {
                let count = stream.remember(entries);
                told(say, count, began.elapsed(), "by the kernel's iterator");
                return;
            }
            Err(error) => errno::words(&format_args!("{error:#}")),
        },
    };
    let count = stream.look_around();
    told(say, count, began.elapsed(), &format!("in /proc: {reason}"));
}

fn told(say: &Notes, count: usize, time: Duration, how: &str) {
    let ms = time.as_millis();
    say.detail(|| format!("{count} descriptors of sockets found in {ms} ms, {how}"));
}

fn by_iterator(loaded: &mut Loaded, iterator: Attachment) -> anyhow::Result<Vec<Entry>> {
    let file = loaded.descriptors(iterator)?;
    let mut entries = Vec::new();
    descriptors::read(file, |descriptor| {
        let inode = descriptor.socket.socket.inode;
        // What a thread has for itself does not stand in /proc/PID/fd, where it would be looked for.
        if let Some(inode) = inode.filter(|_| !descriptor.of_thread)
            && entries.len() < LIMIT
        {
            entries.push(Entry {
                inode,
                pid: descriptor.pid,
                fd: descriptor.fd,
            });
        }
    })?;
    Ok(entries)
}
