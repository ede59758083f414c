#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use aya_obj::btf::BtfKind;

use super::*;
use crate::{
    event::{Backend, Op},
    plan::{
        self, Attach,
        generation::Generation,
        kernels::{Kernel, facts},
    },
    selection::Selection,
};

fn attachment(way: Way, target: &'static str) -> Attachment {
    Attachment {
        program: "",
        generation: Generation::Bounded,
        way,
        target,
    }
}

#[test]
fn targets_have_the_ids_of_the_kernel_whichever_way_they_are_told() {
    // Functions before and after the last typedef, next to one another and far apart.
    let ids = BTreeMap::from([
        ("inet_bind", 700),
        ("inet_listen", 3),
        ("sys_exit", 701),
        ("security_socket_bind", 702),
        ("inet6_bind", 9000),
        ("inet_autobind", 9001),
    ]);
    let btf = types(
        [
            attachment(Way::FExit, "inet6_bind"),
            attachment(Way::FExit, "inet_bind"),
            attachment(Way::BtfTracepoint, "sys_exit"),
            attachment(Way::FEntry, "inet_listen"),
            attachment(Way::FEntry, "security_socket_bind"),
            attachment(Way::FEntry, "inet_bind"),
            attachment(Way::FEntry, "inet6_bind"),
            attachment(Way::FEntry, "absent"),
        ],
        &ids,
    )
    .unwrap();
    let id = |name, kind| btf.id_by_type_name_kind(name, kind).ok();
    assert_eq!(id("inet_bind", BtfKind::Func), Some(700));
    assert_eq!(id("inet_listen", BtfKind::Func), Some(3));
    assert_eq!(id("btf_trace_sys_exit", BtfKind::Typedef), Some(701));
    assert_eq!(id("security_socket_bind", BtfKind::Func), Some(702));
    assert_eq!(id("inet6_bind", BtfKind::Func), Some(9000));
    assert_eq!(id("sys_exit", BtfKind::Func), None);
    assert_eq!(id("inet_autobind", BtfKind::Func), None, "not in the plan");
    assert_eq!(id("absent", BtfKind::Func), None);
}

/// Bytes of BTF without types: its header, and the empty name.
const EMPTY: usize = 24 + 1;

#[test]
fn plans_that_go_by_name_need_no_ids() {
    let selection = Selection {
        events: Op::ALL.to_vec(),
        descendants: true,
        ..Selection::default()
    };
    let facts = facts(Kernel::V6_12);
    let ids: BTreeMap<_, _> = facts.prototypes.keys().map(|name| (*name, 9)).collect();
    for (backend, empty) in [
        (Backend::Tracing, false),
        (Backend::Kprobe, true),
        (Backend::RawTp, true),
    ] {
        let plan = plan::plan(&facts, &selection, Attach::Only(backend)).unwrap();
        let btf = types(plan.attachments.iter().copied(), &ids).unwrap();
        assert_eq!(btf.to_bytes().len() == EMPTY, empty, "{backend:?}");
    }
}
