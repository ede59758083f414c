//! Real processes with real sockets. Other tests of this process start others, which have a copy of
//! every descriptor until they execute: what has to hold, holds after a while.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    os::{
        fd::{AsRawFd, FromRawFd as _, OwnedFd},
        unix::{fs::MetadataExt as _, net::UnixStream},
    },
    process::{Child, Command, Stdio},
    sync::mpsc::{self, TryRecvError},
};

use nix::{
    sched::{CloneFlags, unshare},
    sys::{
        signal::{Signal, kill},
        socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg},
        wait::waitpid,
    },
    unistd::{ForkResult, Pid, fork, geteuid},
};

use super::*;

pub(super) fn inode_of(file: &impl AsRawFd) -> u64 {
    fs::metadata(format!("/proc/self/fd/{}", file.as_raw_fd()))
        .unwrap()
        .ino()
}

/// Whether this user may look at everybody's descriptors; some sandboxes keep those of init even
/// from root.
fn everything_is_open() -> bool {
    let links = fs::read_dir("/proc/1/fd");
    geteuid().is_root()
        && links
            .is_ok_and(|mut links| links.all(|link| fs::read_link(link.unwrap().path()).is_ok()))
}

fn listener() -> (TcpListener, u64) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let inode = inode_of(&listener);
    (listener, inode)
}

