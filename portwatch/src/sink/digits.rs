//! Numbers and addresses as bytes, without the format machinery, which costs more than all the rest
//! of a line.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::event::Endpoint;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Appends a number in hexadecimal.
pub(super) fn hex(out: &mut Vec<u8>, number: u64) {
    let digits = (64 - number.leading_zeros()).div_ceil(4).max(1);
    out.extend(
        (0..digits)
            .rev()
            .map(|place| HEX[(number >> (4 * place) & 0xf) as usize]),
    );
}

/// Appends a number.
pub(super) fn number(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// The last digit of a number.
const fn digit(number: u16) -> u8 {
    b'0' + (number % 10) as u8
}

/// The last two digits of a number.
pub(super) const fn two(number: u8) -> [u8; 2] {
    [b'0' + number / 10 % 10, b'0' + number % 10]
}

/// The last three digits of a number.
pub(super) const fn three(number: u32) -> [u8; 3] {
    let number = (number % 1000) as u16;
    [digit(number / 100), digit(number / 10), digit(number)]
}

/// Appends an address, IPv6 without brackets and as RFC 5952 wants it.
pub(super) fn address(out: &mut Vec<u8>, address: IpAddr) {
    let mut text = Text::default();
    text.address(address);
    out.extend_from_slice(text.as_bytes());
}

/// Text of an address or endpoint; the longest is `[` and 8 groups of 4 and 7 colons and `]:65535`.
struct Text {
    bytes: [u8; 48],
    length: usize,
}

impl Default for Text {
    fn default() -> Self {
        Self {
            bytes: [0; 48],
            length: 0,
        }
    }
}

impl Text {
    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn push(&mut self, byte: u8) {
        self.bytes[self.length] = byte;
        self.length += 1;
    }

    fn number(&mut self, number: u16) {
        // Divided by constants, a division is a multiplication.
        if number >= 10000 {
            self.push(digit(number / 10000));
        }
        if number >= 1000 {
            self.push(digit(number / 1000));
        }
        if number >= 100 {
            self.push(digit(number / 100));
        }
        if number >= 10 {
            self.push(digit(number / 10));
        }
        self.push(digit(number));
    }

    fn hex(&mut self, number: u16) {
        let digits = (16 - number.leading_zeros()).div_ceil(4).max(1);
        for place in (0..digits).rev() {
            self.push(HEX[usize::from(number >> (4 * place) & 0xf)]);
        }
    }

    fn address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.v4(address),
            IpAddr::V6(address) => match address.to_ipv4_mapped() {
                Some(mapped) => {
                    for byte in *b"::ffff:" {
                        self.push(byte);
                    }
                    self.v4(mapped);
                }
                None => self.v6(address),
            },
        }
    }

    fn v4(&mut self, address: Ipv4Addr) {
        let [first, rest @ ..] = address.octets();
        self.number(first.into());
        for octet in rest {
            self.push(b'.');
            self.number(octet.into());
        }
    }

    /// The first of the longest runs of two or more zeros becomes `::` (RFC 5952, section 4.2).
    fn v6(&mut self, address: Ipv6Addr) {
        let groups = address.segments();
        let (mut best, mut run) = (0..0, 0..0);
        for (place, group) in groups.into_iter().enumerate() {
            if group != 0 {
                run = place + 1..place + 1;
                continue;
            }
            run.end = place + 1;
            if run.len() > best.len().max(1) {
                best = run.clone();
            }
        }
        for (place, group) in groups.into_iter().enumerate() {
            if best.contains(&place) {
                if place == best.start {
                    self.push(b':');
                    self.push(b':');
                }
                continue;
            }
            if place > 0 && place != best.end {
                self.push(b':');
            }
            self.hex(group);
        }
    }
}

/// Appends `127.0.0.1:80` or `[::1]:80`. What is not known is `-`: the port alone of a bind with
/// IP_BIND_ADDRESS_NO_PORT.
pub(super) fn endpoint(out: &mut Vec<u8>, endpoint: &Endpoint) {
    if *endpoint == Endpoint::default() {
        return out.push(b'-');
    }
    let mut text = Text::default();
    match endpoint.address {
        Some(address @ IpAddr::V6(_)) => {
            text.push(b'[');
            text.address(address);
            text.push(b']');
        }
        Some(address) => text.address(address),
        None => text.push(b'-'),
    }
    text.push(b':');
    match endpoint.port {
        Some(port) => text.number(port),
        None => text.push(b'-'),
    }
    out.extend_from_slice(text.as_bytes());
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
        fn addresses_are_printed_as_std_does(bits: u128, zeros: u8, shift in 0u32..128) {
            // Groups of zeros in all places, and numbers of all lengths.
            let holes = (0..8).filter(|group| zeros >> group & 1 == 1);
            let with_holes = holes.fold(bits, |bits, group| bits & !(0xffff << (16 * group)));
            for bits in [bits, with_holes, bits >> shift, with_holes >> shift, 0xffff_0000_0000 | bits >> 96] {
                let v6 = IpAddr::V6(Ipv6Addr::from_bits(bits));
                prop_assert_eq!(printed(|out| address(out, v6)), v6.to_string());
                let end = Endpoint { address: Some(v6), port: Some(bits as u16) };
                let std = std::net::SocketAddr::new(v6, bits as u16);
                prop_assert_eq!(printed(|out| endpoint(out, &end)), std.to_string());
            }
            let v4 = IpAddr::V4(Ipv4Addr::from_bits(bits as u32));
            prop_assert_eq!(printed(|out| address(out, v4)), v4.to_string());
        }

        #[test]
        fn hexadecimal(n: u64, shift in 0u32..64) {
            prop_assert_eq!(printed(|out| hex(out, n >> shift)), format!("{:x}", n >> shift));
        }

        #[test]
        fn fixed_digits(n in 0u32..1000) {
            prop_assert_eq!(three(n).to_vec(), format!("{n:03}").into_bytes());
            let n = n as u8 % 100;
            prop_assert_eq!(two(n).to_vec(), format!("{n:02}").into_bytes());
        }
    }
}
