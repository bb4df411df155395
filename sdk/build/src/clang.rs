//! Which clang compiles the BPF half. Debian 12's plain `clang` is 14, older than the scx headers take, while
//! `clang-19` stands beside it, so look for a good one unless the user named one.

use std::env;
use std::process::Command;

use anyhow::Result;
use anyhow::bail;

/// What scx_cargo asks for: `-mcpu=v4`.
const OLDEST: u32 = 18;
const NEWEST: u32 = 30;

/// Set `BPF_CLANG`, which scx_cargo reads, to the first clang that will do, unless it is set.
pub(crate) fn choose() -> Result<()> {
    println!("cargo:rerun-if-env-changed=BPF_CLANG");
    if env::var_os("BPF_CLANG").is_some() {
        return Ok(());
    }
    let versioned = (OLDEST..=NEWEST).rev().map(|v| format!("clang-{v}"));
    for candidate in std::iter::once("clang".to_string()).chain(versioned) {
        if major(&candidate).is_some_and(|v| v >= OLDEST) {
            // SAFETY: a build script has no other thread at this point that could read the environment.
            unsafe { env::set_var("BPF_CLANG", candidate) };
            return Ok(());
        }
    }
    bail!("no clang of version {OLDEST} or newer in PATH: install clang-19 or set BPF_CLANG");
}

fn major(clang: &str) -> Option<u32> {
    let out = Command::new(clang).arg("--version").output().ok()?;
    parse_major(&String::from_utf8_lossy(&out.stdout))
}

fn parse_major(text: &str) -> Option<u32> {
    let rest = text.split_once("version ")?.1;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::parse_major;

    #[test]
    fn reads_the_major_version() {
        assert_eq!(parse_major("Debian clang version 19.1.7 (3~deb12u1)\n"), Some(19));
        assert_eq!(parse_major("Ubuntu clang version 18.1.3"), Some(18));
        assert_eq!(parse_major("gcc (Debian)"), None);
    }
}
