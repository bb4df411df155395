//! The host's DSQs: families with as many members as their span has, made, counted, drained and destroyed by the host's
//! SYSCALL programs, a family at a time.

use std::time::Duration;

use state_migrate::schema::QueueSpan;

use crate::error::Error;
use crate::error::Result;
use crate::error::Trying;
use crate::host::Host;
use crate::host::abi::DsqGroup;
use crate::host::abi::QueueArgs;
use crate::host::names::COUNT_QUEUES;
use crate::host::names::CREATE_QUEUES;
use crate::host::names::DESTROY_QUEUES;
use crate::host::names::DRAIN_QUEUES;
use crate::host::registry::QueueInfo;
use crate::host::resident::Resident;

/// How often what needs the lock of the per-cgroup families is tried, 2 ms apart. The host's work item, which makes
/// members for cgroups to come, may have it.
const LOCK_TRIES: u32 = 1000;
/// How often a queue is looked at until it is empty, 2 ms apart.
const DRAIN_TRIES: u32 = 200;
const PAUSE: Duration = Duration::from_millis(2);

/// A family, as the host wants to hear of it.
pub(crate) fn family(queue: &QueueInfo, nr_cpus: u32, nr_llcs: u32) -> DsqGroup {
    let members = match queue.span {
        QueueSpan::One => 1,
        QueueSpan::Cpu => nr_cpus,
        QueueSpan::Llc => nr_llcs,
        QueueSpan::Cgroup => 0,
    };
    DsqGroup { base: queue.id, members, per_cgroup: u32::from(queue.span == QueueSpan::Cgroup) }
}

/// What stands of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// Members that exist.
    pub existing: u64,
    /// Tasks that wait on them.
    pub queued: u64,
}

impl<K: Resident> Host<K> {
    /// A queue as the host's programs want it. How many members a per-cgroup family has, they know themselves.
    pub(crate) fn family(&self, queue: &QueueInfo) -> DsqGroup {
        let mut family = family(queue, self.data.nr_cpus(), self.data.nr_llcs());
        if family.per_cgroup != 0 {
            family.members = self.data.cgroup_members();
        }
        family
    }

    /// Wait until no program of the host's is at the per-cgroup families. Before attach: its init fails otherwise.
    pub(crate) fn wait_for_families(&self) {
        for _ in 0..LOCK_TRIES {
            if !self.data.families_locked() {
                return;
            }
            std::thread::sleep(PAUSE);
        }
        log::warn!("a work item of the host is still making queues");
    }

    /// Create queues. Members that stand already, of a swap that was killed, are taken as they are.
    pub(crate) fn create_queues(&self, queues: &[QueueInfo]) -> Result<()> {
        debug_assert!(self.attached || queues.is_empty(), "queues are the attached scheduler's");
        for queue in queues {
            let (ret, _) = self.run_on(CREATE_QUEUES, queue)?;
            if ret < 0 {
                let what = format!("the kernel does not create the queue {} ({:#x})", queue.name, queue.id);
                return Err(std::io::Error::from_raw_os_error(-ret)).trying(what);
            }
        }
        Ok(())
    }

    /// What stands of a queue.
    ///
    /// # Errors
    /// The host's program cannot be run.
    pub fn count_queue(&self, queue: &QueueInfo) -> Result<Count> {
        let (_, QueueArgs { existing, queued, .. }) = self.run_on(COUNT_QUEUES, queue)?;
        Ok(Count { existing, queued })
    }

    /// Hand the tasks on a queue over to the policy that runs, until none is left; how many there were.
    ///
    /// # Errors
    /// [`Error::Stranded`] when some remain after many tries.
    pub(crate) fn drain_queue(&self, queue: &QueueInfo) -> Result<u64> {
        let mut handed = 0;
        let mut left = 0;
        // Where the kernel re-enqueues it does so a moment later, from an interrupt: look again.
        for _ in 0..DRAIN_TRIES {
            let (_, args) = self.run_on(DRAIN_QUEUES, queue)?;
            handed += args.moved;
            left = args.queued;
            if left == 0 {
                return Ok(handed);
            }
            std::thread::sleep(PAUSE);
        }
        Err(Error::Stranded { queue: queue.name.clone(), queued: left })
    }

    /// Destroy a queue that no policy names any more. A grace period ago nobody asked for it any more.
    ///
    /// # Errors
    /// [`Error::Stranded`] when there are tasks on it.
    pub(crate) fn destroy_queue(&self, queue: &QueueInfo) -> Result<()> {
        let (ret, args) = self.run_on(DESTROY_QUEUES, queue)?;
        if ret < 0 {
            let what = format!("the queue {} ({:#x}) cannot be destroyed", queue.name, queue.id);
            return Err(std::io::Error::from_raw_os_error(-ret)).trying(what);
        }
        if args.queued > 0 {
            return Err(Error::Stranded { queue: queue.name.clone(), queued: args.queued });
        }
        Ok(())
    }

    /// Run one of the host's programs on a queue, again where it does not get its lock.
    fn run_on(&self, program: &str, queue: &QueueInfo) -> Result<(i32, QueueArgs)> {
        let DsqGroup { base, members, per_cgroup } = self.family(queue);
        let mut tries = 0;
        loop {
            let mut args = QueueArgs { base, members, per_cgroup, ..Default::default() };
            let ret = self.pins.run_on_queue(program, &mut args)?;
            tries += 1;
            if ret != -libc::EBUSY || tries == LOCK_TRIES {
                return Ok((ret, args));
            }
            std::thread::sleep(PAUSE);
        }
    }
}
