//! What `strace -f -y -ttt` has written, read back. Pure.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use anyhow::{Context as _, Result};

/// A system call that has returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) thread: u32,
    pub(crate) name: String,
    /// As they are printed.
    pub(crate) args: Vec<String>,
    /// What stands behind the equals sign.
    pub(crate) result: String,
}

impl Call {
    /// The argument at this place.
    pub(crate) fn arg(&self, place: usize) -> &str {
        self.args.get(place).map_or("", String::as_str)
    }

    /// The name of the error that it has failed with.
    pub(crate) fn error(&self) -> Option<&str> {
        self.result.strip_prefix("-1 ")?.split(' ').next()
    }

    /// The thread that it has made, if it makes threads. In a pid namespace of its own the caller gets
    /// another number than strace, which adds its own in a comment.
    fn made(&self) -> Option<u32> {
        if !matches!(self.name.as_str(), "clone" | "clone3" | "fork" | "vfork") {
            return None;
        }
        let translated = self.result.split_once("/* ").map(|(_, rest)| rest);
        let text = translated.unwrap_or(&self.result);
        text.split(' ').next()?.parse().ok()
    }
}

/// The calls of a log, in the order in which they returned. Those that never did are left out.
pub(crate) fn calls(log: &str) -> Result<Vec<Call>> {
    let mut begun: HashMap<u32, &str> = HashMap::new();
    let mut calls = Vec::new();
    for line in log.lines() {
        let wrong = || format!("not a line of strace's: {line}");
        let (thread, rest) = line.split_once(' ').with_context(wrong)?;
        let thread = thread.parse().with_context(wrong)?;
        let (_, rest) = rest.trim_start().split_once(' ').with_context(wrong)?;
        let rest = rest.trim_start();
        if rest.starts_with("+++ ") || rest.starts_with("--- ") {
            continue;
        }
        if let Some(head) = rest.strip_suffix(" <unfinished ...>") {
            begun.insert(thread, head);
            continue;
        }
        let whole = match rest.strip_prefix("<... ") {
            None => rest.to_owned(),
            Some(resumed) => {
                let (_, tail) = resumed.split_once(" resumed>").with_context(wrong)?;
                format!("{}{tail}", begun.remove(&thread).with_context(wrong)?)
            }
        };
        let (name, rest) = whole.split_once('(').with_context(wrong)?;
        let (args, result) = rest.rsplit_once(" = ").with_context(wrong)?;
        // Of one that a signal has ended, or that is made again, nothing is known or to be told.
        if result.starts_with('?') {
            continue;
        }
        let args = args.trim_end().strip_suffix(')').with_context(wrong)?;
        calls.push(Call {
            thread,
            name: name.to_owned(),
            args: split(args),
            result: result.to_owned(),
        });
    }
    Ok(calls)
}

/// Arguments are separated by commas, except in parentheses, brackets, braces and quotes.
fn split(text: &str) -> Vec<String> {
    let mut args = vec![String::new()];
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for c in text.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                args.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(last) = args.last_mut() {
            last.push(c);
        }
    }
    args.iter().map(|arg| arg.trim().to_owned()).collect()
}

/// The process of each thread that another one has made.
pub(crate) fn processes(calls: &[Call]) -> HashMap<u32, u32> {
    let makers: HashMap<u32, &Call> = calls
        .iter()
        .filter_map(|call| Some((call.made()?, call)))
        .collect();
    let shares = |call: &Call| call.args.iter().any(|arg| arg.contains("CLONE_THREAD"));
    let process = |thread: &u32| {
        let mut process = *thread;
        while let Some(call) = makers.get(&process).filter(|call| shares(call)) {
            process = call.thread;
        }
        (*thread, process)
    };
    makers.keys().map(process).collect()
}

/// The inode of the socket that a descriptor stands for: `3<socket:[4711]>`.
pub(crate) fn inode(text: &str) -> Option<u64> {
    let (_, rest) = text.split_once("<socket:[")?;
    rest.split_once("]>")?.0.parse().ok()
}

