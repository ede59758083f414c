//! The range that the kernel takes the automatic port of a socket from.

use std::ops::RangeInclusive;

/// That of a socket in a namespace with such a range (`ip_local_port_range`). Its own (IP_LOCAL_PORT_RANGE) may
/// leave an end open, which is the namespace's then (net/ipv4/inet_connection_sock.c,
/// `inet_sk_get_local_port_range`).
#[must_use]
pub fn effective(
    namespace: RangeInclusive<u16>,
    own: Option<&RangeInclusive<u16>>,
) -> RangeInclusive<u16> {
    let Some(own) = own else {
        return namespace;
    };
    let within = |port: &u16| *port != 0 && namespace.contains(port);
    let end = |own: &u16, open: &u16| if within(own) { *own } else { *open };
    end(own.start(), namespace.start())..=end(own.end(), namespace.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_own_range_leaves_open_what_is_0_or_outside() {
        let of = |own| effective(32_768..=60_999, Some(&own));
        assert_eq!(of(40_000..=40_001), 40_000..=40_001);
        assert_eq!(of(40_000..=65_000), 40_000..=60_999);
        #[expect(clippy::reversed_empty_ranges, reason = "0 leaves the upper end open")]
        let open = 40_000..=0;
        assert_eq!(of(open), 40_000..=60_999);
        assert_eq!(effective(1_024..=2_047, None), 1_024..=2_047);
    }
}
