//! Over a directory like `/proc`, and over `/proc` itself.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod real;

use std::{fs, os::unix::fs::symlink, path::PathBuf};

use super::*;

/// A directory like `/proc`.
struct Proc(tempfile::TempDir);

impl Proc {
    /// With an init that has nothing.
    fn new() -> Self {
        let proc = Self(tempfile::tempdir().unwrap());
        proc.process(1, &[]);
        fs::create_dir(proc.0.path().join("self")).unwrap();
        fs::write(proc.0.path().join("uptime"), "1").unwrap();
        proc
    }

    fn directory(&self, pid: u32) -> PathBuf {
        self.0.path().join(pid.to_string()).join("fd")
    }

    fn process(&self, pid: u32, links: &[(u32, &str)]) {
        let task = self.0.path().join(format!("{pid}/task/{pid}"));
        fs::create_dir_all(task).unwrap();
        fs::create_dir_all(self.directory(pid)).unwrap();
        for &(fd, link) in links {
            self.link(pid, fd, link);
        }
    }

    fn link(&self, pid: u32, fd: u32, link: &str) {
        let path = self.directory(pid).join(fd.to_string());
        let _ = fs::remove_file(&path);
        symlink(link, path).unwrap();
    }

    /// A process that nobody may look into.
    fn closed(&self, pid: u32) {
        fs::create_dir_all(self.0.path().join(pid.to_string())).unwrap();
        fs::write(self.directory(pid), "").unwrap();
    }

    fn end(&self, pid: u32) {
        fs::remove_dir_all(self.0.path().join(pid.to_string())).unwrap();
    }

    fn descriptors(&self) -> Descriptors {
        Descriptors::at(self.0.path())
    }
}

fn wanted(inode: u64, references: Option<u32>, likely: Option<u32>) -> Wanted {
    Wanted {
        inode,
        references,
        likely: [likely, None],
    }
}

fn found(pids: &[u32], complete: bool) -> Found {
    Found {
        pids: pids.to_vec(),
        complete,
    }
}

#[test]
fn all_processes_in_order_of_pid() {
    let proc = Proc::new();
    proc.process(
        30,
        &[(0, "/dev/null"), (4, "socket:[7]"), (5, "socket:[8]")],
    );
    proc.process(4, &[(3, "socket:[7]"), (9, "socket:[7]"), (10, "pipe:[8]")]);
    proc.process(200, &[(3, "socket:[77]"), (4, "/tmp/socket:[8]")]);
    let mut descriptors = proc.descriptors();
    assert_eq!(
        descriptors.of(&[
            wanted(8, None, None),
            wanted(7, Some(9), Some(200)),
            wanted(9, None, None),
            wanted(0, None, None),
            wanted(7, None, None),
        ]),
        [
            found(&[30], true),
            found(&[4, 30], true),
            found(&[], true),
            found(&[], true),
            found(&[4, 30], true),
        ]
    );
    assert_eq!(descriptors.of(&[]), []);
}

#[test]
fn the_search_ends_with_the_last_reference() {
    let proc = Proc::new();
    proc.process(10, &[(3, "socket:[7]"), (4, "socket:[7]")]);
    proc.closed(11);
    let mut descriptors = proc.descriptors();
    let ask = |descriptors: &mut Descriptors, references, likely| {
        descriptors.of(&[wanted(7, references, likely)]).remove(0)
    };
    assert_eq!(ask(&mut descriptors, Some(2), Some(10)), found(&[10], true));
    // What was remembered on the way.
    assert_eq!(ask(&mut descriptors, Some(2), None), found(&[10], true));
    assert_eq!(ask(&mut descriptors, Some(1), Some(11)), found(&[10], true));
    // There may be more of them where nobody could look.
    assert_eq!(ask(&mut descriptors, Some(3), None), found(&[10], false));
    assert_eq!(ask(&mut descriptors, None, Some(10)), found(&[10], false));
    let mut fresh = proc.descriptors();
    assert_eq!(ask(&mut fresh, None, None), found(&[10], false));
}

#[test]
fn nothing_is_told_from_memory() {
    let proc = Proc::new();
    proc.process(10, &[(3, "socket:[7]")]);
    proc.process(11, &[(3, "socket:[8]")]);
    let mut descriptors = proc.descriptors();
    let mut ask = || descriptors.of(&[wanted(7, Some(1), Some(10)), wanted(8, Some(1), None)]);
    assert_eq!(ask(), [found(&[10], true), found(&[11], true)]);
    // The inode is another socket's now, the pid another process'.
    proc.link(10, 3, "socket:[8]");
    proc.link(11, 3, "socket:[7]");
    assert_eq!(ask(), [found(&[11], true), found(&[10], true)]);
    proc.end(11);
    assert_eq!(ask(), [found(&[], true), found(&[10], true)]);
}

#[test]
fn sockets_seen_before_are_found_without_a_search() {
    let proc = Proc::new();
    proc.process(10, &[(3, "socket:[7]")]);
    let mut descriptors = proc.descriptors();
    descriptors.prime();
    proc.closed(11);
    assert_eq!(
        descriptors.of(&[wanted(7, Some(1), None)]),
        [found(&[10], true)]
    );
}

