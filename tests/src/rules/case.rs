//! A case: sockets that come to one port in some order, written so that it can be read back.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A case. As JSON it is what a disagreement prints, what `--case` takes, and a line of `named.jsonl`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    /// UDP, not TCP.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) udp: bool,
    /// What is done, in this order, by one process.
    pub(super) steps: Vec<Step>,
}

/// What the steps call a socket.
pub(super) type Label = u8;

/// A step. One that makes no sense because an earlier one was refused is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Step {
    /// A new socket, and bind() to the port.
    Bind(Label, Spec),
    /// A new socket, and bind() to port 0, for which the kernel chooses the port. Only a first step.
    BindZero(Label, Spec),
    /// A new socket, and connect(), for which the kernel chooses the port. Only a first step.
    ConnectUnbound(Label, Spec, IpAddr),
    /// listen()
    Listen(Label),
    /// connect() of a bound socket: of TCP to a listener on another port.
    Connect(Label, IpAddr),
    /// The only listener gets a connection to that address of its own, and accepts it.
    Accept {
        listener: Label,
        to: IpAddr,
        child: Label,
        /// Who calls accept().
        uid: u32,
    },
    /// It gets one and does not accept it.
    Queue(Label, IpAddr),
    /// A connection ends, this side first.
    TimeWait(Label),
    /// A connection is closed with data that the other side does not take.
    Orphan(Label),
    /// close(), which resets a connection.
    Close(Label),
}

/// A new socket: what the kernel compares with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Spec {
    pub(super) address: IpAddr,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) v6only: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) reuseaddr: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) reuseport: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) uid: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) device: Option<Device>,
}

/// A device for SO_BINDTODEVICE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Device {
    Lo,
    /// A second one, over which nobody is reached.
    Veth,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// How an address of an IPv6 socket is meant.
pub(super) fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

/// 0.0.0.0, `::` or `::ffff:0.0.0.0`
pub(super) fn is_any(address: IpAddr) -> bool {
    address.to_canonical().is_unspecified()
}

/// Another address of the same socket.
pub(super) fn as_seen_by(owner: IpAddr, address: IpAddr) -> IpAddr {
    match (owner, address) {
        (IpAddr::V6(_), IpAddr::V4(v4)) => IpAddr::V6(v4.to_ipv6_mapped()),
        _ => address,
    }
}
