//! From the names in the output back to values.

use super::{
    AddressState, Backend, Family, Freed, Hazard, Kind, LostReason, Op, Overlap, PortClass, Reason,
    Scope, TcpState, Transport, Via,
};

/// A value that the output tells by a word.
pub trait Word: Copy + 'static {
    /// All of them.
    const WORDS: &'static [Self];

    /// The word.
    fn word(self) -> &'static str;

    /// The value of a word; where several have the same, the first.
    fn of_word(text: &str) -> Option<Self> {
        Self::WORDS.iter().copied().find(|one| one.word() == text)
    }
}

macro_rules! words {
    ($($name:ident: $($value:ident)*;)*) => {$(
        impl Word for $name {
            const WORDS: &'static [Self] = &[$(Self::$value),*];

            fn word(self) -> &'static str {
                self.as_str()
            }
        }

        // A value that is added and not listed above is an error here.
        const _: fn($name) = |one| match one {
            $($name::$value => (),)*
        };
    )*};
}

words! {
    AddressState: Usable Tentative DadFailed;
    Backend: Tracing Kprobe RawTp;
    Family: Ipv4 Ipv6;
    Freed: Closed TimeWait GivenBack;
    Hazard: ListenAfterFailedBind SharedPort;
    Kind: Listener Bound Client Accepted Closing TimeWait Kernel Gone Exhausted AlreadyBound Privileged
        NotLocal Policy Unknown;
    LostReason: RingFull TableFull Recursion ReturnMissed Unreadable Malformed StoreFull;
    Op: Bind Listen Connect Autobind Accept Release;
    Overlap: Exact Wildcard DualStack;
    PortClass: WellKnown Registered Dynamic;
    Reason: NoReuse ReuseMissingSelf ReuseMissingHolder ReuseMismatch ReuseListening ReuseportMissingSelf
        ReuseportMissingHolder ReuseportUid;
    Scope: Address Tuple;
    TcpState: Established SynSent SynReceived FinWait1 FinWait2 TimeWait Closed CloseWait LastAck Listen
        Closing NewSynReceived BoundInactive;
    Transport: Tcp Udp UdpLite Sctp Dccp;
    Via: Syscall IoUring Kernel Implicit;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_come_back<T: Word + PartialEq + std::fmt::Debug>() {
        for &one in T::WORDS {
            let back = T::of_word(one.word()).map(Word::word);
            assert_eq!(back, Some(one.word()), "{one:?}");
        }
        assert!(T::of_word("").is_none());
    }

    #[test]
    fn words_come_back() {
        all_come_back::<Kind>();
        all_come_back::<LostReason>();
        all_come_back::<Reason>();
        all_come_back::<TcpState>();
        all_come_back::<Transport>();
        assert_eq!(TcpState::of_word("closed"), Some(TcpState::Closed));
    }
}
