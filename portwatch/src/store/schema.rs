//! The schema and its versions. `docs/record.md` describes it.

/// What leads from each version to the next, beginning with nothing.
pub const STEPS: &[&str] = &[include_str!("schema/1.sql"), include_str!("schema/2.sql")];

/// The views. They are made anew whenever the version changes.
pub const VIEWS: &str = include_str!("schema/views.sql");

/// Their names.
pub const VIEW_NAMES: [&str; 4] = ["port_timeline", "binds", "connects", "conflicts"];

/// The table `run` came with this version; what is older can be read without.
pub const RUN: i32 = 2;

/// The version that this portwatch writes (`PRAGMA user_version`).
#[must_use]
pub const fn version() -> i32 {
    // There are a few.
    STEPS.len() as i32
}
