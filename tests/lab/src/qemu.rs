//! The emulator: which one there is, how it is called, and that it never outlives us.

use std::{
    fs::File,
    io,
    os::unix::process::{CommandExt, parent_id},
    path::Path,
    process::{self, Child, Command, Stdio},
};

use crate::{
    protocol::{OUTPUT_PORT, RESULT_PORT},
    vm::Vm,
};

/// The program that is run.
pub(crate) const PROGRAM: &str = "qemu-system-x86_64";
/// The oldest major version that works: 7.2 with threads makes kernels oops when they patch their own code.
pub(crate) const OLDEST: u32 = 10;

/// The major version in what `qemu-system-x86_64 --version` prints.
pub(crate) fn major_version(text: &str) -> Option<u32> {
    text.split("version ").nth(1)?.split('.').next()?.trim().parse().ok()
}

/// The installed QEMU's major version, or `None` when there is none that runs.
pub(crate) fn installed() -> Option<u32> {
    let run = Command::new(PROGRAM).arg("--version").stdin(Stdio::null()).output().ok()?;
    major_version(&String::from_utf8_lossy(&run.stdout))
}

/// Files of a run that QEMU is told about.
pub(crate) struct Files<'a> {
    pub initrd: &'a Path,
    pub console: &'a Path,
    pub result: &'a Path,
    pub complaints: &'a Path,
}

/// QEMU's arguments.
pub(crate) fn arguments(vm: &Vm, files: &Files<'_>) -> Vec<String> {
    let mut list: Vec<String> = Vec::new();
    let mut add = |name: &str, value: &str| list.extend([name.to_owned(), value.to_owned()]);

    if let Some(shift) = vm.icount {
        add("-accel", "tcg,thread=single");
        add("-icount", &format!("shift={shift},sleep=off"));
        // What the guest takes for random and for the time of day is the same in each run.
        add("-seed", "1");
        add("-rtc", "base=2026-01-01,clock=vm");
        add("-cpu", "max");
        add("-smp", &vm.cpus.to_string());
    } else {
        add("-accel", if vm.kvm { "kvm" } else { "tcg,thread=multi" });
        // SMT shows only on a processor of a vendor whose way to tell the emulator knows.
        let software = if vm.threads > 1 { "max,vendor=GenuineIntel" } else { "max" };
        add("-cpu", if vm.kvm { "host" } else { software });
        if vm.threads > 1 {
            let cores = vm.cpus / vm.threads;
            add("-smp", &format!("{},sockets=1,cores={cores},threads={}", vm.cpus, vm.threads));
        } else {
            add("-smp", &vm.cpus.to_string());
        }
    }
    add("-m", &vm.memory);
    add("-kernel", &vm.kernel.image.to_string_lossy());
    add("-initrd", &files.initrd.to_string_lossy());
    // Level 5 shows warnings, which `quiet` hides. An oops stops the guest at once, and a panic makes it reboot,
    // which -no-reboot turns into QEMU's end: no need to wait for the time limit. The kernel's tests of its ciphers would
    // have the CPUs for the first seconds, in stretches of tens of milliseconds.
    let append = format!("console=ttyS0 loglevel=5 panic=-1 oops=panic cryptomgr.notests {}", vm.append);
    add("-append", append.trim_end());
    add("-display", "none");
    add("-monitor", "none");
    add("-serial", &format!("file:{}", comma(files.console)));
    // Files, not sockets: a socket needs a reader at the right time, and a closed one blocks the guest's writer.
    add("-device", "virtio-serial-pci");
    add("-chardev", "file,id=output,path=/dev/stdout");
    add("-device", &format!("virtserialport,chardev=output,name={OUTPUT_PORT}"));
    add("-chardev", &format!("file,id=result,path={}", comma(files.result)));
    add("-device", &format!("virtserialport,chardev=result,name={RESULT_PORT}"));
    list.extend(["-nodefaults", "-no-user-config", "-no-reboot"].map(str::to_owned));
    list
}

/// A path inside an option with commas has to have its own doubled.
fn comma(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

/// Starts QEMU with its standard output as a pipe, such that the kernel kills it when the calling *thread* ends, for
/// whatever reason: no guest stays behind when the lab is interrupted.
pub(crate) fn start(vm: &Vm, files: &Files<'_>) -> io::Result<Child> {
    let mut command = Command::new(PROGRAM);
    command
        .args(arguments(vm, files))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(files.complaints)?);
    let parent = process::id();
    let die_with_parent = move || {
        // SAFETY: prctl with these arguments reads and writes no memory of ours.
        if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // It may have died before the call above.
        if parent_id() != parent {
            return Err(io::Error::from_raw_os_error(libc::ECANCELED));
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes two system calls and allocates nothing.
    unsafe { command.pre_exec(die_with_parent) };
    command.spawn()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Kernel;

    fn line(change: impl FnOnce(&mut Vm)) -> String {
        let kernel = Kernel { version: "7.0.13".to_owned(), image: "/k/vmlinuz".into() };
        let mut vm = Vm::new(kernel, "/init");
        vm.kvm = false;
        change(&mut vm);
        let path = Path::new;
        let files =
            Files { initrd: path("/i"), console: path("/c,d"), result: path("/r"), complaints: path("/q") };
        arguments(&vm, &files).join(" ")
    }

    #[test]
    fn software_unless_told_otherwise() {
        let text = line(|_| ());
        assert!(
            text.contains("-accel tcg,thread=multi -cpu max -smp 2 -m 4G -kernel /k/vmlinuz -initrd /i"),
            "{text}"
        );
        assert!(text.contains("-serial file:/c,,d"), "{text}");
        assert!(line(|vm| vm.kvm = true).contains("-accel kvm -cpu host"));
    }

    #[test]
    fn counting_instructions_takes_one_thread() {
        let text = line(|vm| {
            vm.icount = Some(0);
            vm.cpus = 2;
        });
        let counted = "-accel tcg,thread=single -icount shift=0,sleep=off ";
        assert!(
            text.contains(counted) && text.contains(" -seed 1 ") && text.contains(" -cpu max -smp 2 "),
            "{text}"
        );
    }

    #[test]
    fn siblings_of_a_core() {
        let text = line(|vm| {
            vm.cpus = 4;
            vm.threads = 2;
        });
        assert!(text.contains(" -cpu max,vendor=GenuineIntel -smp 4,sockets=1,cores=2,threads=2 "), "{text}");
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(major_version("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright"), Some(10));
        assert_eq!(major_version("QEMU emulator version 7.2.17"), Some(7));
        assert_eq!(major_version("what"), None);
    }
}
