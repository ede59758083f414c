//! The ports that a name stands for.

use std::fs;

use crate::{
    cli::target::{Port, Target},
    enrich::service,
    event::Transport,
    failure::{Failure, Kind},
};

/// The ports that were meant, and of which transport each; of any where a number was typed.
///
/// # Errors
/// When no port has that name.
pub(super) fn ports(target: &Target) -> Result<Vec<(Option<Transport>, u16)>, Failure> {
    match &target.port {
        Port::Number(port) => Ok(vec![(None, *port)]),
        Port::Name(name) => {
            let text = fs::read("/etc/services").unwrap_or_default();
            let ports: Vec<_> = service::ports(&String::from_utf8_lossy(&text), name)
                .into_iter()
                .map(|(transport, port)| (Some(transport), port))
                .collect();
            if ports.is_empty() {
                let error = anyhow::anyhow!("no port has the name {name:?} in /etc/services");
                return Err(Failure::new(Kind::Usage, error));
            }
            Ok(ports)
        }
    }
}
