//! Facts about this machine. Each is a pure parser with a thin reader beside it; a fact that cannot
//! be read is `None`, never a guess.

pub mod btf;
pub mod cgroup;
pub mod cgroup_programs;
pub mod fields;
pub mod kernel;
pub mod limits;
pub mod lockdown;
pub mod namespaces;
pub mod privilege;
pub mod probe;
pub mod profile;
