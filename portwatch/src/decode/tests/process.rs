//! Paths and arguments.

use super::*;

#[test]
fn a_path_is_put_together_from_its_end() {
    for (components, cut, path) in [
        (&b"nginx\0sbin\0usr\0"[..], false, Some("/usr/sbin/nginx")),
        (b"init\0", false, Some("/init")),
        (b"c\0b\0", true, Some("b/c")),
        (b"c\0", true, Some("c")),
        (b"", false, None),
        // Not ended: the programs wrote something else than they told.
        (b"nginx", false, None),
        (b"caf\xc3\0\xff\0", false, Some("/\u{fffd}/caf\u{fffd}")),
        (b"a\nb\0\x1b[2J\0", false, Some("/\x1b[2J/a\nb")),
    ] {
        let mut record = process_record(components, b"");
        if cut {
            record.flags = flags::CUT_PATH;
        }
        let image = image_of(&record);
        assert_eq!(image.executable_path.as_deref(), path);
        assert_eq!((image.path_cut, image.args_cut), (cut, false));
        assert_eq!((image.pid, image.key), (14, 12));
    }
}

#[test]
fn arguments_end_with_nul_each() {
    for (args, expected) in [
        (
            &b"nginx\0-g\0daemon off;\0"[..],
            &["nginx", "-g", "daemon off;"][..],
        ),
        (b"one", &["one"]),
        (b"", &[]),
        (b"\0\0\0", &[]),
        (b"a\0\0b\0", &["a", "", "b"]),
        (b"nginx: master process\0\0\0\0", &["nginx: master process"]),
        (b"caf\xc3", &["caf\u{fffd}"]),
    ] {
        let mut record = process_record(b"a\0", args);
        record.flags = flags::CUT_ARGS;
        let image = image_of(&record);
        assert_eq!(image.args.unwrap(), expected);
        assert_eq!((image.path_cut, image.args_cut), (false, true));
    }
}

#[test]
fn a_process_without_path_or_arguments_has_none() {
    let mut record = process_record(b"a\0", b"a\0");
    record.present = 0;
    let image = image_of(&record);
    assert_eq!((image.executable_path, image.args), (None, None));
}

#[test]
fn lengths_inside_a_process_record_may_lie() {
    let mut record = process_record(b"a\0", b"a\0");
    record.path_len = (PATH_LEN + NAME_LEN + 1) as u32;
    assert_eq!(refusal(&bytes(&record)), "record cut short");
    record.path_len = u32::MAX;
    assert_eq!(refusal(&bytes(&record)), "record cut short");
    record.path_len = 2;
    record.args_len = u32::MAX;
    let args = image_of(&record).args.unwrap();
    assert_eq!(args.iter().map(String::len).sum::<usize>(), ARGS_LEN - 1);
}
