//! The host's shared memory, `struct scxu_host`, mapped. The control word in it is the product's one critical store.

use std::mem::align_of;
use std::mem::offset_of;
use std::mem::size_of;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::sync::atomic::fence;

use memmap2::MmapOptions;
use memmap2::MmapRaw;
use plain::Plain;

use crate::error::Result;
use crate::error::Trying;
use crate::host::abi::Active;
use crate::host::abi::DsqGroup;
use crate::host::abi::ExitRecord;
use crate::host::abi::HostData;
use crate::host::abi::MAX_CPUS;
use crate::host::abi::MAX_ORPHANS;
use crate::host::abi::MAX_QUEUES;
use crate::host::abi::NR_PLANS;
use crate::host::abi::NR_SLOTS;
use crate::host::abi::Plan;
use crate::host::abi::TaskTableState;
use crate::host::scopes::ScopeParts;
use crate::kernel::topology::Topology;

/// A writable mapping of the map behind `.data.scxu_host`. BPF programs on other CPUs read and write the same memory,
/// so nothing here ever forms a reference to it.
#[derive(Debug)]
pub struct Mapped {
    map: Arc<MmapRaw>,
}

impl Mapped {
    /// Map it.
    ///
    /// # Errors
    /// The kernel refuses the mapping.
    pub fn new(map: &impl AsFd) -> Result<Mapped> {
        let map = MmapOptions::new()
            .len(size_of::<HostData>())
            .map_raw(map.as_fd().as_raw_fd())
            .trying("cannot map the host's shared memory")?;
        Ok(Mapped { map: Arc::new(map) })
    }

    /// Where a value is: inside of the mapping, and aligned.
    fn at<T>(&self, offset: usize) -> *mut T {
        assert!(offset + size_of::<T>() <= size_of::<HostData>() && offset.is_multiple_of(align_of::<T>()));
        self.map.as_mut_ptr().wrapping_add(offset).cast()
    }

    /// Reads the value at this offset of [`HostData`]: in one piece, where the machine can.
    fn read<T: Plain>(&self, offset: usize) -> T {
        // SAFETY: `at` gives a place in the mapping, which is readable; any bytes are a value of a Plain type.
        unsafe { self.at::<T>(offset).read_volatile() }
    }

    /// Writes it, likewise.
    fn write<T: Plain>(&self, offset: usize, value: T) {
        // SAFETY: `at` gives a place in the mapping, which is writable, and nobody has a reference to it.
        unsafe { self.at::<T>(offset).write_volatile(value) }
    }

    fn atomic(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: `at` gives 8 aligned bytes, alive as long as self; who else writes these fields does so atomically too
        // (BPF loads parts of an aligned word).
        unsafe { AtomicU64::from_ptr(self.at(offset)) }
    }

    /// Writes the elements of an array, from its first on.
    fn write_all<T: Plain>(&self, offset: usize, values: impl Iterator<Item = T>) {
        values.enumerate().for_each(|(i, value)| self.write(offset + i * size_of::<T>(), value));
    }

    /// Writes a whole array of so many groups: these, and then none.
    fn write_groups<const N: usize>(&self, offset: usize, groups: &[DsqGroup]) {
        let none = std::iter::repeat(DsqGroup::default());
        self.write_all(offset, groups.iter().copied().chain(none).take(N));
    }

    fn word(&self) -> &AtomicU64 {
        self.atomic(offset_of!(HostData, active))
    }

    /// What runs.
    pub fn active(&self) -> Active {
        Active::from_word(self.word().load(Ordering::Acquire))
    }

    /// **The commit**: one aligned store. From here every op that begins runs in `active.slot`.
    pub fn commit(&self, active: Active) {
        self.word().store(active.to_word(), Ordering::SeqCst);
    }

    /// ABI of the host whose shared memory this is; 0 while it is being made. The control word, this number and
    /// `closed` keep their places in every version.
    pub(crate) fn abi_of(map: &impl AsFd) -> Result<u32> {
        Ok(Mapped::first_page(map)?.abi())
    }

