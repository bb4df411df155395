//! What of the machine decides whether a scheduler can be attached, or will work: boot options, namespaces, cgroups and memory.
//! Each fact is read from a tree of files, `/` but in tests, at the moment when it is asked for.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use libbpf_rs::Object;
use plain::Plain;

use crate::error::Error;
use crate::error::Result;
use crate::kernel::bpf;
use crate::kernel::object;

const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/machine.bpf.o"));
const READ_CPU: &str = "machine_read_cpu";
/// `MACHINE_*` of `machine.bpf.c`.
const SERVERS: u32 = 1;
const FAIR_ATTACHED: u32 = 2;
const EXT_ATTACHED: u32 = 4;
const CORE_SCHED: u32 = 8;

/// What the kernel keeps for one CPU and shows in no file. Bandwidths are in `1 / 2^20` of a CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cpu {
    /// Its number.
    pub cpu: u32,
    /// Does this kernel reserve deadline bandwidth when a scheduler is attached?
    pub reserves: bool,
    /// Is the fair server's bandwidth reserved?
    pub fair_attached: bool,
    /// Is the bandwidth of the server of sched_ext reserved?
    pub ext_attached: bool,
    /// Has some task a core scheduling cookie?
    pub core_scheduling: bool,
    /// Tells one root domain from another.
    pub domain: u64,
    /// What each CPU of the domain may reserve; all ones: no limit.
    pub limit: u64,
    /// What is reserved in the whole domain.
    pub total: u64,
    /// The fair server's bandwidth.
    pub fair: u64,
    /// That of the server of sched_ext.
    pub ext: u64,
}

/// `struct machine_cpu`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct RawCpu {
    cpu: u32,
    flags: u32,
    domain: u64,
    limit: u64,
    total: u64,
    fair: u64,
    ext: u64,
}

// SAFETY: repr(C), no padding, any bit pattern is a value.
unsafe impl Plain for RawCpu {}

impl RawCpu {
    fn cooked(&self) -> Cpu {
        let has = |flag| self.flags & flag != 0;
        Cpu {
            cpu: self.cpu,
            reserves: has(SERVERS),
            fair_attached: has(FAIR_ATTACHED),
            ext_attached: has(EXT_ATTACHED),
            core_scheduling: has(CORE_SCHED),
            domain: self.domain,
            limit: self.limit,
            total: self.total,
            fair: self.fair,
            ext: self.ext,
        }
    }
}

/// The CPUs that are online, from the kernel's own run queues.
///
/// # Errors
/// The kernel does not take the program that reads them: see [`crate::host::requirements::check_rights`], or a lockdown.
pub fn cpus() -> Result<Vec<Cpu>> {
    let object: Object = object::load(object::open_tool(OBJECT)?, "a tool")?;
    let program = object.progs().find(|p| p.name() == READ_CPU);
    let program = program.ok_or_else(|| Error::BadBuild { name: READ_CPU.to_string() })?;
    let mut cpus = Vec::new();
    for cpu in Tree::default().online() {
        let mut args = RawCpu { cpu, ..RawCpu::default() };
        // One that has gone offline meanwhile is still possible: only a number that never was is an error.
        if bpf::run(&program, READ_CPU, &mut args)? == 0 {
            cpus.push(args.cooked());
        }
    }
    Ok(cpus)
}

/// A list of CPUs, as the kernel writes it: `0-3,8`.
pub(crate) fn cpu_list(cpus: impl Iterator<Item = u32>) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for cpu in cpus {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => ranges.push((cpu, cpu)),
        }
    }
    let text = ranges.iter().map(|(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") });
    text.collect::<Vec<_>>().join(",")
}

/// The CPUs of such a list.
fn parse_cpu_list(text: &str) -> Vec<u32> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse::<u32>().ok()?..=last.trim().parse::<u32>().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

/// The files that facts are read from.
#[derive(Debug, Clone)]
pub struct Tree(PathBuf);

impl Default for Tree {
    fn default() -> Self {
        Tree(PathBuf::from("/"))
    }
}

/// A namespace of this process that is not the machine's first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// `cgroup`, `pid`, `mnt` or `user`.
    pub name: &'static str,
    /// What it hides from a command.
    pub hides: &'static str,
}

