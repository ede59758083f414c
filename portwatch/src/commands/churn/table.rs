//! The programs' table as the model reads it.

use portwatch_ebpf::abi::churn::{Counts, TAILS};

use crate::{
    churn::rows::{Entry, Table},
    load::churn::Rows,
};

impl Table for Rows {
    fn len(&self) -> u32 {
        Self::len(self)
    }

    fn first(&self) -> u32 {
        TAILS
    }

    fn entry(&self, index: u32) -> Option<Entry> {
        let row = self.row(index)?;
        Some(Entry {
            key: row.key,
            comm: row.comm,
            pid: row.pid,
            started: row.started,
            cgroup: row.cgroup,
        })
    }

    fn counts(&self, index: u32) -> Counts {
        Self::counts(self, index)
    }
}
