//! The neighbours: libbpf-tools and bpftrace, as Debian 13 packages them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::vm::fetch::{Apt, Closure, TRIXIE};
use crate::workspace::{self, Cache};

/// In the packages, and in the guest.
const PROGRAMS: &[&str] = &[
    "usr/sbin/bindsnoop-libbpf",
    "usr/sbin/tcpconnect-libbpf",
    "usr/bin/bpftrace",
];

/// What portwatch does for one event, as bpftrace would: who, what, which port, and the result.
const SCRIPTS: &[(&str, &str)] = &[
    (
        "bind-fexit.bt",
        r#"kretfunc:inet_bind, kretfunc:inet6_bind {
	$k = args->sock->sk;
	printf("%-7d %-16s %4d %5d\n", pid, comm, retval, $k->__sk_common.skc_num);
}
"#,
    ),
    (
        "bind-kprobe.bt",
        r#"kprobe:inet_bind, kprobe:inet6_bind { @s[tid] = arg0; }
kretprobe:inet_bind, kretprobe:inet6_bind /@s[tid]/ {
	$k = ((struct socket *)@s[tid])->sk;
	printf("%-7d %-16s %4d %5d\n", pid, comm, retval, $k->__sk_common.skc_num);
	delete(@s[tid]);
}
"#,
    ),
    (
        "hooks-bind-fexit.bt",
        "kretfunc:inet_bind_sk, kretfunc:security_socket_bind, kfunc:inet_release { }\n",
    ),
    (
        "hooks-bind-kprobe.bt",
        "kprobe:inet_bind_sk, kretprobe:inet_bind_sk,
kprobe:security_socket_bind, kretprobe:security_socket_bind, kprobe:inet_release { }
",
    ),
    (
        "hooks-connect-fexit.bt",
        "kfunc:__inet_stream_connect, kretfunc:__inet_stream_connect,
kretfunc:security_socket_connect, rawtracepoint:inet_sock_set_state, kfunc:inet_release { }
",
    ),
];

/// The functions and tracepoints that portwatch hooks on 6.12, with programs that do nothing: what no
/// program can go below. Label, command, operation.
pub(crate) const HOOKS: &[(&str, &str, &str)] = &[
    (
        "hooks of tracing (2 fexit, fentry)",
        "/usr/bin/bpftrace /hooks-bind-fexit.bt",
        "bind",
    ),
    (
        "hooks of kprobe (3 kprobes, 2 kretprobes)",
        "/usr/bin/bpftrace /hooks-bind-kprobe.bt",
        "bind",
    ),
    (
        "hooks of tracing (2 fentry, 2 fexit, raw tracepoint)",
        "/usr/bin/bpftrace /hooks-connect-fexit.bt",
        "connect",
    ),
];

/// Label, command, and the operation it is compared on.
pub(crate) const PEERS: &[(&str, &str, &str)] = &[
    ("bindsnoop", "/usr/sbin/bindsnoop-libbpf -x", "bind"),
    ("bpftrace fexit", "/usr/bin/bpftrace /bind-fexit.bt", "bind"),
    (
        "bpftrace kprobe",
        "/usr/bin/bpftrace /bind-kprobe.bt",
        "bind",
    ),
    ("tcpconnect", "/usr/sbin/tcpconnect-libbpf", "connect"),
];

/// The unpacked packages.
///
/// # Errors
/// They have to be fetched and cannot be.
pub(crate) fn find_or_fetch(cache: &Cache) -> Result<PathBuf> {
    let root = cache.path().join("peers").join("root");
    if !root.is_dir() {
        let apt = Apt::open(cache.path(), TRIXIE)?;
        apt.unpack(
            "libbpf-tools and bpftrace with their libraries",
            &["libbpf-tools", "bpftrace"],
            Closure::WithDependencies,
            &root,
        )?;
    }
    Ok(root)
}

/// Their programs: where they go, and the files here.
///
/// # Errors
/// The packages hold other files than expected.
pub(crate) fn programs(root: &Path) -> Result<Vec<(String, PathBuf)>> {
    PROGRAMS
        .iter()
        .map(|path| {
            let file = root
                .join(path)
                .canonicalize()
                .with_context(|| format!("the packages have no {path}"))?;
            Ok((format!("/{path}"), file))
        })
        .collect()
}

/// The scripts, as files.
///
/// # Errors
/// They cannot be written.
pub(crate) fn scripts() -> Result<Vec<(String, PathBuf)>> {
    let folder = workspace::scratch().join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    SCRIPTS
        .iter()
        .map(|(name, text)| {
            let file = folder.join(name);
            fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
            Ok((format!("/{name}"), file))
        })
        .collect()
}

/// For the driver's command line.
pub(crate) fn contenders() -> Vec<String> {
    let hooks = HOOKS.iter();
    PEERS
        .iter()
        .map(|(label, command, _)| format!("{label}={command}"))
        .chain(hooks.map(|(label, command, mode)| format!("{label}:{mode}={command}")))
        .collect()
}
