//! Which interfaces have an address, and whether it can be used there, in the network namespace of the
//! calling thread.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use nix::ifaddrs::getifaddrs;

use crate::event::{AddressState, Bearer};

/// `IFA_F_OPTIMISTIC`, `IFA_F_DADFAILED`, `IFA_F_TENTATIVE` (include/uapi/linux/if_addr.h).
const OPTIMISTIC: u8 = 0x04;
const DAD_FAILED: u8 = 0x08;
const TENTATIVE: u8 = 0x40;

/// The interfaces that have an address.
///
/// # Errors
/// When the kernel does not say.
pub fn bearers(address: IpAddr) -> io::Result<Vec<Bearer>> {
    match address.to_canonical() {
        IpAddr::V4(address) => ipv4(address),
        // Of the thread: /proc/net leads to the namespace of the process (proc_pid_net(5)).
        IpAddr::V6(address) => Ok(ipv6(
            &fs::read_to_string("/proc/thread-self/net/if_inet6")?,
            address,
        )),
    }
}

fn ipv4(address: Ipv4Addr) -> io::Result<Vec<Bearer>> {
    let has_it = |end: &nix::ifaddrs::InterfaceAddress| {
        end.address
            .as_ref()
            .and_then(|end| end.as_sockaddr_in())
            .is_some_and(|end| end.ip() == address)
    };
    Ok(getifaddrs()?
        .filter(has_it)
        .map(|end| Bearer {
            // A label (`eth0:1`) is a name of the address, not of the interface.
            name: end
                .interface_name
                .split(':')
                .next()
                .unwrap_or_default()
                .to_owned(),
            // Of IPv4 addresses there is nothing else, also where the interface is down.
            state: AddressState::Usable,
        })
        .collect())
}

/// The lines of `if_inet6` with an address: address, index, prefix, scope, flags, name, all but the last
/// in hexadecimal (net/ipv6/addrconf.c, `if6_seq_show`).
fn ipv6(text: &str, address: Ipv6Addr) -> Vec<Bearer> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let number = u128::from_str_radix(fields.next()?, 16).ok()?;
            let flags = u8::from_str_radix(fields.nth(3)?, 16).ok()?;
            let name = fields.next()?;
            (Ipv6Addr::from(number) == address).then(|| Bearer {
                name: name.to_owned(),
                state: state(flags),
            })
        })
        .collect()
}

/// As `ipv6_chk_addr_and_flags` sees it (net/ipv6/addrconf.c).
const fn state(flags: u8) -> AddressState {
    if flags & DAD_FAILED != 0 {
        AddressState::DadFailed
    } else if flags & TENTATIVE != 0 && flags & OPTIMISTIC == 0 {
        AddressState::Tentative
    } else {
        AddressState::Usable
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests panic")]

    use super::*;

    #[test]
    fn addresses_as_the_kernel_prints_them() {
        let text = "\
00000000000000000000000000000001 01 80 10 80       lo
fe800000000000000000000000000099 02 40 20 80      pwa
fe800000000000000000000000000099 03 40 20 c0      pwb
20010db8000000000000000000000001 03 40 00 c8      pwb
20010db8000000000000000000000002 03 40 00 44      pwb
";
        let found = |address: &str| {
            ipv6(text, address.parse().unwrap())
                .into_iter()
                .map(|bearer| (bearer.name, bearer.state))
                .collect::<Vec<_>>()
        };
        let on = |name: &str, state| (name.to_owned(), state);
        assert_eq!(found("::1"), [on("lo", AddressState::Usable)]);
        assert_eq!(
            found("fe80::99"),
            [
                on("pwa", AddressState::Usable),
                on("pwb", AddressState::Tentative)
            ]
        );
        assert_eq!(found("2001:db8::1"), [on("pwb", AddressState::DadFailed)]);
        assert_eq!(found("2001:db8::2"), [on("pwb", AddressState::Usable)]);
        assert_eq!(found("2001:db8::3"), []);
        assert_eq!(ipv6("what\n\n 1 2 3 4 5 6", Ipv6Addr::UNSPECIFIED), []);
    }

    #[test]
    fn the_loopback_has_its_addresses() {
        let own = bearers(Ipv4Addr::LOCALHOST.into()).unwrap();
        assert!(own.iter().any(|bearer| bearer.name == "lo"), "{own:?}");
        let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
        assert_eq!(bearers(mapped.into()).unwrap(), own);
        assert_eq!(bearers(Ipv4Addr::new(192, 0, 2, 1).into()).unwrap(), []);
    }
}
