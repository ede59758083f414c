//! Who has which socket, at this moment.
//!
//! [`look`] asks the kernel and `/proc` for all sockets, [`port`] for those that one bind() may meet,
//! [`options`] the sockets themselves; [`table`] puts together what they say (pure).

pub mod look;
pub(crate) mod namespaces;
pub mod options;
pub mod port;
pub mod table;