#[test]
fn what_cannot_be_read_is_not_taken_for_empty() {
    let wanted = [wanted(7, None, None)];
    let nowhere = Path::new("/nonexistent");
    assert_eq!(Descriptors::at(nowhere).of(&wanted), [found(&[], false)]);
    Descriptors::at(nowhere).prime();

    // Hidden processes: init is one of them.
    let proc = Proc::new();
    proc.process(10, &[(3, "socket:[7]")]);
    proc.end(1);
    assert_eq!(proc.descriptors().of(&wanted), [found(&[10], false)]);

    // An entry that is no link.
    let proc = Proc::new();
    proc.process(10, &[]);
    fs::write(proc.directory(10).join("3"), "").unwrap();
    assert_eq!(proc.descriptors().of(&wanted), [found(&[], false)]);

    let proc = Proc::new();
    proc.process(10, &[(3, "socket:[7]")]);
    let mut descriptors = proc.descriptors();
    descriptors.patience = Duration::ZERO;
    assert_eq!(descriptors.of(&wanted), [found(&[], false)]);
    let mut descriptors = proc.descriptors();
    descriptors.whole = false;
    assert_eq!(descriptors.of(&wanted), [found(&[10], false)]);
}

#[test]
fn a_process_that_is_gone_is_no_gap() {
    let proc = Proc::new();
    proc.process(10, &[(3, "socket:[7]")]);
    fs::create_dir(proc.0.path().join("11")).unwrap();
    let mut descriptors = proc.descriptors();
    let wanted = [wanted(7, None, Some(4_000_000))];
    assert_eq!(descriptors.of(&wanted), [found(&[10], true)]);
}

#[test]
fn a_first_thread_that_has_ended_does_not_hide_the_others() {
    // Above the largest pid there is (proc_sys_kernel(5), pid_max): kcmp(2) is asked of the real ones.
    const FIRST: u32 = 5_000_010;
    let proc = Proc::new();
    proc.process(9, &[(3, "socket:[7]")]);
    proc.process(FIRST, &[]);
    let other = proc.0.path().join(format!("{FIRST}/task/5000012/fd"));
    fs::create_dir_all(&other).unwrap();
    symlink("socket:[7]", other.join("5")).unwrap();
    assert_eq!(
        proc.descriptors().of(&[wanted(7, None, None)]),
        [found(&[9, FIRST], true)]
    );
}

#[test]
fn ten_thousand_descriptors() {
    let proc = Proc::new();
    proc.process(10, &[]);
    for fd in 0..10_000 {
        proc.link(10, fd, &format!("socket:[{}]", 1000 + fd));
    }
    let mut descriptors = proc.descriptors();
    let last = wanted(10_999, Some(1), None);
    assert_eq!(descriptors.of(&[last]), [found(&[10], true)]);
    assert_eq!(descriptors.of(&[last]), [found(&[10], true)]);
}

#[test]
fn all_places_of_some_sockets() {
    let proc = Proc::new();
    proc.process(
        10,
        &[(3, "socket:[7]"), (4, "socket:[8]"), (5, "socket:[7]")],
    );
    // Above the largest pid there is: kcmp(2) is asked of the real ones.
    let (first, second) = (5_000_011, 5_000_012);
    proc.process(first, &[(3, "socket:[9]")]);
    let other = format!("{first}/task/{second}/fd");
    let other = proc.0.path().join(other);
    fs::create_dir_all(&other).unwrap();
    symlink("socket:[6]", other.join("5")).unwrap();
    let descriptors = proc.descriptors();
    let all = |inodes: &[u64]| {
        let (mut places, missed) = descriptors.everywhere(inodes, false);
        places.sort_unstable();
        (places, missed)
    };
    let place = |inode, pid, fd| Place { inode, pid, fd };
    let of_thread = place(6, first, None);
    let of_seven = [place(7, 10, Some(3)), place(7, 10, Some(5))];
    assert_eq!(
        all(&[7, 6, 70]),
        (
            [of_thread].into_iter().chain(of_seven).collect(),
            Missed::Nothing
        )
    );
    // The first error is no want of permission.
    proc.closed(13);
    assert_eq!(all(&[7]), (of_seven.to_vec(), Missed::Unread));
    proc.end(1);
    proc.end(13);
    assert_eq!(all(&[7]), (of_seven.to_vec(), Missed::Hidden));
    let nowhere = Descriptors::at(Path::new("/nonexistent"));
    assert_eq!(
        nowhere.everywhere(&[7], false),
        (Vec::new(), Missed::Unread)
    );
}

#[test]
fn what_is_not_permitted_is_hidden() {
    for (error, missed) in [
        (rustix::io::Errno::ACCESS, Missed::Hidden),
        (rustix::io::Errno::PERM, Missed::Hidden),
        (rustix::io::Errno::NOENT, Missed::Nothing),
        (rustix::io::Errno::SRCH, Missed::Nothing),
        (rustix::io::Errno::MFILE, Missed::Unread),
    ] {
        assert_eq!(Look::failed(error).missed(), missed, "{error}");
    }
}
