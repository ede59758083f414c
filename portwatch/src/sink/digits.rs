//! Numbers and addresses as bytes, without the format machinery, which costs more than all the rest
//! of a line.

use std::{
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::event::Endpoint;

/// Appends a number.
pub(super) fn number(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// The last two digits of a number.
pub(super) const fn two(number: u8) -> [u8; 2] {
    [b'0' + number / 10 % 10, b'0' + number % 10]
}

/// The last three digits of a number.
pub(super) fn three(number: u32) -> [u8; 3] {
    let digit = |divisor| {
        // Below ten.
        b'0' + (number / divisor % 10) as u8
    };
    [digit(100), digit(10), digit(1)]
}

/// Appends an address, IPv6 without brackets and as RFC 5952 wants it.
pub(super) fn address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => v4(out, address),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => out.extend_from_slice(b"::"),
        IpAddr::V6(Ipv6Addr::LOCALHOST) => out.extend_from_slice(b"::1"),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(mapped) => {
                out.extend_from_slice(b"::ffff:");
                v4(out, mapped);
            }
            // Writing to a Vec cannot fail.
            None => drop(write!(out, "{address}")),
        },
    }
}

fn v4(out: &mut Vec<u8>, address: Ipv4Addr) {
    let [first, rest @ ..] = address.octets();
    number(out, first);
    for octet in rest {
        out.push(b'.');
        number(out, octet);
    }
}

/// Appends `127.0.0.1:80` or `[::1]:80`. What is not known is `-`: the port alone of a bind with
/// IP_BIND_ADDRESS_NO_PORT.
pub(super) fn endpoint(out: &mut Vec<u8>, endpoint: &Endpoint) {
    if *endpoint == Endpoint::default() {
        return out.push(b'-');
    }
    match endpoint.address {
        Some(known @ IpAddr::V6(_)) => {
            out.push(b'[');
            address(out, known);
            out.push(b']');
        }
        Some(known) => address(out, known),
        None => out.push(b'-'),
    }
    out.push(b':');
    match endpoint.port {
        Some(port) => number(out, port),
        None => out.push(b'-'),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]
    use proptest::prelude::*;

    use super::*;

    fn printed(print: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        print(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn endpoints() {
        for (address, port, expected) in [
            (Some("0.0.0.0"), Some(8080), "0.0.0.0:8080"),
            (Some("::"), Some(8080), "[::]:8080"),
            (Some("::1"), None, "[::1]:-"),
            (Some("::ffff:10.0.0.9"), Some(1), "[::ffff:10.0.0.9]:1"),
            (
                Some("2001:db8::1:0:0:1"),
                Some(65535),
                "[2001:db8::1:0:0:1]:65535",
            ),
            (None, Some(53), "-:53"),
            (None, None, "-"),
        ] {
            let end = Endpoint {
                address: address.map(|address| address.parse().unwrap()),
                port,
            };
            assert_eq!(printed(|out| endpoint(out, &end)), expected);
        }
    }

    proptest! {
        #[test]
        fn addresses_are_printed_as_std_does(bits: u128, keep in 0u32..128) {
            let v6 = IpAddr::V6(Ipv6Addr::from_bits(bits.checked_shr(keep).unwrap_or(0)));
            prop_assert_eq!(printed(|out| address(out, v6)), v6.to_string());
            let v4 = IpAddr::V4(Ipv4Addr::from_bits(bits as u32));
            prop_assert_eq!(printed(|out| address(out, v4)), v4.to_string());
        }

        #[test]
        fn fixed_digits(n in 0u32..1000) {
            prop_assert_eq!(three(n).to_vec(), format!("{n:03}").into_bytes());
            let n = n as u8 % 100;
            prop_assert_eq!(two(n).to_vec(), format!("{n:02}").into_bytes());
        }
    }
}