    /// The beginning only, with the control word, the ABI and `closed`: the rest of another version's may have another size.
    pub(crate) fn first_page(map: &impl AsFd) -> Result<FirstPage> {
        let map = MmapOptions::new()
            .len(FIRST_PAGE)
            .map_raw(map.as_fd().as_raw_fd())
            .trying("cannot map the host's shared memory")?;
        Ok(FirstPage { map })
    }

    /// Set the ABI. Before attach.
    pub fn set_abi(&self, abi: u32) {
        self.write(offset_of!(HostData, abi), abi)
    }

    /// What the policy in `slot` lacks, see `LACKS_*`. Before it is committed.
    pub fn set_lacks(&self, slot: u8, lacks: u8) {
        let offset = offset_of!(HostData, lacks) + usize::from(slot) % NR_SLOTS;
        self.write::<u8>(offset, lacks)
    }

    /// The policy of load number `load` is the one that plans may wait for while `slot` is active.
    pub(crate) fn set_caller(&self, slot: u8, load: u64) {
        let index = usize::from(slot) % NR_SLOTS;
        let offset = offset_of!(HostData, callers) + index * size_of::<u64>();
        self.write::<u64>(offset, load)
    }

    /// What the running policy says of itself: its own reason, 0 if nothing is wrong.
    pub fn unhealthy(&self) -> u32 {
        let word = self.read::<u64>(offset_of!(HostData, unhealthy));
        if (word >> 32) as u32 == self.active().generation { word as u32 } else { 0 }
    }

    /// The machine: how many CPUs there can be, their LLCs and cores. Before attach.
    pub(crate) fn set_topology(&self, topology: &Topology) {
        let tables = [
            (offset_of!(HostData, llc_of_cpu), &topology.llc_of_cpu),
            (offset_of!(HostData, core_of_cpu), &topology.core_of_cpu),
            (offset_of!(HostData, next_sibling), &topology.next_sibling),
        ];
        for (table, values) in tables {
            self.write_all(table, values.iter().take(MAX_CPUS).copied());
        }
        self.write(offset_of!(HostData, nr_cpus), topology.nr_cpus());
        self.write(offset_of!(HostData, nr_llcs), topology.nr_llcs);
    }

    /// Is this the topology that the host was started with?
    pub(crate) fn has_topology(&self, topology: &Topology) -> bool {
        let tables = [
            (offset_of!(HostData, llc_of_cpu), &topology.llc_of_cpu),
            (offset_of!(HostData, core_of_cpu), &topology.core_of_cpu),
            (offset_of!(HostData, next_sibling), &topology.next_sibling),
        ];
        tables.iter().all(|(table, values)| {
            values
                .iter()
                .take(MAX_CPUS)
                .enumerate()
                .all(|(cpu, value)| self.read::<u16>(table + cpu * size_of::<u16>()) == *value)
        })
    }

    /// CPUs that there can be, as found when the host was started.
    pub fn nr_cpus(&self) -> u32 {
        self.read(offset_of!(HostData, nr_cpus))
    }

    /// LLCs, likewise.
    pub fn nr_llcs(&self) -> u32 {
        self.read(offset_of!(HostData, nr_llcs))
    }

    /// Members that each per-cgroup family of DSQs has now. It grows as cgroups come.
    pub fn cgroup_members(&self) -> u32 {
        self.read(offset_of!(HostData, cgroup_members))
    }

    /// Numbers that cgroups have, or had a moment ago: the others of [`Mapped::cgroup_members`] are free.
    pub fn cgroup_numbers(&self) -> u32 {
        self.read(offset_of!(HostData, cgroup_numbers))
    }

    /// Is one of the host's programs at the per-cgroup families?
    pub(crate) fn families_locked(&self) -> bool {
        self.read::<u32>(offset_of!(HostData, cgroup_lock)) != 0
    }

    /// The DSQs that the host's init creates. Before attach.
    pub(crate) fn set_boot_queues(&self, families: &[DsqGroup]) {
        self.write_groups::<MAX_QUEUES>(offset_of!(HostData, boot_queues), families);
    }