/// Asks until the pids are these; panics with what was found last.
fn ends_as(wanted: Wanted, pids: &[u32]) -> Found {
    let mut descriptors = Descriptors::at(Path::new("/proc"));
    for _ in 0..100 {
        let found = descriptors.of(&[wanted]).remove(0);
        if found.pids == pids {
            return found;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("{pids:?}: {:?}", descriptors.of(&[wanted]));
}

fn sorted(mut pids: Vec<u32>) -> Vec<u32> {
    pids.sort_unstable();
    pids
}

/// A process that ends with the test.
struct Sleeper(Child);

impl Sleeper {
    fn with(stdin: impl Into<Stdio>) -> Self {
        Self(
            Command::new("sleep")
                .arg("60")
                .stdin(stdin)
                .spawn()
                .unwrap(),
        )
    }

    fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A forked process that ends with the test.
pub(super) struct Forked(pub(super) Pid);

impl Forked {
    /// Runs `body` with this descriptor alone, the others closed; then sleeps.
    pub(super) fn run(kept: &impl AsRawFd, body: impl FnOnce(OwnedFd)) -> Self {
        let kept = kept.as_raw_fd();
        // SAFETY: glibc makes malloc usable in the child; the bodies take no lock of this process.
        match unsafe { fork() }.unwrap() {
            ForkResult::Parent { child } => Self(child),
            ForkResult::Child => {
                // SAFETY: no other thread of the child uses these descriptors, and the parent's
                // owners of them do not run here.
                let kept = unsafe {
                    libc::dup2(kept, 3);
                    libc::close_range(4, u32::MAX, 0);
                    OwnedFd::from_raw_fd(3)
                };
                body(kept);
                loop {
                    thread::sleep(Duration::from_secs(60));
                }
            }
        }
    }

    fn id(&self) -> u32 {
        self.0.as_raw().cast_unsigned()
    }
}

impl Drop for Forked {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
        let _ = waitpid(self.0, None);
    }
}

#[test]
fn this_process() {
    let own = std::process::id();
    let (listener, inode) = listener();
    let found = ends_as(wanted(inode, None, None), &[own]);
    assert_eq!(found.complete, everything_is_open(), "{found:?}");
    let found = ends_as(wanted(inode, Some(1), None), &[own]);
    assert!(found.complete);
    let second = listener.try_clone().unwrap();
    let found = ends_as(wanted(inode, Some(2), Some(own)), &[own]);
    assert!(found.complete);
    drop((listener, second));
    ends_as(wanted(inode, None, Some(own)), &[]);
}

#[test]
fn a_child_that_inherited_it() {
    let own = std::process::id();
    let (listener, inode) = listener();
    let child = Sleeper::with(OwnedFd::from(listener.try_clone().unwrap()));
    let both = sorted(vec![own, child.id()]);
    ends_as(wanted(inode, None, None), &both);
    // Two tables: kcmp(2) tells them apart where it is there.
    ends_as(wanted(inode, Some(2), Some(own)), &both);
    drop(listener);
    let id = child.id();
    ends_as(wanted(inode, Some(1), Some(own)), &[id]);
    drop(child);
    ends_as(wanted(inode, None, Some(id)), &[]);
}

#[test]
fn a_forked_child() {
    let (listener, inode) = listener();
    let child = Forked::run(&listener, std::mem::forget);
    let both = sorted(vec![std::process::id(), child.id()]);
    ends_as(wanted(inode, None, None), &both);
}

#[test]
fn a_child_that_executed_something_else() {
    let (listener, inode) = listener();
    // Close-on-exec, as all descriptors of std are.
    let _child = Sleeper::with(Stdio::null());
    ends_as(wanted(inode, None, None), &[std::process::id()]);
    drop(listener);
}

#[test]
fn a_socket_passed_to_a_child() {
    let (listener, inode) = listener();
    let (mut own, other) = UnixStream::pair().unwrap();
    let child = Forked::run(&other, |kept| {
        let mut room = nix::cmsg_space!([i32; 1]);
        let mut byte = [0];
        let mut bytes = [std::io::IoSliceMut::new(&mut byte)];
        let message = recvmsg::<()>(
            kept.as_raw_fd(),
            &mut bytes,
            Some(&mut room),
            MsgFlags::empty(),
        );
        let received = message.ok().and_then(|message| {
            message.cmsgs().ok()?.find_map(|message| match message {
                ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
                _ => None,
            })
        });
        if received.is_some() {
            let _ = UnixStream::from(kept).write_all(b"!");
        }
    });
    drop(other);
    let rights = [listener.as_raw_fd()];
    sendmsg::<()>(
        own.as_raw_fd(),
        &[std::io::IoSlice::new(b".")],
        &[ControlMessage::ScmRights(&rights)],
        MsgFlags::empty(),
        None,
    )
    .unwrap();
    drop(listener);
    own.read_exact(&mut [0]).unwrap();
    ends_as(wanted(inode, Some(1), None), &[child.id()]);
}

#[test]
fn a_socket_on_its_way_is_nobodys() {
    let (listener, inode) = listener();
    let (own, other) = UnixStream::pair().unwrap();
    let rights = [listener.as_raw_fd()];
    sendmsg::<()>(
        own.as_raw_fd(),
        &[std::io::IoSlice::new(b".")],
        &[ControlMessage::ScmRights(&rights)],
        MsgFlags::empty(),
        None,
    )
    .unwrap();
    drop(listener);
    ends_as(wanted(inode, Some(1), None), &[]);
    drop(other);
}

#[test]
fn a_thread_with_a_table_of_its_own() {
    let (tell, told) = mpsc::channel();
    let (end, ended) = mpsc::channel::<()>();
    let thread = thread::spawn(move || {
        unshare(CloneFlags::CLONE_FILES).unwrap();
        // SAFETY: copies, in a table that only this thread has.
        unsafe { libc::close_range(3, u32::MAX, 0) };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let link = format!("/proc/thread-self/fd/{}", listener.as_raw_fd());
        tell.send(fs::metadata(link).unwrap().ino()).unwrap();
        let _ = ended.recv();
        drop(listener);
    });
    let inode = told.recv().unwrap();
    ends_as(wanted(inode, None, None), &[std::process::id()]);
    drop(end);
    thread.join().unwrap();
    ends_as(wanted(inode, None, None), &[]);
}

#[test]
fn a_process_whose_first_thread_has_ended() {
    let (listener, inode) = listener();
    let child = Forked::run(&listener, |kept| {
        thread::spawn(|| thread::sleep(Duration::from_secs(60)));
        std::mem::forget(kept);
        // SAFETY: ends this thread only; nothing refers to its stack.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    });
    drop(listener);
    ends_as(wanted(inode, Some(1), None), &[child.id()]);
}

#[test]
fn descriptors_that_come_and_go_do_no_harm() {
    let (_listener, inode) = listener();
    let (over, is_over) = mpsc::channel::<()>();
    let busy = thread::spawn(move || {
        while is_over.try_recv() == Err(TryRecvError::Empty) {
            let many: Vec<_> = (0..50).map(|_| UnixStream::pair()).collect();
            drop(many);
        }
    });
    let mut descriptors = Descriptors::at(Path::new("/proc"));
    for _ in 0..50 {
        let found = descriptors.of(&[wanted(inode, None, None)]).remove(0);
        assert!(found.pids.contains(&std::process::id()), "{found:?}");
        assert_eq!(found.complete, everything_is_open(), "{found:?}");
    }
    drop(over);
    busy.join().unwrap();
}

#[test]
fn processes_of_others_are_said_to_be_closed() {
    let found = thread::spawn(|| {
        // SAFETY: of this thread alone, which ends with the test.
        unsafe { libc::setfsuid(65534) };
        if fs::read_dir("/proc/1/fd").is_ok() {
            return None;
        }
        let mut descriptors = Descriptors::at(Path::new("/proc"));
        descriptors.of(&[wanted(1, None, None)]).pop()
    });
    match found.join().unwrap() {
        Some(found) => assert!(!found.complete),
        None => println!("skip: init is a process of this user"),
    }
}