/// The first namespaces of a machine: `enum init_ns_ino`, Linux v7.3 include/uapi/linux/nsfs.h. That of mounts has no fixed number.
const FIRST: [(&str, u32, &str); 3] = [
    ("cgroup", 0xEFFF_FFFB, "cgroups above its root are not swept"),
    ("pid", 0xEFFF_FFFC, "processes are named by numbers of its own"),
    ("user", 0xEFFF_FFFD, "its root is not the machine's"),
];

/// The cgroup that pays for the records of tasks, and what it has left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// The cgroup with the least left.
    pub cgroup: String,
    /// Its limit, bytes.
    pub limit: u64,
    /// What is left of that.
    pub left: u64,
}

/// What one task takes of kernel memory besides its record: the storage element's header, the task's list of storages,
/// and what the allocator rounds up. Twice what v7.3 takes on x86-64.
const OVERHEAD: u64 = 256;

/// What the records of so many tasks take, bytes.
pub fn memory_for(tasks: u32, record: u64) -> u64 {
    u64::from(tasks) * (record + OVERHEAD)
}

impl Tree {
    /// A tree that is somewhere else.
    pub fn at(root: impl Into<PathBuf>) -> Tree {
        Tree(root.into())
    }

    pub(crate) fn root(&self) -> &Path {
        &self.0
    }

    fn read(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.0.join(file)).ok()
    }

    fn online(&self) -> Vec<u32> {
        self.read("sys/devices/system/cpu/online").map(|text| parse_cpu_list(&text)).unwrap_or_default()
    }

    /// The boot option that takes CPUs out of all scheduling domains, if there is one, and those CPUs.
    ///
    /// The kernel asks for what the boot took out (`HK_TYPE_DOMAIN_BOOT`). CPUs that a cpuset isolates later do not count, and
    /// neither do `nohz_full=` and an `isolcpus=` with other flags only.
    pub fn isolated(&self) -> Option<(String, String)> {
        let line = self.read("proc/cmdline")?;
        let options = line.split_whitespace().filter_map(|word| word.strip_prefix("isolcpus="));
        let option = options.rev().find(|value| isolates_domains(value))?;
        // A list that names no CPU of the machine is ignored, and this says so.
        let cpus = self.read("sys/devices/system/cpu/isolated").unwrap_or_else(|| "?".to_string());
        let cpus = cpus.trim();
        (!cpus.is_empty()).then(|| (format!("isolcpus={option}"), cpus.to_string()))
    }

    /// Namespaces of this process that are not the machine's first. Where /proc does not tell, none.
    pub fn namespaces(&self) -> Vec<Namespace> {
        let own = |name: &str| fs::read_link(self.0.join("proc/self/ns").join(name)).ok();
        let mut other = Vec::new();
        for (name, first, hides) in FIRST {
            let is_first = own(name).is_none_or(|link| link.to_string_lossy() == format!("{name}:[{first}]"));
            if !is_first {
                other.push(Namespace { name, hides });
            }
        }
        // Of mounts, that of the first process is the first; in another PID namespace that process is another.
        let first = fs::read_link(self.0.join("proc/1/ns/mnt")).ok();
        let own_mounts = own("mnt");
        if own_mounts.is_some() && first.is_some() && first != own_mounts {
            other.push(Namespace {
                name: "mnt",
                hides: "a mount over /sys/fs/bpf hides pins from the others",
            });
        }
        other
    }

    /// The memory that is left to this process's cgroup for what BPF allocates. The kernel charges that to the cgroup of the
    /// process that made the map, also where a fork allocates it (`bpf_map_save_memcg()`). `None`: no limit applies.
    pub fn memory(&self) -> Option<Memory> {
        if self.read("proc/cmdline").is_some_and(|line| does_not_charge(&line)) {
            return None;
        }
        let own = self.read("proc/self/cgroup")?;
        let mut least: Option<Memory> = None;
        for line in own.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
            // One line of v2, and one of v1 for the memory controller.
            let (mount, limit, used) = match controllers {
                "" => ("sys/fs/cgroup", "memory.max", "memory.current"),
                "memory" => ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
                _ => continue,
            };
            let number = |path: &Path, file: &str| {
                let text = fs::read_to_string(self.0.join(mount).join(path).join(file)).ok()?;
                text.trim().parse::<u64>().ok()
            };
            for path in Path::new(path.trim_start_matches('/')).ancestors() {
                let (Some(limit), Some(used)) = (number(path, limit), number(path, used)) else { continue };
                let left = limit.saturating_sub(used);
                // What v1 calls no limit: the largest multiple of a page.
                if limit < i64::MAX as u64 - (1 << 20) && least.as_ref().is_none_or(|m| left < m.left) {
                    least = Some(Memory { cgroup: format!("/{}", path.display()), limit, left });
                }
            }
        }
        least
    }

    /// Is the cpu controller on a hierarchy of cgroup v1?
    pub fn has_cpu_on_cgroup_v1(&self) -> bool {
        let Some(mounts) = self.read("proc/self/mounts") else { return false };
        mounts.lines().any(|line| {
            let mut fields = line.split(' ').skip(2);
            fields.next() == Some("cgroup") && fields.next().is_some_and(|o| o.split(',').any(|o| o == "cpu"))
        })
    }
}

