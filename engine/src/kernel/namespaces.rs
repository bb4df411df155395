//! Namespaces that stand in the way of a command that changes the scheduler.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::error::Error;
use crate::error::Result;
use crate::kernel::sysfs;

/// Inode numbers of the initial namespaces (`enum init_ns_ino` of include/uapi/linux/nsfs.h; the same since v3.8).
const INIT_USER: u64 = 0xEFFF_FFFD;
const INIT_CGROUP: u64 = 0xEFFF_FFFB;
/// The first kernel whose `bpf_cgroup_from_id()` finds cgroups outside the caller's cgroup namespace.
const FINDS_ALL_CGROUPS: (u32, u32) = (6, 18);

/// Does a namespace of this process stand in the way of a command that changes the scheduler?
///
/// - A **user** namespace does: the kernel asks for capabilities in the initial one.
/// - A **cgroup** namespace does up to Linux 6.17 unless its root is the machine's: the sweep and the queues of cgroups begin at the
///   root cgroup, which `bpf_cgroup_from_id()` does not find there.
/// - A **mount** namespace does where it hides the pins: see [`crate::host::environment::hidden_host`].
/// - A **PID** namespace does not: tasks are walked from the initial one.
///
/// # Errors
/// [`Error::Namespace`]
pub fn check_namespaces() -> Result<()> {
    check_user_namespace()?;
    let finds_all = sysfs::version().is_none_or(|version| version >= FINDS_ALL_CGROUPS);
    if !finds_all
        && inode("cgroup").is_some_and(|ino| ino != INIT_CGROUP)
        && !sees_root_cgroup(&mounts(), cgroup_ino)
    {
        return Err(Error::Namespace {
            namespace: "cgroup",
            why: "up to Linux 6.17 the kernel hides the root cgroup from BPF programs that are run in it, and the sweep \
                  starts there. Run this outside, as with `nsenter -t 1 -C`"
                .to_string(),
        });
    }
    Ok(())
}

/// The part of [`check_namespaces`] that every command needs, also one that only looks.
///
/// # Errors
/// [`Error::Namespace`]
pub fn check_user_namespace() -> Result<()> {
    match inode("user").is_some_and(|ino| ino != INIT_USER) {
        false => Ok(()),
        true => Err(Error::Namespace {
            namespace: "user",
            why: "the kernel lets nobody in it load BPF or attach a scheduler, root there included. Run this as root of the \
                  machine, outside the container"
                .to_string(),
        }),
    }
}

pub(crate) fn mounts() -> String {
    fs::read_to_string("/proc/self/mountinfo").unwrap_or_default()
}

/// The inode number of a namespace of this process; `None` where /proc does not show it.
fn inode(namespace: &str) -> Option<u64> {
    fs::metadata(Path::new("/proc/self/ns").join(namespace)).ok().map(|meta| meta.ino())
}

fn cgroup_ino(mount: &str) -> Option<u64> {
    fs::metadata(mount).ok().map(|meta| meta.ino())
}

/// Is the root of this process's cgroup namespace the root cgroup? It is where a mount of the root cgroup, which has inode 1, has
/// the root `/` as this process sees it.
fn sees_root_cgroup(mounts: &str, ino: impl Fn(&str) -> Option<u64>) -> bool {
    mounts.lines().any(|line| {
        let Some((mount, source)) = line.split_once(" - ") else { return false };
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next(), fields.next());
        source.starts_with("cgroup2 ") && root == Some("/") && point.and_then(&ino) == Some(1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "22 1 0:21 / /sys rw,nosuid - sysfs sysfs rw\n\
        30 22 0:27 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw\n";

    #[test]
    fn a_cgroup_namespace_below_the_root_is_seen() {
        let root = |_: &str| Some(1);
        assert!(sees_root_cgroup(MOUNTS, root));
        // The machine's mount, seen from a namespace below.
        let below = MOUNTS.replace("0:27 / /sys/fs/cgroup", "0:27 /../.. /sys/fs/cgroup");
        assert!(!sees_root_cgroup(&below, root));
        // A mount that was made in it.
        assert!(!sees_root_cgroup(MOUNTS, |_| Some(4711)));
        assert!(!sees_root_cgroup("", root));
    }
}
