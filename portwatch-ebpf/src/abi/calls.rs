//! Calls in flight, from the entry of a function to its return: the keys of the maps `CALLS` and
//! `INFLIGHT`.

/// The functions whose calls are kept; a nested call of another function has a key of its own.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
#[expect(missing_docs, reason = "named like the hooks")]
pub enum Function {
    Bind = 1,
    Listen = 2,
    Connect4 = 3,
    Connect6 = 4,
    ConnectDatagram = 5,
    ConnectStream = 6,
    Autobind = 7,
    RefuseBind = 8,
    RefuseListen = 9,
    RefuseConnect = 10,
    PreConnect = 11,
    ListenEarly = 12,
    Accept = 13,
    TakePort = 14,
    LeaveTcp = 15,
    LeaveWait = 16,
    LeaveUdp = 17,
}

impl Function {
    /// Whether the time of its entry is needed for more than a duration.
    #[must_use]
    pub const fn tells_when(self) -> bool {
        matches!(
            self,
            Self::Connect4 | Self::Connect6 | Self::PreConnect | Self::ConnectDatagram
        )
    }

    /// Whether its return tells something as a rule: what may refuse a call seldom does.
    #[must_use]
    pub const fn tells(self) -> bool {
        tells(self as u64)
    }

    /// Whether another function of these may be called inside it.
    #[must_use]
    pub const fn is_outer(self) -> bool {
        matches!(
            self,
            Self::ListenEarly | Self::Connect6 | Self::ConnectDatagram | Self::ConnectStream
        )
    }
}

/// The key of a call: the id of the thread, and the function.
#[must_use]
pub const fn key(tid: u32, function: Function) -> u64 {
    (tid as u64) << 8 | function as u64
}

/// Whether a key is that of a call of which [`Function::tells`] holds; 0 is no call.
#[must_use]
pub const fn tells(key: u64) -> bool {
    const SILENT: u64 = 1 << Function::RefuseBind as u8
        | 1 << Function::RefuseListen as u8
        | 1 << Function::RefuseConnect as u8
        | 1 << Function::PreConnect as u8;
    key != 0 && SILENT >> (key & 63) & 1 == 0
}

/// An entry of the map `CALLS`, in words.
pub type Place = [u64; 8];
/// The word of it that has the key of the call, or 0.
pub const WHO: usize = 1;
