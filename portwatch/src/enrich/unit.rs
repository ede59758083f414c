//! The systemd unit of a cgroup path, decided as systemd decides it (src/basic/cgroup-util.c,
//! `cg_path_get_unit`, `cg_path_get_user_unit`): the first part of the path that is not a slice, or,
//! below a user's service manager, the first such part of the rest.

/// The unit that a path in the cgroup hierarchy belongs to: of the system, or the user's own where
/// the path goes on below `user@UID.service`. Units of a systemd inside a container are not looked
/// at: they are not units of this machine.
#[must_use]
pub fn of_cgroup(path: &str) -> Option<String> {
    let mut parts = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != "..")
        .skip_while(|part| is_slice(part));
    let unit = decode(parts.next()?)?;
    let user_unit = is_user_manager(unit)
        .then(|| parts.find(|part| !is_slice(part)).and_then(decode))
        .flatten();
    Some(user_unit.unwrap_or(unit).to_owned())
}

/// Undoes the `\xNN` of unit names (systemd.unit(5), "String escaping"); bytes that then are no
/// UTF-8 are replaced.
#[must_use]
pub fn unescape(name: &str) -> String {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some(at) = rest.find("\\x") {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let code = rest
            .get(at + 2..at + 4)
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let taken = match code {
            Some(byte) => {
                bytes.push(byte);
                4
            }
            None => {
                bytes.extend_from_slice(b"\\x");
                2
            }
        };
        rest = &rest[at + taken..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `cg_path_decode_unit`: an underscore in front protects names that the kernel uses itself. A
/// slice is no answer.
fn decode(part: &str) -> Option<&str> {
    let name = part.strip_prefix('_').unwrap_or(part);
    (is_unit_name(name) && !name.ends_with(".slice")).then_some(name)
}

/// `unit_name_is_valid` for plain names and instances (src/basic/unit-name.c).
fn is_unit_name(name: &str) -> bool {
    const TYPES: [&str; 11] = [
        "service",
        "socket",
        "target",
        "device",
        "mount",
        "automount",
        "swap",
        "timer",
        "path",
        "slice",
        "scope",
    ];
    let Some((stem, kind)) = name.rsplit_once('.') else {
        return false;
    };
    name.len() < 256
        && TYPES.contains(&kind)
        && !stem.is_empty()
        && !stem.starts_with('@')
        && !stem.ends_with('@')
        && stem
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte))
}

/// `slice_name_is_valid`: dashes separate the parents.
fn is_slice(part: &str) -> bool {
    let name = part.strip_prefix('_').unwrap_or(part);
    name == "-.slice"
        || name.strip_suffix(".slice").is_some_and(|stem| {
            is_unit_name(name)
                && !stem.contains('@')
                && !stem.starts_with('-')
                && !stem.ends_with('-')
                && !stem.contains("--")
        })
}

fn is_user_manager(unit: &str) -> bool {
    unit.strip_prefix("user@")
        .and_then(|rest| rest.strip_suffix(".service"))
        .is_some_and(|uid| uid.parse::<u32>().is_ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_of_real_machines() {
        for (path, unit) in [
            ("/system.slice/nginx.service", Some("nginx.service")),
            (
                "/system.slice/system-postgresql.slice/postgresql@15-main.service",
                Some("postgresql@15-main.service"),
            ),
            ("/init.scope", Some("init.scope")),
            (
                "/user.slice/user-1000.slice/session-3.scope",
                Some("session-3.scope"),
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/foo.service",
                Some("foo.service"),
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/app-org.gnome.Terminal.slice/vte-spawn-5e.scope",
                Some("vte-spawn-5e.scope"),
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/init.scope",
                Some("init.scope"),
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service",
                Some("user@1000.service"),
            ),
            (
                "/system.slice/systemd-udevd.service/udev",
                Some("systemd-udevd.service"),
            ),
            (
                r"/system.slice/dev-disk-by\x2dlabel-swap.swap",
                Some(r"dev-disk-by\x2dlabel-swap.swap"),
            ),
            (
                "/system.slice/docker-0123.scope/system.slice/nginx.service",
                Some("docker-0123.scope"),
            ),
            ("/../../system.slice/nginx.service", Some("nginx.service")),
            ("/system.slice/_cgroup.service", Some("cgroup.service")),
            ("/system.slice", None),
            ("/", None),
            ("", None),
            ("/docker/0123", None),
            ("/kubepods/burstable/pod1/abc", None),
            ("/system.slice/foo@.service", None),
            ("/system.slice/@foo.service", None),
            ("/system.slice/.service", None),
            ("/system.slice/a b.service", None),
            ("/system.slice/nginx.conf", None),
            ("/a--b.slice/nginx.service", None),
        ] {
            assert_eq!(of_cgroup(path).as_deref(), unit, "{path}");
        }
    }

    #[test]
    fn names_of_256_bytes_are_no_units() {
        let name = |len: usize| format!("{}.service", "a".repeat(len - ".service".len()));
        assert_eq!(of_cgroup(&name(255)), Some(name(255)));
        assert_eq!(of_cgroup(&name(256)), None);
    }

    #[test]
    fn escapes_are_undone() {
        for (escaped, plain) in [
            (r"my\x2dmachine", "my-machine"),
            (r"\x2d\x2d", "--"),
            (r"caf\xc3\xa9", "café"),
            (r"\xff", "\u{fffd}"),
            (r"\x", r"\x"),
            (r"\x2", r"\x2"),
            (r"\xzz2d", r"\xzz2d"),
            (r"\x+f", r"\x+f"),
            (r"\xé", r"\xé"),
            ("plain", "plain"),
        ] {
            assert_eq!(unescape(escaped), plain, "{escaped}");
        }
    }

    proptest! {
        #[test]
        fn any_path_is_survived(path in r"(/[-a-z@._\\x0-9é]{0,12}(\.service|\.slice|\.scope)?){0,6}") {
            if let Some(unit) = of_cgroup(&path) {
                prop_assert!(path.contains(&unit));
                prop_assert!(unit.contains('.'));
            }
        }

        #[test]
        fn what_is_escaped_comes_back(name in ".*") {
            let escaped: String = name.bytes().map(|byte| format!("\\x{byte:02x}")).collect();
            prop_assert_eq!(unescape(&escaped), name);
        }

        #[test]
        fn any_text_is_unescaped_without_panic(name in r"(\\x?[0-9a-fé]{0,3}|.){0,8}") {
            let _ = unescape(&name);
        }
    }
}