/// As `housekeeping_isolcpus_setup()`, kernel/sched/isolation.c: flags before the list, and `domain` where there is none.
fn isolates_domains(value: &str) -> bool {
    let flags = value.split(',').take_while(|word| word.starts_with(|c: char| c.is_ascii_alphabetic()));
    let known: Vec<&str> = flags.filter(|f| ["nohz", "domain", "managed_irq"].contains(f)).collect();
    known.is_empty() || known.contains(&"domain")
}

/// Is BPF's memory charged to no cgroup on a kernel with this command line?
fn does_not_charge(line: &str) -> bool {
    let options = line.split_whitespace().filter_map(|word| word.strip_prefix("cgroup.memory="));
    options.flat_map(|value| value.split(',')).any(|flag| flag == "nobpf" || flag == "nokmem")
}

/// Has the cgroup that pays for the records room for those of all tasks that there can be?
///
/// # Errors
/// [`Error::LittleMemory`]: a fork anywhere on the machine fails when it has none left.
pub fn check_memory(memory: Option<&Memory>, tasks: u32, record: u64) -> Result<()> {
    let needs = memory_for(tasks, record);
    match memory {
        Some(memory) if memory.left < needs => Err(Error::LittleMemory {
            cgroup: memory.cgroup.clone(),
            left_mib: memory.left >> 20,
            needs_mib: needs.div_ceil(1 << 20),
            tasks,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::Ordering;

    use super::*;

    /// A tree of these files, gone when dropped.
    struct Fake(PathBuf);

    impl Fake {
        fn new(files: &[(&str, &str)]) -> Fake {
            static NUMBER: AtomicU32 = AtomicU32::new(0);
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let root = std::env::temp_dir().join(format!("scx-machine-{}-{number}", std::process::id()));
            for (file, text) in files {
                let file = root.join(file);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                match text.strip_prefix("-> ") {
                    Some(target) => symlink(target, file).unwrap(),
                    None => fs::write(file, text).unwrap(),
                }
            }
            Fake(root)
        }

        fn tree(&self) -> Tree {
            Tree::at(&self.0)
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn isolated_domains_are_found_as_the_kernel_takes_its_options() {
        let isolated = |options: &str, cpus: &str| {
            let line = format!("BOOT_IMAGE=/vmlinuz quiet {options} panic=-1\n");
            let files = [("proc/cmdline", line.as_str()), ("sys/devices/system/cpu/isolated", cpus)];
            Fake::new(&files).tree().isolated()
        };
        let found = |option: &str, cpus: &str| Some((option.to_string(), cpus.to_string()));
        assert_eq!(isolated("isolcpus=1", "1\n"), found("isolcpus=1", "1"));
        assert_eq!(isolated("isolcpus=domain,2-3", "2-3\n"), found("isolcpus=domain,2-3", "2-3"));
        assert_eq!(
            isolated("isolcpus=managed_irq,domain,1", "1\n"),
            found("isolcpus=managed_irq,domain,1", "1")
        );
        // Other flags only, or no isolcpus: the domains are whole.
        assert_eq!(isolated("isolcpus=nohz,1", "\n"), None);
        assert_eq!(isolated("isolcpus=managed_irq,1", "\n"), None);
        assert_eq!(isolated("nohz_full=1 rcu_nocbs=1", "\n"), None);
        // What a cpuset isolates later does not count.
        assert_eq!(isolated("nohz_full=1", "1\n"), None);
        // The kernel ignored a list of no CPU that it has.
        assert_eq!(isolated("isolcpus=99", "\n"), None);
        // Where the file is missing, the option alone.
        let line = Fake::new(&[("proc/cmdline", "isolcpus=1")]);
        assert_eq!(line.tree().isolated(), found("isolcpus=1", "?"));
    }

    #[test]
    fn namespaces_that_are_not_the_first_are_named() {
        let first = [
            ("proc/self/ns/cgroup", "-> cgroup:[4026531835]"),
            ("proc/self/ns/pid", "-> pid:[4026531836]"),
            ("proc/self/ns/user", "-> user:[4026531837]"),
            ("proc/self/ns/mnt", "-> mnt:[4026531841]"),
            ("proc/1/ns/mnt", "-> mnt:[4026531841]"),
        ];
        assert_eq!(Fake::new(&first).tree().namespaces(), []);
        let names = |files: &[(&str, &str)]| {
            Fake::new(files).tree().namespaces().iter().map(|n| n.name).collect::<Vec<_>>()
        };
        for (at, name) in ["cgroup", "pid", "user", "mnt"].into_iter().enumerate() {
            let other = format!("-> {name}:[4026532999]");
            let mut files = first;
            files[at].1 = &other;
            assert_eq!(names(&files), [name]);
        }
        assert!(names(&[]).is_empty(), "without /proc nothing is known");
    }

    #[test]
    fn the_cgroup_with_the_least_left_is_the_one_that_counts() {
        let cgroup = "sys/fs/cgroup/system.slice/a.service";
        let file = |name: &str| format!("{cgroup}/{name}");
        let (max, current) = (file("memory.max"), file("memory.current"));
        let mut files = vec![
            ("proc/cmdline", "quiet"),
            ("proc/self/cgroup", "0::/system.slice/a.service\n"),
            (&max, "max\n"),
            (&current, "1000\n"),
            ("sys/fs/cgroup/system.slice/memory.max", "max\n"),
            ("sys/fs/cgroup/system.slice/memory.current", "50000000\n"),
        ];
        assert_eq!(Fake::new(&files).tree().memory(), None);
        files[2].1 = "104857600\n";
        let own = Fake::new(&files).tree().memory().unwrap();
        assert_eq!((own.cgroup.as_str(), own.left), ("/system.slice/a.service", 104_857_600 - 1000));
        // That above it has less.
        files[4].1 = "60000000\n";
        let above = Fake::new(&files).tree().memory().unwrap();
        assert_eq!((above.cgroup.as_str(), above.left), ("/system.slice", 10_000_000));
        // Where BPF's memory is charged to nobody, no limit counts.
        files[0].1 = "cgroup.memory=nosocket,nobpf";
        assert_eq!(Fake::new(&files).tree().memory(), None);
        let v1 = [
            ("proc/self/cgroup", "5:memory:/a\n4:cpu,cpuacct:/\n"),
            ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "2000\n"),
            ("sys/fs/cgroup/memory/a/memory.usage_in_bytes", "500\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "500\n"),
        ];
        assert_eq!(Fake::new(&v1).tree().memory().map(|m| m.left), Some(1500));
    }

    #[test]
    fn too_little_memory_for_all_tasks_is_refused_with_the_numbers() {
        let memory = |left| Memory { cgroup: "/small".to_string(), limit: 1 << 30, left };
        let needs = memory_for(10_000, 512);
        assert!(check_memory(None, 10_000, 512).is_ok());
        assert!(check_memory(Some(&memory(needs)), 10_000, 512).is_ok());
        let error = check_memory(Some(&memory(needs - 1)), 10_000, 512).unwrap_err().to_string();
        assert!(error.contains("/small") && error.contains("10000 tasks"), "{error}");
    }

    #[test]
    fn the_cpu_controller_of_cgroup_v1_is_seen() {
        let v2 = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\nproc /proc proc rw 0 0\n";
        let named = "cgroup /sys/fs/cgroup/systemd cgroup rw,name=systemd 0 0\n";
        let cpu = "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n";
        let has = |text: &str| Fake::new(&[("proc/self/mounts", text)]).tree().has_cpu_on_cgroup_v1();
        assert!(!has(v2) && !has(named) && !has("cgroup /c cgroup rw,cpuset 0 0\n"));
        assert!(has(&format!("{v2}{named}{cpu}")));
    }

    #[test]
    fn lists_of_cpus_are_read_and_written_as_the_kernel_does() {
        for text in ["0", "0-3", "0-1,4,6-7"] {
            assert_eq!(cpu_list(parse_cpu_list(&format!("{text}\n")).into_iter()), text);
        }
        assert!(parse_cpu_list("\n").is_empty());
    }
}
