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
    /// Each line of the unit's sandbox is known not to forbid what commands need. One that is not here was not looked at.
    #[test]
    fn the_services_sandbox_lets_commands_work() {
        const HARMLESS: [(&str, &str); 16] = [
            ("NoNewPrivileges", "nothing that is started has set-user-ID or file capabilities"),
            (
                "ProtectSystem=full",
                "/usr, /boot and /etc are read; /run, /var/lib and /sys/fs/bpf stay writable",
            ),
            ("ProtectHome=read-only", "policies are read and executed there, and nothing is written"),
            ("ProtectHostname", "the name of the machine is not changed"),
            ("ProtectClock", "clocks are read; takes CAP_SYS_TIME and CAP_WAKE_ALARM only"),
            ("ProtectKernelModules", "no module is loaded; BTF of modules is in /sys/kernel/btf"),
            (
                "RestrictAddressFamilies=AF_UNIX AF_NETLINK",
                "systemd-run talks to systemd by AF_UNIX, libbpf to the kernel by AF_NETLINK",
            ),
            ("RestrictNamespaces", "none is made or entered"),
            ("RestrictSUIDSGID", "no such file is made"),
            ("LockPersonality", "it is not changed"),
            ("SystemCallArchitectures=native", "there are no others"),
            ("LimitMEMLOCK=infinity", "a permission"),
            ("KillMode=process", "policies' processes run on"),
            ("CapabilityBoundingSet", "checked below"),
            ("Restart", "no sandbox"),
            ("ExecStart", "no sandbox"),
        ];
        // sched_setscheduler(), bpf(), reading kallsyms for BTF, other users' files, another process's links in /proc.
        const NEEDED: [&str; 7] = [
            "CAP_SYS_ADMIN",
            "CAP_BPF",
            "CAP_PERFMON",
            "CAP_SYS_NICE",
            "CAP_SYS_RESOURCE",
            "CAP_DAC_OVERRIDE",
            "CAP_SYS_PTRACE",
        ];
        let unit = include_str!("../../../packaging/systemd/scx-upgrade-recover.service");
        let service = unit.split_once("[Service]").unwrap().1.split_once("[Install]").unwrap().0;
        for line in service.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let known = HARMLESS.iter().any(|(known, _)| line.starts_with(known));
            assert!(known || line == "Type=exec", "does it forbid anything that a command needs? {line}");
        }
        let capabilities = service.lines().find_map(|l| l.strip_prefix("CapabilityBoundingSet=")).unwrap();
        let capabilities: Vec<_> = capabilities.split(' ').collect();
        assert!(NEEDED.iter().all(|needed| capabilities.contains(needed)), "{capabilities:?}");
    }
}
