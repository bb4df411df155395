//! What is asked of the kernel about the host that is resident in it. [`Pins`](crate::host::pins::Pins) asks the kernel that runs.
//! Tests ask one that is in memory (`transition/histories/`), and there a call can fail, or the command can die at it.

use std::fmt;
use std::time::Duration;
use std::time::Instant;

use state_migrate::Plan;

use crate::error::Error;
use crate::error::Result;
use crate::host::abi::Active;
use crate::host::abi::QueueArgs;
use crate::host::loaded::Loaded;
use crate::host::memory::Mapped;
use crate::host::registry::Registry;
use crate::host::scopes::ScopeParts;
use crate::host::sweep::SweepTarget;
use crate::host::sweep::Swept;
use crate::host::worker_pool::WorkerPool;
use crate::kernel::sysfs;
use crate::kernel::topology::Topology;

/// How often the kernel is asked whether it is there yet.
const LOOK: Duration = Duration::from_micros(200);

/// See the module. A method that fails has no effect, or one that the same call made again completes.
pub trait Resident: Clone + fmt::Debug + Sized {
    /// Programs and maps that the kernel has verified.
    type Object: fmt::Debug;
    /// The host's maps, opened.
    type Maps: fmt::Debug;
    /// The sweep made for one plan.
    type Compiled: fmt::Debug;

    /// `state` of sched_ext in sysfs.
    fn state(&self) -> String;

    /// The name of the scheduler that is enabled; empty if none is.
    fn ops(&self) -> String;

    /// The machine's CPUs.
    ///
    /// # Errors
    /// sysfs cannot be read.
    fn topology(&self) -> Result<Topology>;

    /// Is the host's struct_ops link pinned?
    fn has_link(&self) -> bool;

    /// Is there a host's state, attached or not?
    fn has_state(&self) -> bool;

    /// Was a command cut off that replaces the host by one of another version?
    fn is_half_replaced(&self) -> bool;

    /// The error for a host that runs and whose pins are elsewhere, if one does.
    fn hidden_host(&self) -> Option<Error>;

    /// The control word of the resident host, of any version.
    fn control_word(&self) -> Option<Active>;

    /// Opens the host's maps, and maps its memory.
    ///
    /// # Errors
    /// [`Error::OtherHost`], or they are not pinned.
    fn open(&self) -> Result<(Self::Maps, Mapped)>;

    /// Reads the registry.
    ///
    /// # Errors
    /// [`Error::Registry`]
    fn load_registry(&self, maps: &Self::Maps) -> Result<Registry>;

    /// Writes the registry: one system call, which a kill cannot cut in half.
    ///
    /// # Errors
    /// It outgrew its map.
    fn save_registry(&self, maps: &Self::Maps, registry: &Registry) -> Result<()>;

    /// Fills an idle slot with a policy's programs, empties it for the ops that the policy lacks, but for `enqueue`, and pins
    /// what of the policy must outlive this process.
    ///
    /// # Errors
    /// A system call fails.
    fn fill(&self, maps: &Self::Maps, slot: u8, loaded: &Loaded<Self::Object>) -> Result<()>;

    /// Empties a slot. Its programs are freed once no op is in them.
    ///
    /// # Errors
    /// A system call fails.
    fn empty(&self, maps: &Self::Maps, slot: u8) -> Result<()>;

    /// Waits until no op that began before the call is still in flight.
    ///
    /// # Errors
    /// A system call fails.
    fn settle(&self) -> Result<()>;

    /// Starts the host's timer that hands tasks over, and gives back its error code; `settled`: a grace period is over since the commit.
    ///
    /// # Errors
    /// The program cannot be run.
    fn start_handover(&self, settled: bool) -> Result<i32>;

    /// Runs one of the host's programs on a queue, and gives back what it returned.
    ///
    /// # Errors
    /// The program cannot be run.
    fn run_on_queue(&self, program: &str, args: &mut QueueArgs) -> Result<i32>;

    /// Makes the kernel re-enqueue every task that is on no queue, and returns how many there were.
    ///
    /// # Errors
    /// The host's program cannot be run.
    fn rescue(&self) -> Result<u64>;

    /// The plan in instructions, for the sweep of many tasks; `None` where that does not pay or the kernel does not take it.
    fn compile(&self, maps: &Self::Maps, plan: &Plan) -> Option<Self::Compiled>;

    /// Brings every record of these scopes up to date, and says what became of each. `slot`: the policy in it has the conversions
    /// that the plan calls.
    fn sweep_all(
        &self,
        host: SweepTarget<'_>,
        scopes: &[&ScopeParts],
        compiled: Option<&Self::Compiled>,
        slot: Option<u8>,
        workers: &WorkerPool,
    ) -> Vec<Result<Swept>>;

    /// Sweeps all tasks when there is nothing to do, ahead of a sweep for which there is.
    fn walk_tasks(&self, host: SweepTarget<'_>);

    /// The error for a scheduler that runs and that nothing here is of: [`Error::HiddenPins`] where it is a host of this
    /// project's, else [`Error::OtherScheduler`].
    fn unknown_scheduler(&self) -> Error {
        self.hidden_host().unwrap_or_else(|| Error::OtherScheduler { ops: self.ops(), state: self.state() })
    }

    /// Waits until the kernel's `state` is `wanted`: see [`sysfs::wait_for_state`].
    fn wait_for_state(&self, wanted: &str, at_most: Duration) -> bool {
        sysfs::wait_for_state(|| self.state(), wanted, at_most)
    }

    /// Waits while the kernel enables or disables a scheduler: see [`sysfs::wait_until_settled`].
    fn wait_until_settled(&self) {
        sysfs::wait_until_settled(|| self.state());
    }

    /// Waits until the kernel says `enabled`. `exited`: did the scheduler's exit op run? Attach succeeds even where the kernel then
    /// takes the scheduler off, and so it ends at `disabled`.
    fn wait_until_enabled(&self, exited: impl Fn() -> bool, at_most: Duration) -> bool {
        let deadline = Instant::now() + at_most;
        loop {
            match self.state().as_str() {
                "enabled" => return true,
                "disabled" if exited() => return false,
                _ if Instant::now() > deadline => return false,
                _ => std::thread::sleep(LOOK),
            }
        }
    }
}
