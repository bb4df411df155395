//! Snapshots on disk.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use state_migrate::snapshot::MAX_FILE;
use state_migrate::{Snapshot, SnapshotError};

use crate::snapshot::{full, tiny};

/// A folder of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("snapshot-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn writes_whole_files_and_reads_them() {
    let folder = Folder::new("whole");
    let path = folder.0.join("state.snapshot");
    tiny().write(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(Snapshot::read(&path).unwrap(), tiny());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    full().write(&path).unwrap();
    assert_eq!(Snapshot::read(&path).unwrap(), full());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(folder.names(), ["state.snapshot"], "nothing is left beside it");
    let longest = folder.0.join("s".repeat(255));
    tiny().write(&longest).unwrap();
    assert_eq!(Snapshot::read(&longest).unwrap(), tiny());
}

#[test]
fn what_cannot_be_written_leaves_all_as_it_was() {
    let folder = Folder::new("fails");
    let path = folder.0.join("state");
    fs::create_dir(&path).unwrap();
    let text = tiny().write(&path).unwrap_err().to_string();
    assert!(text.contains("put the snapshot in place"), "{text}");
    assert_eq!(folder.names(), ["state"], "the temporary file is gone");
    let text = tiny().write(folder.0.join("none/state")).unwrap_err().to_string();
    assert!(text.contains("create the temporary file"), "{text}");
    assert!(matches!(tiny().write("/"), Err(SnapshotError::NotAFile { .. })));
    let mut bad = tiny();
    bad.meta.policy = "a\0".into();
    assert!(bad.write(folder.0.join("bad")).is_err());
    assert_eq!(folder.names(), ["state"]);
}

#[test]
fn links_are_replaced_and_never_followed() {
    let folder = Folder::new("links");
    let (target, link) = (folder.0.join("target"), folder.0.join("link"));
    fs::write(&target, "mine").unwrap();
    symlink(&target, &link).unwrap();
    assert!(matches!(Snapshot::read(&link), Err(SnapshotError::NotAFile { .. })));
    // Where the temporary file would stand, too.
    let temporary = folder.0.join(format!(".scx-snapshot.{}-0.tmp", std::process::id()));
    symlink(&target, &temporary).unwrap();
    full().write(&link).unwrap();
    assert_eq!(fs::read_to_string(&target).unwrap(), "mine");
    assert!(!fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(Snapshot::read(&link).unwrap(), full());
    assert!(fs::symlink_metadata(&temporary).unwrap().is_symlink(), "it is someone else's");
}

#[test]
fn gives_up_on_names_that_are_all_taken() {
    let folder = Folder::new("taken");
    for attempt in 0..64 {
        fs::write(folder.0.join(format!(".scx-snapshot.{}-{attempt}.tmp", std::process::id())), "").unwrap();
    }
    let error = tiny().write(folder.0.join("s")).unwrap_err();
    assert!(matches!(error, SnapshotError::Io { .. }), "{error}");
    assert_eq!(folder.names().len(), 64);
}

#[test]
fn reads_plain_files_only() {
    let folder = Folder::new("plain");
    assert!(matches!(Snapshot::read(&folder.0), Err(SnapshotError::NotAFile { .. })));
    assert!(matches!(Snapshot::read("/dev/zero"), Err(SnapshotError::NotAFile { .. })));
    let pipe = folder.0.join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert!(matches!(Snapshot::read(&pipe), Err(SnapshotError::NotAFile { .. })));
    let error = Snapshot::read(folder.0.join("none")).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("open the snapshot") && text.contains("none"), "{text}");
}

#[test]
fn reads_no_more_than_a_snapshot_can_have() {
    let folder = Folder::new("large");
    let path = folder.0.join("large");
    // Sparse: it takes no room.
    File::create(&path).unwrap().set_len(MAX_FILE as u64 + 1).unwrap();
    let error = Snapshot::read(&path).unwrap_err();
    assert!(matches!(error, SnapshotError::Limit { what: "bytes", .. }), "{error}");
    fs::write(&path, "text").unwrap();
    assert!(matches!(Snapshot::read(&path), Err(SnapshotError::NotSnapshot)));
}

#[test]
fn a_bare_name_is_in_the_working_folder() {
    // The folder of a bare name is `.`; its parent as a path is empty. The working folder is the crate's.
    let name = format!("target-snapshot-{}.tmp", std::process::id());
    tiny().write(&name).unwrap();
    let read = Snapshot::read(Path::new(&name));
    fs::remove_file(&name).unwrap();
    assert_eq!(read.unwrap(), tiny());
}
