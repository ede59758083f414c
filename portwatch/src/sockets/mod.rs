//! Who has which socket, at this moment.
//!
//! [`look`] asks the kernel and `/proc`, [`options`] the sockets themselves; [`table`] puts together what
//! they say (pure).

pub mod look;
mod namespaces;
pub mod options;
pub mod table;
