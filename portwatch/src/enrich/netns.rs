//! What a network namespace knows: its range of automatic ports, the names of its interfaces.
//!
//! Both are read where they are valid, by a thread that enters the namespace for a moment. Nothing
//! is kept open: a descriptor would keep the namespace alive after its container.

use std::{
    fs::{self, File},
    num::NonZeroUsize,
    ops::RangeInclusive,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use lru::LruCache;
use nix::{
    net::if_::if_indextoname,
    sched::{CloneFlags, setns},
};

use crate::event::{Family, Task, range};

/// Namespaces remembered.
const CAPACITY: NonZeroUsize = NonZeroUsize::MIN.saturating_add(255);

/// How long a reading holds, ns of event time. Ranges and names change, and nobody says so; a
/// namespace's inode is given out again.
const VALIDITY: u64 = 1_000_000_000;

/// The namespace that the calling thread is in.
pub(crate) const OWN: &str = "/proc/thread-self/ns/net";

/// Where namespaces get names: iproute2's directory and Docker's.
pub(crate) const NAMED: [&str; 2] = ["/run/netns", "/run/docker/netns"];

/// What is known of the place of a socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// `ip_local_port_range`.
    pub range: Option<RangeInclusive<u16>>,
    /// Name of the interface asked for.
    pub interface: Option<Arc<str>>,
}

/// What a network namespace says of ports beyond the range: asked only where a call was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// `ip_local_port_range`.
    pub range: Option<RangeInclusive<u16>>,
    /// `ip_local_reserved_ports`: ports that only those get who name them.
    pub reserved: Option<Vec<RangeInclusive<u16>>>,
    /// `ip_unprivileged_port_start`: ports below need CAP_NET_BIND_SERVICE.
    pub unprivileged_start: Option<u16>,
}

impl Limits {
    /// Of the namespace that the calling thread is in.
    pub(crate) fn read() -> Self {
        Self {
            range: sysctl("ip_local_port_range").and_then(|text| parse_range(&text)),
            reserved: sysctl("ip_local_reserved_ports").and_then(|text| parse_list(&text)),
            // Since 4.11 (Documentation/networking/ip-sysctl.rst).
            unprivileged_start: sysctl("ip_unprivileged_port_start")
                .and_then(|text| text.trim().parse().ok()),
        }
    }

    /// Those of a socket with a range of its own.
    #[must_use]
    pub fn of_socket(mut self, own: Option<&RangeInclusive<u16>>) -> Self {
        self.range = self.range.map(|range| range::effective(range, own));
        self
    }

    /// How many ports of the range are reserved; `None` where either is not known.
    #[must_use]
    pub fn reserved_in_range(&self) -> Option<u32> {
        let range = self.range.as_ref()?;
        let inside = |list: &RangeInclusive<u16>| {
            let low = *list.start().max(range.start());
            let high = *list.end().min(range.end());
            (u32::from(high) + 1).saturating_sub(low.into())
        };
        Some(self.reserved.as_ref()?.iter().map(inside).sum())
    }
}

/// `ip_autobind_reuse` of the namespace that the calling thread is in (since 5.7): whether bind() may take a
/// port that sockets with SO_REUSEADDR have, when no other is left. `None` where it cannot be read.
pub(crate) fn reuses_for_bind() -> Option<bool> {
    Some(sysctl("ip_autobind_reuse")?.trim() != "0")
}

/// The network namespaces seen so far.
#[derive(Debug)]
pub struct Namespaces {
    own: Option<u32>,
    known: LruCache<u32, Reading>,
    /// With when and through which process they were read, CLOCK_BOOTTIME, ns: whoever is refused in a loop
    /// is not to cost a thread each time.
    limits: LruCache<u32, (u64, u32, Limits)>,
}

/// What was read of a namespace.
#[derive(Debug, Default)]
struct Reading {
    /// CLOCK_BOOTTIME, ns.
    time: u64,
    /// Through which process. Another one may get further.
    pid: u32,
    range: Option<RangeInclusive<u16>>,
    /// The interfaces asked for so far.
    names: Vec<(u32, Option<Arc<str>>)>,
}

impl Reading {
    /// Whether this answers a question asked at `now` on behalf of `pid`.
    fn answers(&self, now: u64, pid: u32, device: Option<u32>) -> bool {
        now.saturating_sub(self.time) < VALIDITY
            && (self.range.is_some() || self.pid == pid)
            && device.is_none_or(|device| self.names.iter().any(|&(index, _)| index == device))
    }

