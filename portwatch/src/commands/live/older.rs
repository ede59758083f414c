//! Sockets that are older than the trace: where they are is looked up once, when the hooks are attached,
//! so that whoever has one is found at once when it is in the way. What happens meanwhile waits in the
//! ring. Nobody is named from memory (`enrich::descriptors`), so that nothing here can become wrong.

use std::{
    fs::File,
    io,
    time::{Duration, Instant},
};

use crate::{
    enrich::descriptors::{Entry, LIMIT},
    errno,
    load::Loaded,
    plan::{Plan, Snapshot},
    source::descriptors,
};

use super::{
    Notes,
    stream::{News, Stream},
};

/// How they are to be found.
pub(super) enum Way {
    /// Nothing needs them.
    Unneeded,
    /// By reading what the kernel's iterator writes.
    Iterator(File),
    /// In `/proc`, for this reason.
    Procfs(String),
}

/// Gets what the plan says, as long as the kernel lets us: reading it later takes no privilege. `/proc` if
/// it refuses the iterator after all.
pub(super) fn ask(loaded: &mut Loaded, plan: &Plan) -> Way {
    match &plan.snapshot {
        Snapshot::Unneeded => Way::Unneeded,
        Snapshot::Procfs(reason) => Way::Procfs(reason.clone()),
        Snapshot::Iterator(iterator) => match loaded.descriptors(*iterator) {
            Ok(file) => Way::Iterator(file),
            Err(error) => Way::Procfs(words(error.into())),
        },
    }
}

/// Looks them up that way; in `/proc` too if reading fails.
pub(super) fn look_up(
    stream: &mut Stream<'_, impl FnMut() -> io::Result<News>>,
    way: Way,
    say: &Notes,
) {
    let began = Instant::now();
    let reason = match way {
        Way::Unneeded => return,
        Way::Procfs(reason) => reason,
        Way::Iterator(file) => match by_iterator(file) {
            Ok(entries) => {
                let count = stream.remember(entries);
                told(say, count, began.elapsed(), "by the kernel's iterator");
                return;
            }
            Err(error) => words(error),
        },
    };
    let count = stream.look_around();
    told(say, count, began.elapsed(), &format!("in /proc: {reason}"));
}

fn words(error: anyhow::Error) -> String {
    errno::words(&format_args!("{error:#}"))
}

fn told(say: &Notes, count: usize, time: Duration, how: &str) {
    let ms = time.as_millis();
    say.detail(|| format!("{count} descriptors of sockets found in {ms} ms, {how}"));
}

fn by_iterator(file: File) -> anyhow::Result<Vec<Entry>> {
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
