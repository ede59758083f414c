//! Which events are wanted: the filters, as typed values. Kinds are joined by AND, the values of a
//! kind by OR; an empty list lets everything pass.

use std::ops::RangeInclusive;

use crate::event::{Family, Op, Transport};

/// What the user asked to see. `load` hands over to the kernel what the kernel can decide,
/// `filter` decides the rest, and all of it again where deciding twice is cheap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Local ports; on failure the port asked for.
    pub ports: Vec<RangeInclusive<u16>>,
    /// Peer ports.
    pub peer_ports: Vec<RangeInclusive<u16>>,
    /// Process ids.
    pub pids: Vec<u32>,
    /// Task names.
    pub comms: Vec<String>,
    /// Real user ids.
    pub uids: Vec<u32>,
    /// Inodes of network namespaces.
    pub netns: Vec<u32>,
    /// Paths in the cgroup v2 hierarchy (`/system.slice/nginx.service`); what is below counts too.
    pub cgroups: Vec<String>,
    /// Container ids or the start of one.
    pub containers: Vec<String>,
    /// Transports.
    pub transports: Vec<Transport>,
    /// Families.
    pub families: Vec<Family>,
    /// Events; never empty.
    pub events: Vec<Op>,
    /// Failures only.
    pub failed: bool,
    /// Conflicts only: events that carry `conflict`.
    pub conflicts: bool,
    /// Only a command portwatch starts, and its descendants.
    pub descendants: bool,
    /// Of each event only what the columns of text show: the rest need not be collected.
    pub brief: bool,
}

impl Selection {
    /// Whether the events are those of a trace that names none.
    #[must_use]
    pub fn is_usual(&self) -> bool {
        let is_one = |op: &Op| Op::USUAL.contains(op);
        self.events.iter().all(is_one) && Op::USUAL.iter().all(|op| self.events.contains(op))
    }

    /// Whether it leaves out anything that is shown without filters.
    #[must_use]
    pub fn is_narrow(&self) -> bool {
        let Self {
            ports,
            peer_ports,
            pids,
            comms,
            uids,
            netns,
            cgroups,
            containers,
            transports,
            families,
            events,
            failed,
            conflicts,
            descendants,
            brief: _, // of each event
        } = self;
        let lists = [
            ports.is_empty(),
            peer_ports.is_empty(),
            pids.is_empty(),
            comms.is_empty(),
            uids.is_empty(),
            netns.is_empty(),
            cgroups.is_empty(),
            containers.is_empty(),
            transports.is_empty(),
            families.is_empty(),
            Op::USUAL.iter().all(|op| events.contains(op)),
        ];
        lists.contains(&false) || *failed || *conflicts || *descendants
    }
}