    fn place(&self, device: Option<u32>) -> Place {
        Place {
            range: self.range.clone(),
            interface: device.and_then(|device| {
                let (_, name) = self.names.iter().find(|&&(index, _)| index == device)?;
                name.clone()
            }),
        }
    }
}

impl Namespaces {
    /// Notes which namespace the calling thread is in.
    #[must_use]
    pub fn new() -> Self {
        Self {
            // Of the thread: it may have entered another one than its process.
            own: fs::metadata(OWN)
                .ok()
                .and_then(|metadata| u32::try_from(metadata.ino()).ok()),
            known: LruCache::new(CAPACITY),
            limits: LruCache::new(CAPACITY),
        }
    }

    /// The port range of a namespace, and the name of one of its interfaces, for an event of `task`
    /// at `now` (CLOCK_BOOTTIME, ns). Both are unknown where no way leads into the namespace.
    pub fn place(&mut self, netns: u32, task: &Task, device: Option<u32>, now: u64) -> Place {
        self.known.promote(&netns);
        if let Some(reading) = self.known.peek(&netns)
            && reading.answers(now, task.pid, device)
            && self.is_same(netns, reading.pid, task)
        {
            return reading.place(device);
        }
        let (range, name) = if self.own == Some(netns) {
            read(device)
        } else {
            enter(netns, task)
                .and_then(|namespace| run_inside(namespace, move || read(device)))
                .unwrap_or_default()
        };
        let names = match device {
            Some(device) => {
                // One that was asked about for the same moment is still good.
                let mut names = self
                    .known
                    .pop(&netns)
                    .filter(|reading| now.saturating_sub(reading.time) < VALIDITY)
                    .map(|reading| reading.names)
                    .unwrap_or_default();
                names.retain(|&(index, _)| index != device);
                names.push((device, name));
                names
            }
            None => Vec::new(),
        };
        let reading = Reading {
            time: now,
            pid: task.pid,
            range,
            names,
        };
        let place = reading.place(device);
        self.known.put(netns, reading);
        place
    }

    /// What a namespace says of ports, for an event of `task` at `now` (CLOCK_BOOTTIME, ns).
    pub fn limits(&mut self, netns: u32, task: &Task, now: u64) -> Limits {
        self.limits.promote(&netns);
        if let Some((time, pid, limits)) = self.limits.peek(&netns)
            && now.saturating_sub(*time) < VALIDITY
            && self.is_same(netns, *pid, task)
        {
            return limits.clone();
        }
        let limits = self.inside(netns, task, Limits::read).unwrap_or_default();
        self.limits.put(netns, (now, task.pid, limits.clone()));
        limits
    }

    /// Whether a namespace, of which the process `pid` told something, is still the one that an event of
    /// `task` means: inodes are given out again.
    #[must_use]
    pub fn is_same(&self, netns: u32, pid: u32, task: &Task) -> bool {
        pid == task.pid || self.own == Some(netns) || is_in(pid, netns)
    }

    /// Does something in a network namespace; `None` where no way leads into it. Not for every
    /// event: it costs a thread.
    pub fn inside<T: Send + 'static>(
        &self,
        netns: u32,
        task: &Task,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        if self.own == Some(netns) {
            return Some(work());
        }
        run_inside(enter(netns, task)?, work)
    }
}

impl Default for Namespaces {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether a process is in this namespace: then its inode still means the namespace that was read
/// through that process.
fn is_in(pid: u32, netns: u32) -> bool {
    fs::metadata(format!("/proc/{pid}/ns/net"))
        .is_ok_and(|metadata| metadata.ino() == u64::from(netns))
}

type Found = (Option<RangeInclusive<u16>>, Option<Arc<str>>);

/// Reads the namespace that the calling thread is in.
fn read(device: Option<u32>) -> Found {
    (
        sysctl("ip_local_port_range").and_then(|text| parse_range(&text)),
        device
            .and_then(|device| if_indextoname(device).ok())
            // nix 0.31 takes the null of an index without interface for success.
            .filter(|name| !name.is_empty())
            .map(|name| name.to_string_lossy().into()),
    )
}

/// Does something in another namespace, in a thread of its own: setns(2) changes the calling thread
/// alone, and a thread that is over needs no way back.
pub(crate) fn run_inside<T: Send + 'static>(
    namespace: File,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    thread::Builder::new()
        .name("netns".to_owned())
        .stack_size(128 * 1024)
        .spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).ok()?;
            Some(work())
        })
        .ok()?
        .join()
        .ok()?
}

