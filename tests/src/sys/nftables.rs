//! nf_tables, as much as it takes to translate the source of what leaves a namespace.

use std::ops::RangeInclusive;

use nix::errno::Errno;

use super::netlink::{Request, send_all};

// include/uapi/linux/netfilter/nfnetlink.h
const NETLINK_NETFILTER: i32 = 12;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;

// include/uapi/linux/netfilter/nf_tables.h
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;

const TABLE: &str = "portwatch";
const CHAIN: &str = "out";

/// struct nfgenmsg: family, version, id of the resource.
fn of(family: i32, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family as u8, 0, high, low]
}

/// `masquerade`, or `masquerade to :LOW-HIGH`, for all of IPv4 that leaves the current namespace.
pub(crate) fn masquerade(ports: Option<RangeInclusive<u16>>) -> Result<(), Errno> {
    let family = of(libc::AF_INET, 0);
    let flags = libc::NLM_F_CREATE;
    let table = Request::new(NEW_TABLE, flags, &family).text(1, TABLE);
    let chain = Request::new(NEW_CHAIN, flags, &family)
        .text(1, TABLE)
        .text(3, CHAIN)
        .begin(4)
        .attribute(1, &4_u32.to_be_bytes()) // NF_INET_POST_ROUTING
        .attribute(2, &100_u32.to_be_bytes()) // NF_IP_PRI_NAT_SRC
        .end()
        .text(7, "nat");
    let mut rule = Request::new(NEW_RULE, flags | libc::NLM_F_APPEND, &family)
        .text(1, TABLE)
        .text(2, CHAIN)
        .begin(4);
    let registers = [(1_u32, 2_u16), (2, 3)];
    if let Some(ports) = &ports {
        for ((register, _), port) in registers.iter().zip([ports.start(), ports.end()]) {
            rule = rule
                .begin(LIST_ELEMENT)
                .text(EXPRESSION_NAME, "immediate")
                .begin(EXPRESSION_DATA)
                .attribute(1, &register.to_be_bytes())
                .begin(2)
                .attribute(1, &port.to_be_bytes())
                .end()
                .end()
                .end();
        }
    }
    rule = rule
        .begin(LIST_ELEMENT)
        .text(EXPRESSION_NAME, "masq")
        .begin(EXPRESSION_DATA);
    if ports.is_some() {
        // NF_NAT_RANGE_PROTO_SPECIFIED (include/uapi/linux/netfilter/nf_nat.h)
        rule = rule.attribute(1, &2_u32.to_be_bytes());
        for (register, attribute) in registers {
            rule = rule.attribute(attribute, &register.to_be_bytes());
        }
    }
    let rule = rule.end().end().end();
    let bound = |kind| Request::new(kind, 0, &of(libc::AF_UNSPEC, SUBSYSTEM)).unanswered();
    send_all(
        NETLINK_NETFILTER,
        vec![bound(BATCH_BEGIN), table, chain, rule, bound(BATCH_END)],
    )
}