    /// All DSQs that there are, or are about to be made.
    pub(crate) fn set_queues(&self, families: &[DsqGroup]) {
        debug_assert!(families.len() <= MAX_ORPHANS, "each slot's policy has at most MAX_QUEUES");
        self.write_groups::<MAX_ORPHANS>(offset_of!(HostData, queues), families);
    }

    /// The DSQs that the policy about to be committed does not name: from now on the host itself serves them before the
    /// policy. The count goes first to zero and last to its value, so that no CPU sees a half-written list. From the
    /// commit of `to` on the host's timer hands their tasks over; without one it stops.
    pub(crate) fn set_orphans(&self, families: &[DsqGroup], to: Option<Active>) {
        debug_assert!(families.len() <= MAX_ORPHANS, "a policy has at most MAX_QUEUES");
        let families = &families[..families.len().min(MAX_ORPHANS)];
        let members = families.iter().map(|f| f.members).sum();
        self.write(offset_of!(HostData, nr_orphans), 0u32);
        fence(Ordering::SeqCst);
        // Aligned, so written as a whole.
        self.write(offset_of!(HostData, handover_to), to.map_or(0, |to| to.to_word() as u32));
        self.write_all(offset_of!(HostData, orphans), families.iter().copied());
        self.write::<u32>(offset_of!(HostData, orphan_members), members);
        self.write(offset_of!(HostData, orphans_served), 0u32);
        fence(Ordering::SeqCst);
        self.write(offset_of!(HostData, nr_orphans), families.len() as u32);
    }

    /// Tasks that the host's dispatch or its timer took from those DSQs since they were set.
    pub(crate) fn orphans_served(&self) -> u32 {
        self.read(offset_of!(HostData, orphans_served))
    }

    /// How many queues the host serves by itself, because the running policy does not name them.
    pub fn nr_orphans(&self) -> u32 {
        self.read(offset_of!(HostData, nr_orphans))
    }

    /// What a new record of a scope starts as, header left out. Before the commit of the plan that it belongs to: a
    /// record made from a half-written image has the older stamp, and gets the plan later.
    pub(crate) fn set_image(&self, scope: &ScopeParts, image: &[u8]) {
        self.write_all(scope.image, image.iter().take(scope.data).copied());
    }

    /// The plan of `epoch` for a scope. Before that epoch is committed: no record looks at it earlier.
    pub(crate) fn set_plan(&self, scope: &ScopeParts, epoch: u32, plan: &Plan) {
        let index = scope.index * NR_PLANS + epoch as usize % NR_PLANS;
        let offset = offset_of!(HostData, plans) + index * size_of::<Plan>();
        self.write::<Plan>(offset, *plan)
    }

    /// The generation that is complete; 0 if none is.
    pub fn closed(&self) -> u32 {
        self.read(offset_of!(HostData, closed))
    }

    /// Close the registry of a generation: one aligned store, as the commit is.
    pub(crate) fn close(&self, generation: u32) {
        self.write(offset_of!(HostData, closed), generation)
    }

    fn sweep(&self) -> &AtomicU64 {
        self.atomic(offset_of!(HostData, task_table) + offset_of!(TaskTableState, sweep))
    }

    /// Starts a new sweep of the task table and returns its number. Workers left from an interrupted sweep see a different number and
    /// stop.
    pub(crate) fn begin_sweep(&self) -> u32 {
        let number = ((self.sweep().load(Ordering::Relaxed) >> 32) as u32).wrapping_add(1);
        self.sweep().store(u64::from(number) << 32, Ordering::SeqCst);
        number
    }

    /// How many rows of the task table the sweep under way has seen, about.
    pub fn swept(&self) -> u32 {
        self.sweep().load(Ordering::Relaxed) as u32
    }

    /// Rows of the task table that have been given, of which some may be free again.
    pub fn rows(&self) -> u32 {
        self.read(offset_of!(HostData, task_table) + offset_of!(TaskTableState, rows))
    }

    /// Tasks that have no row of the task table, and that no op will give one.
    pub fn untracked(&self) -> u32 {
        self.read(offset_of!(HostData, task_table) + offset_of!(TaskTableState, untracked))
    }