/// Opens a network namespace by its inode: through the process that made the call, its parent, or a
/// name that was given to it.
fn enter(netns: u32, task: &Task) -> Option<File> {
    let processes = [Some(task.pid), task.parent_pid]
        .into_iter()
        .flatten()
        .filter(|&pid| pid != 0)
        .map(|pid| PathBuf::from(format!("/proc/{pid}/ns/net")));
    let named = NAMED
        .iter()
        .filter_map(|directory| fs::read_dir(directory).ok())
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()));
    processes
        .chain(named)
        .find_map(|path| open_if(&path, netns))
}

/// Opens a file if it has that inode: looked at through the descriptor, so that what is entered is
/// what was looked at.
pub(crate) fn open_if(path: &Path, inode: u32) -> Option<File> {
    let file = File::open(path).ok()?;
    (file.metadata().ok()?.ino() == u64::from(inode)).then_some(file)
}

/// A variable of the namespace that the calling thread is in.
pub(crate) fn sysctl(name: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).ok()
}

/// Whether its sockets may be bound to addresses that no interface has (`ip_nonlocal_bind`).
pub(crate) fn allows_nonlocal(family: Family) -> bool {
    let family = family.as_str();
    fs::read_to_string(format!("/proc/sys/net/{family}/ip_nonlocal_bind"))
        .is_ok_and(|text| text.trim() != "0")
}

/// The list of `ip_local_reserved_ports`, `8080,9000-9100`; an empty line is an empty list. The kernel
/// writes it sorted, and no port twice.
fn parse_list(text: &str) -> Option<Vec<RangeInclusive<u16>>> {
    let text = text.trim();
    if text.is_empty() {
        return Some(Vec::new());
    }
    text.split(',')
        .map(|item| {
            let (low, high) = item.split_once('-').unwrap_or((item, item));
            Some(low.parse().ok()?..=high.parse().ok()?)
        })
        .collect()
}

