//! What the kernel's tables do not say: settings of network namespaces, containers, services.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    fs,
    ops::RangeInclusive,
    path::PathBuf,
};

use crate::{
    churn::{limits::Limits, model::Surroundings, rows::Entry},
    enrich::{cgroup::Cgroups, live::Live, netns, service::Services},
    event::{Task, Transport},
    sockets::namespaces,
};

/// Looks into so many network namespaces at a time.
const LIMIT: usize = 64;

/// What is known of the surroundings.
#[derive(Default)]
pub(super) struct Around {
    limits: BTreeMap<u32, Limits>,
    ways: HashMap<u32, PathBuf>,
    gone: Vec<u32>,
    containers: RefCell<Containers>,
    services: Option<Services>,
}

impl Around {
    /// Reads the settings of network namespaces anew.
    pub(super) fn look(&mut self, wanted: impl Iterator<Item = u32>, numeric: bool) {
        if !numeric && self.services.is_none() {
            self.services = Some(Services::read());
        }
        let own = namespaces::own();
        self.gone.clear();
        for inode in wanted.filter(|&inode| inode != 0).take(LIMIT) {
            if Some(inode) == own {
                self.limits.insert(inode, read());
                continue;
            }
            match self.visit(inode) {
                Some(limits) => {
                    self.limits.insert(inode, limits);
                }
                None => {
                    self.limits.remove(&inode);
                    self.gone.push(inode);
                }
            }
        }
        self.limits.retain(|inode, _| !self.gone.contains(inode));
    }

    fn visit(&mut self, inode: u32) -> Option<Limits> {
        if let Some(way) = self.ways.get(&inode)
            && let Some(file) = netns::open_if(way, inode)
        {
            return netns::run_inside(file, read);
        }
        self.ways.remove(&inode);
        let way = namespaces::way(inode)?;
        let file = netns::open_if(&way, inode)?;
        self.ways.insert(inode, way);
        netns::run_inside(file, read)
    }

    /// Network namespaces that no way led into.
    pub(super) fn gone(&self) -> Vec<u32> {
        self.gone.clone()
    }
}

/// Reads the settings of the calling thread's network namespace.
fn read() -> Limits {
    let number = |name: &str| -> Option<u8> { netns::sysctl(name)?.trim().parse().ok() };
    let common = netns::Limits::read();
    Limits {
        range: common.range,
        reserved: common.reserved,
        tw_reuse: number("tcp_tw_reuse"),
        autobind_reuse: number("ip_autobind_reuse").map(|value| value != 0),
        time_wait: time_wait(),
    }
}

/// `TCP: inuse 5 orphan 0 tw 3 alloc 7 mem 1`
fn time_wait() -> Option<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/sockstat").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("TCP:"))?;
    let mut words = line.split_ascii_whitespace();
    words.find(|word| *word == "tw")?;
    words.next()?.parse().ok()
}

impl Surroundings for Around {
    fn limits(&self, netns: u32) -> Limits {
        self.limits.get(&netns).cloned().unwrap_or_default()
    }

    fn container(&self, entry: &Entry) -> Option<String> {
        self.containers.borrow_mut().of(entry)
    }

    fn services(&self, netns: u32) -> Vec<String> {
        let Some((range, services)) = self
            .limits
            .get(&netns)
            .and_then(|limits| limits.range.clone())
            .zip(self.services.as_ref())
        else {
            return Vec::new();
        };
        below(&range, services)
    }
}

/// Services that a range would hit that began at 1024: a few of their names.
fn below(range: &RangeInclusive<u16>, services: &Services) -> Vec<String> {
    const NAMED: usize = 3;
    // The ones that are met most often.
    const FREQUENT: [u16; 8] = [3306, 5432, 6379, 8080, 9092, 11211, 27017, 2049];
    FREQUENT
        .into_iter()
        .filter(|port| !range.contains(port))
        .filter_map(|port| {
            let name = services.name(Transport::Tcp, port)?;
            Some(format!("{name} ({port})"))
        })
        .take(NAMED)
        .collect()
}

/// Containers by process.
#[derive(Default)]
struct Containers {
    cgroups: Cgroups,
    known: HashMap<(u32, u64), Option<String>>,
}

impl Containers {
    /// Answers are kept, so many.
    const CAPACITY: usize = 1 << 14;

    fn of(&mut self, entry: &Entry) -> Option<String> {
        let key = (entry.pid, entry.started);
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let task = Task {
            pid: entry.pid,
            start_boot: Some(entry.started).filter(|&start| start != 0),
            ..Task::default()
        };
        let live = Live::new(&task, 0);
        let id = Some(entry.cgroup).filter(|&id| id != 0);
        let placement = self.cgroups.placement(id, || live.cgroup());
        let container = placement
            .container
            .as_ref()
            .map(|container| container.id.to_string());
        if self.known.len() >= Self::CAPACITY {
            self.known.clear();
        }
        self.known.insert(key, container.clone());
        container
    }
}