    /// Has the kernel taken the rows back since the host was attached?
    pub(crate) fn task_table_is_void(&self) -> bool {
        self.read::<u32>(offset_of!(HostData, task_table) + offset_of!(TaskTableState, detached)) != 0
    }

    /// The host is about to be attached. From now on each task gets a row, or counts as untracked.
    pub(crate) fn open_task_table(&self) {
        self.write(offset_of!(HostData, task_table) + offset_of!(TaskTableState, detached), 0u32);
    }

    /// Shall tasks that are enabled get back the `dsq_vtime` that they had when the host was detached?
    pub(crate) fn restore_vtime(&self, restore: bool) {
        self.write::<u32>(offset_of!(HostData, restore_vtime), restore.into())
    }

    /// Forget why the host was taken off. Before it is attached again.
    pub(crate) fn clear_exit(&self) {
        let kind = offset_of!(HostData, exit) + offset_of!(ExitRecord, kind);
        self.write::<u64>(kind, 0)
    }

    /// What the kernel said when it took the host off, if it did.
    pub fn exit(&self) -> Option<ExitRecord> {
        let exit = self.read::<ExitRecord>(offset_of!(HostData, exit));
        (exit.kind != 0).then_some(exit)
    }

    /// Why the kernel took the host off, if it did: what it calls the reason, and its message.
    pub fn exit_reason(&self) -> Option<String> {
        self.exit().map(|exit| describe(&exit))
    }
}

/// What the shared memory of a host of any version begins with.
#[derive(Debug)]
pub(crate) struct FirstPage {
    map: MmapRaw,
}

impl FirstPage {
    fn word(&self, offset: usize) -> u64 {
        // SAFETY: all callers pass the offset of a field of the first 64 bytes of a page that is mapped.
        unsafe { self.map.as_mut_ptr().add(offset).cast::<u64>().read_volatile() }
    }

    /// The control word.
    pub fn active(&self) -> Active {
        Active::from_word(self.word(offset_of!(HostData, active)))
    }

    /// The host's ABI.
    pub fn abi(&self) -> u32 {
        (self.word(offset_of!(HostData, lacks)) >> 32) as u32
    }

    /// The generation that is complete; 0 if none is, and in a version that marks it otherwise.
    pub fn closed(&self) -> u32 {
        (self.word(offset_of!(HostData, handover_to)) >> 32) as u32
    }
}

const FIRST_PAGE: usize = 4096;
const _: () = assert!(offset_of!(HostData, abi) == offset_of!(HostData, lacks) + 4);
const _: () = assert!(offset_of!(HostData, closed) == offset_of!(HostData, handover_to) + 4);

/// `EXIT: reason (message)` in one line.
pub(crate) fn describe(exit: &ExitRecord) -> String {
    let text = |bytes: &[u8]| {
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(&bytes[..end]).trim().to_string()
    };
    match (text(&exit.reason), text(&exit.msg)) {
        (reason, msg) if msg.is_empty() => reason,
        (reason, msg) => format!("{reason}: {msg}"),
    }
}

/// For a kernel in memory: what the host's programs and the kernel do with the memory.
#[cfg(test)]
#[allow(clippy::unwrap_used)]
impl Mapped {
    pub(crate) fn anonymous() -> Mapped {
        let map = MmapOptions::new().len(size_of::<HostData>()).map_anon().unwrap();
        Mapped { map: Arc::new(MmapRaw::from(map)) }
    }

    /// Another mapping of the same memory.
    pub(crate) fn same(&self) -> Mapped {
        Mapped { map: self.map.clone() }
    }

    pub(crate) fn set_exit(&self, kind: u64) {
        let offset = offset_of!(HostData, exit) + offset_of!(ExitRecord, kind);
        // SAFETY: a field of a field of HostData, see `at`.
        self.write(offset, kind);
    }

    pub(crate) fn boot_queues(&self) -> Vec<DsqGroup> {
        let at = |i| offset_of!(HostData, boot_queues) + i * size_of::<DsqGroup>();
        let queues = (0..MAX_QUEUES).map(|i| self.read::<DsqGroup>(at(i)));
        queues.take_while(|queue| queue.base != 0).collect()
    }
}
