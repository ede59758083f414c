//! Automatic ports: who has taken them, and which are held. The tables of `churn`, which no other verb
//! makes larger than one entry (`portwatch/src/load.rs`).

pub(crate) mod holds;
pub(crate) mod places;
pub(crate) mod rows;
mod slots;