/// An address of the internet.
pub(crate) fn address(text: &str) -> Option<SocketAddr> {
    let between = |from: &str, to: &str| Some(text.split_once(from)?.1.split_once(to)?.0);
    let port = between("_port=htons(", ")")?.parse().ok()?;
    let ip = between("inet_addr(\"", "\"").or_else(|| between("inet_pton(AF_INET6, \"", "\""))?;
    Some(SocketAddr::new(ip.parse::<IpAddr>().ok()?, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(log: &str) -> Call {
        let mut calls = calls(log).expect("strace writes this");
        assert_eq!(calls.len(), 1, "{calls:?}");
        calls.remove(0)
    }

    #[test]
    fn a_bind_has_a_socket_an_address_and_a_result() {
        let call = only(
            "9451  1796066113.748069 bind(4<socket:[21018]>, {sa_family=AF_INET6, sin6_port=htons(8080), \
             sin6_flowinfo=htonl(0), inet_pton(AF_INET6, \"::\", &sin6_addr), sin6_scope_id=0}, 28) = 0",
        );
        assert_eq!((call.thread, call.name.as_str()), (9451, "bind"));
        assert_eq!(inode(call.arg(0)), Some(21018));
        assert_eq!(
            address(call.arg(1)),
            Some("[::]:8080".parse().expect("an address"))
        );
        assert_eq!((call.arg(2), call.error()), ("28", None));
    }

    #[test]
    fn a_failure_has_the_name_of_its_error() {
        let call = only(
            "9453  1796066113.772579 connect(4<socket:[21033]>, {sa_family=AF_INET, sin_port=htons(8080), \
             sin_addr=inet_addr(\"127.0.0.1\")}, 16) = -1 EINPROGRESS (Operation now in progress)",
        );
        assert_eq!(call.error(), Some("EINPROGRESS"));
        assert_eq!(
            address(call.arg(1)),
            Some("127.0.0.1:8080".parse().expect("an address"))
        );
    }

    #[test]
    fn a_call_that_others_have_interrupted_is_put_together() {
        let log = "\
9454  1796066113.775001 accept4(4<socket:[21018]>,  <unfinished ...>
9453  1796066113.775064 +++ exited with 0 +++
9454  1796066113.775083 <... accept4 resumed>{sa_family=AF_INET, sin_port=htons(46700), sin_addr=inet_addr(\"127.0.0.1\")}, [112 => 16], SOCK_NONBLOCK) = 11<socket:[21043]>
";
        let call = only(log);
        assert_eq!(call.args.len(), 4);
        assert_eq!(
            (inode(call.arg(0)), inode(&call.result)),
            (Some(21018), Some(21043))
        );
    }

    #[test]
    fn what_never_returned_is_left_out() {
        let log = "\
17 1796066113.775001 accept4(4<socket:[21018]>,  <unfinished ...>
18 1796066113.775002 accept4(4<socket:[21018]>, 0x7ffe, [16], 0) = ? ERESTARTSYS (To be restarted if SA_RESTART is set)
17 1796066113.775083 <... accept4 resumed> <unfinished ...>) = ?
17 1796066113.775084 +++ killed by SIGKILL +++
";
        assert_eq!(calls(log).expect("strace writes this"), []);
        assert!(calls("strace: something else").is_err());
    }

    #[test]
    fn commas_inside_do_not_separate() {
        assert_eq!(
            split("3, {a=[1, 2], b=f(\"x, \\\"y\")}, 4"),
            ["3", "{a=[1, 2], b=f(\"x, \\\"y\")}", "4"]
        );
    }

    #[test]
    fn threads_belong_to_the_process_that_began() {
        let log = "\
10 1.0 clone(child_stack=NULL, flags=CLONE_CHILD_CLEARTID|SIGCHLD, child_tidptr=0x7f) = 20
20 1.0 clone3({flags=CLONE_VM|CLONE_THREAD|CLONE_SETTLS, stack_size=0x7fff40} => {parent_tid=[21]}, 88) = 21
21 1.0 clone3({flags=CLONE_VM|CLONE_THREAD, stack_size=0x7fff40} => {parent_tid=[22]}, 88) = 22
22 1.0 clone(child_stack=0x7ff, flags=CLONE_NEWPID|SIGCHLD) = 30
30 1.0 clone3({flags=CLONE_VM|CLONE_THREAD}, 88) = 2 /* 31 in strace's PID NS */
";
        let processes = processes(&calls(log).expect("strace writes this"));
        let expected = [(20, 20), (21, 20), (22, 20), (30, 30), (31, 30)];
        assert_eq!(processes, HashMap::from(expected));
    }
}
