//! Which clang compiles the BPF half: the user's BPF_CLANG, else the newest one in PATH. The search itself is the script
//! `newest-clang`, because cargo hands BPF_CLANG to build scripts that are not this project's too.

use std::env;
use std::process::Command;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;

/// The script that runs the newest clang.
const NEWEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/newest-clang");

/// Set `BPF_CLANG`, which scx_cargo reads, unless it is set.
pub(crate) fn choose() -> Result<()> {
    println!("cargo:rerun-if-env-changed=BPF_CLANG");
    if env::var_os("BPF_CLANG").is_none() {
        // SAFETY: a build script has no other thread at this point that could read the environment.
        unsafe { env::set_var("BPF_CLANG", NEWEST) };
    }
    if env::var_os("BPF_CLANG").is_some_and(|clang| clang == NEWEST) {
        check()?;
    }
    Ok(())
}

/// Say why where there is no clang: scx_cargo would say only that its output cannot be read.
fn check() -> Result<()> {
    let found = Command::new(NEWEST).arg("--version").output().context("cannot look for a clang")?;
    if !found.status.success() {
        bail!("{}", String::from_utf8_lossy(&found.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::path::PathBuf;
    use std::process::Command;

    use super::NEWEST;

    /// A folder with clangs that say a version and where they are.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str, clangs: &[(&str, &str)]) -> Folder {
            let path = std::env::temp_dir().join(format!("newest-clang-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            for (clang, says) in clangs {
                let file = path.join(clang);
                let text = format!("#!/bin/sh\necho \"{says}\"\necho \"{name}/{clang} got $*\"\n");
                fs::write(&file, text).unwrap();
                fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
            }
            Folder(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// What the newest clang in these folders says with `-c x`, or what the search says where there is none.
    fn newest(folders: &[&Folder]) -> Result<String, String> {
        // sed, without the machine's clangs.
        let tools = Folder::new("tools", &[]);
        let sed = ["/usr/bin/sed", "/bin/sed"].into_iter().find(|sed| Path::new(sed).exists()).unwrap();
        std::os::unix::fs::symlink(sed, tools.0.join("sed")).ok();
        let all = folders.iter().map(|folder| &folder.0).chain([&tools.0]);
        let run = Command::new("/bin/sh")
            .args([NEWEST, "-c", "x y"])
            .env("PATH", std::env::join_paths(all).unwrap())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match run.status.success() {
            true => Ok(text(&run.stdout).lines().nth(1).unwrap().to_owned()),
            false => Err(text(&run.stderr)),
        }
    }

    // One test: a file that is written cannot be run, and a fork of another test may keep it open.
    #[test]
    fn the_newest_clang_is_taken() {
        let old = ("clang", "Debian clang version 14.0.6");
        let debian = Folder::new("debian", &[old, ("clang-19", "Debian clang version 19.1.7 (3~deb12u1)")]);
        assert_eq!(newest(&[&debian]).unwrap(), "debian/clang-19 got -c x y");
        // One without a number in its name may be newer, wherever it stands.
        let own =
            Folder::new("own", &[("clang", "clang version 22.1.0"), ("clang-9", "clang version 9.0.1")]);
        assert_eq!(newest(&[&debian, &own]).unwrap(), "own/clang got -c x y");
        assert_eq!(newest(&[&own, &debian]).unwrap(), "own/clang got -c x y");
        // Of two of one version the first in PATH.
        let ubuntu = Folder::new("ubuntu", &[("clang", "Ubuntu clang version 19.1.1 (1ubuntu1)")]);
        assert_eq!(newest(&[&ubuntu, &debian]).unwrap(), "ubuntu/clang got -c x y");
        assert_eq!(newest(&[&debian, &ubuntu]).unwrap(), "debian/clang-19 got -c x y");

        // What is no clang, or too old.
        let others = [
            ("clang", "Debian clang version 14.0.6"),
            ("clang-17", "clang version 17.0.6"),
            ("clang-20-wrapper", "clang version 20.1.0"),
            ("clang-cpp-21", "clang version 21.1.0"),
            ("clang-22", "gcc (Debian 12.2.0)"),
            ("clang-23", ""),
        ];
        let folder = Folder::new("others", &others);
        let says = newest(&[&folder]).unwrap_err();
        assert!(says.contains("no clang of version 18 or newer") && says.contains("BPF_CLANG"), "{says}");
        let good = Folder::new("good", &[("clang-18", "clang version 18.1.3")]);
        assert_eq!(newest(&[&folder, &good]).unwrap(), "good/clang-18 got -c x y");
    }

    /// The workspace's own configuration names the same search, and does not overrule the user.
    #[test]
    fn the_workspace_has_no_search_of_its_own() {
        let config = include_str!("../../../.cargo/config.toml");
        let line = config.lines().find(|line| line.starts_with("BPF_CLANG")).unwrap();
        assert_eq!(line, r#"BPF_CLANG = { value = "sdk/build/newest-clang", relative = true }"#);
        assert!(Path::new(NEWEST).ends_with("sdk/build/newest-clang"));
    }
}