/// The two numbers of `ip_local_port_range`.
fn parse_range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut numbers = text.split_ascii_whitespace().map(str::parse);
    let low = numbers.next()?.ok()?;
    let high = numbers.next()?.ok()?;
    (low <= high).then_some(low..=high)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::{
        io::{BufRead, BufReader},
        process::{Child, Command, Stdio},
    };

    use proptest::prelude::*;

    use super::*;

    fn inode_of(pid: u32) -> u32 {
        let metadata = fs::metadata(format!("/proc/{pid}/ns/net")).unwrap();
        metadata.ino().try_into().unwrap()
    }

    fn task(pid: u32) -> Task {
        Task {
            pid,
            ..Task::default()
        }
    }

    /// A process in a network namespace of its own with a port range of its own.
    struct Tenant(Child);

    impl Tenant {
        fn start(range: &str) -> Option<Self> {
            let script = format!(
                "echo {range} > /proc/sys/net/ipv4/ip_local_port_range && echo ready && exec sleep 60"
            );
            let mut child = Command::new("unshare")
                .args(["--net", "sh", "-c", &script])
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .ok()?;
            let mut line = String::new();
            BufReader::new(child.stdout.take()?)
                .read_line(&mut line)
                .ok()?;
            let tenant = Self(child);
            (line == "ready\n").then_some(tenant)
        }
    }

    impl Drop for Tenant {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    #[test]
    fn reserved_ports_of_the_range_are_counted() {
        let limits = |range, text| Limits {
            range: Some(range),
            reserved: parse_list(text),
            unprivileged_start: None,
        };
        for (text, count) in [
            ("\n", Some(0)),
            ("8080\n", Some(0)),
            ("32768\n", Some(1)),
            ("1-65535\n", Some(28_232)),
            ("8080,40000-40009,60999-61010\n", Some(11)),
            ("what\n", None),
        ] {
            assert_eq!(
                limits(32_768..=60_999, text).reserved_in_range(),
                count,
                "{text}"
            );
        }
        assert_eq!(Limits::default().reserved_in_range(), None);
        let own = Limits::read();
        assert!(own.range.is_some() && own.unprivileged_start.is_some());
        assert!(own.reserved_in_range().is_some());
    }

    #[test]
    fn the_own_namespace_is_read_in_place() {
        let own = std::process::id();
        let place = Namespaces::new().place(inode_of(own), &task(own), Some(1), 0);
        let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
        assert_eq!(place.range, parse_range(&text));
        assert_eq!(place.interface.as_deref(), Some("lo"));
    }

    #[test]
    fn another_namespace_has_its_own_range() {
        let Some(tenant) = Tenant::start("20000 20099") else {
            println!("skip: cannot make a network namespace");
            return;
        };
        let pid = tenant.0.id();
        let mut namespaces = Namespaces::new();
        let place = namespaces.place(inode_of(pid), &task(pid), Some(1), 0);
        assert_eq!(place.range, Some(20000..=20099));
        assert_eq!(place.interface.as_deref(), Some("lo"));
        // The thread of this test has not moved.
        let own = inode_of(std::process::id());
        assert_ne!(inode_of(pid), own);
        assert_eq!(
            fs::metadata("/proc/thread-self/ns/net").unwrap().ino(),
            u64::from(own)
        );
    }

    #[test]
    fn a_parent_leads_into_the_namespace_of_a_child_that_is_gone() {
        let Some(tenant) = Tenant::start("20100 20199") else {
            println!("skip: cannot make a network namespace");
            return;
        };
        let child = Task {
            pid: 0x7000_0000,
            parent_pid: Some(tenant.0.id()),
            ..Task::default()
        };
        let place = Namespaces::new().place(inode_of(tenant.0.id()), &child, None, 0);
        assert_eq!(place.range, Some(20100..=20199));
    }

    #[test]
    fn a_process_elsewhere_does_not_answer_for_a_namespace() {
        let own = std::process::id();
        let place = Namespaces::new().place(1, &task(own), Some(1), 0);
        assert_eq!(place, Place::default());
    }

    #[test]
    fn a_reading_holds_for_a_second_of_events() {
        let Some(tenant) = Tenant::start("20200 20299") else {
            println!("skip: cannot make a network namespace");
            return;
        };
        let (pid, mut namespaces) = (tenant.0.id(), Namespaces::new());
        let netns = inode_of(pid);
        namespaces.place(netns, &task(pid), None, 5);
        drop(tenant);
        let range =
            |namespaces: &mut Namespaces, now| namespaces.place(netns, &task(pid), None, now).range;
        assert_eq!(range(&mut namespaces, 4 + VALIDITY), Some(20200..=20299));
        assert_eq!(range(&mut namespaces, 5 + VALIDITY), None);
    }

    #[test]
    fn an_inode_given_out_again_is_not_taken_for_the_namespace_before() {
        let Some(tenant) = Tenant::start("20300 20399") else {
            println!("skip: cannot make a network namespace");
            return;
        };
        let (pid, mut namespaces) = (tenant.0.id(), Namespaces::new());
        let netns = inode_of(pid);
        let mut range = |pid| namespaces.place(netns, &task(pid), None, 5).range;
        assert_eq!(range(pid), Some(20300..=20399));
        // While the first process is there, its reading does for others.
        assert_eq!(range(0x7000_0000), Some(20300..=20399));
        drop(tenant);
        assert_eq!(range(0x7000_0001), None);
    }

    #[test]
    fn what_answers_which_question() {
        let reading = Reading {
            time: 10,
            pid: 7,
            range: Some(1..=2),
            names: vec![(3, None)],
        };
        assert!(reading.answers(10, 8, None));
        assert!(reading.answers(10, 8, Some(3)));
        assert!(!reading.answers(10, 8, Some(4)));
        assert!(!reading.answers(10 + VALIDITY, 7, None));
        let failed = Reading {
            range: None,
            ..reading
        };
        assert!(failed.answers(10, 7, None));
        assert!(!failed.answers(10, 8, None));
    }

    #[test]
    fn ranges_as_the_kernel_prints_them() {
        for (text, range) in [
            ("32768\t60999\n", Some(32768..=60999)),
            ("1 65535", Some(1..=65535)),
            ("5 5", Some(5..=5)),
            ("6 5", None),
            ("32768", None),
            ("0 70000", None),
            ("", None),
        ] {
            assert_eq!(parse_range(text), range, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_range_is_read_back(low: u16, high: u16) {
            let expected = (low <= high).then_some(low..=high);
            prop_assert_eq!(parse_range(&format!("{low}\t{high}\n")), expected);
        }

        #[test]
        fn any_text_is_survived(text in r"[0-9]{0,6}[ \t]?.{0,6}") {
            let _ = parse_range(&text);
        }
    }
}
