//! No file names the host of a package archive or registry: a build takes packages from where the machine's own
//! package managers do, which may be a mirror.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::Path;

use book::root;

/// The hosts, in pieces, so that this file does not name them.
const HOSTS: [[&str; 2]; 7] = [
    ["debian", "org"],
    ["ubuntu", "com"],
    ["crates", "io"],
    ["npmjs", "org"],
    ["pypi", "org"],
    ["pythonhosted", "org"],
    ["fedoraproject", "org"],
];

/// What is made, and what a package manager writes.
const LEFT_OUT: [&str; 4] = [".git", "target", "Cargo.lock", "node_modules"];

fn look(folder: &Path, named: &mut Vec<String>, read: &mut usize) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if LEFT_OUT.iter().any(|out| name == *out) {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            look(&path, named, read);
            continue;
        }
        // Pictures and the like name nobody.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        *read += 1;
        let hosts = HOSTS.map(|parts| parts.join("."));
        for (number, line) in text.lines().enumerate() {
            if hosts.iter().any(|host| line.contains(host.as_str())) {
                named.push(format!("{}:{}", path.strip_prefix(root()).unwrap().display(), number + 1));
            }
        }
    }
}

#[test]
fn no_package_archive_or_registry_is_named() {
    let (mut named, mut read) = (Vec::new(), 0);
    look(&root(), &mut named, &mut read);
    assert!(read > 300, "only {read} files were read");
    assert!(named.is_empty(), "these name a host, say `as published` instead:\n{}", named.join("\n"));
}
