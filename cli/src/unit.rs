//! Where systemd runs, a policy's process is a unit of its own: it is not part of the session that a terminal belongs to, it is
//! seen by `systemctl`, and what it uses is accounted to it.
//!
//! A scope, and not a service: its process is started by this one, with the descriptors that it is to have, and systemd-run
//! becomes it once systemd has made the unit. So it is the bytes that were verified that run, not what is at the path by then.

use std::ffi::OsString;
use std::path::Path;

/// There where systemd is the init: sd_booted(3).
const BOOTED: &str = "/run/systemd/system";
/// By its path: what PATH says is not asked.
const SYSTEMD_RUN: [&str; 2] = ["/usr/bin/systemd-run", "/bin/systemd-run"];

/// `systemd-run`, where a unit can be had.
pub fn systemd_run() -> Option<&'static Path> {
    let booted = Path::new(BOOTED).is_dir();
    SYSTEMD_RUN.iter().map(Path::new).find(|path| booted && path.exists())
}

/// What it is to be told, up to the program that it becomes. `now`: a number that no other unit's name has.
pub fn arguments(policy: &Path, now: u64) -> Vec<OsString> {
    let name = policy.file_name().unwrap_or_default();
    // What a unit's name may have: systemd.unit(5).
    let plain = |c: char| if c.is_ascii_alphanumeric() || "_.-".contains(c) { c } else { '_' };
    let plain: String = name.to_string_lossy().chars().take(64).map(plain).collect();
    let mut description = OsString::from("Process of the sched_ext policy ");
    description.push(name);
    let mut all: Vec<OsString> =
        ["--quiet", "--scope", "--collect", "--slice=system.slice"].map(OsString::from).into();
    all.push(format!("--unit=scx-policy-{plain}-{now}").into());
    all.extend(["--description".into(), description, "--".into()]);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_systemd_takes() {
        let all = arguments(Path::new("/opt/a b/schéd%x@1"), 7);
        assert!(all.contains(&"--unit=scx-policy-sch_d_x_1-7".into()), "{all:?}");
        assert_eq!(all.last().unwrap(), "--");
    }
}
