//! Who has which socket, at this moment.
//!
//! [`look`] asks the kernel and `/proc` for the sockets of a [`scope`], [`port`] for those that one bind()
//! may meet, [`options`] the sockets themselves, and [`unseen`] those that the kernel does not show;
//! [`table`] puts together what they say, and [`listing`] gives it names. Scope and table are pure.

pub mod listing;
pub mod look;
pub(crate) mod namespaces;
pub mod options;
pub mod port;
pub mod scope;
pub mod table;
mod unseen;
