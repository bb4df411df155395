//! The sweep: every record of a scope is brought up to date. `bpf/include/scx_upgrade/sweep.bpf.h` has the programs.
//!
//! A SCHED_FIFO thread that sweeps (`os/realtime.rs`) starves its CPU, so it pauses after each piece. Workers (`worker_pool.rs`) run
//! under the policy, but not while they are in a BPF program: a task there cannot migrate, and where the policy has not asked for such tasks
//! (SCX_OPS_ENQ_MIGRATION_DISABLED) the kernel itself gives it the CPU for another 20 ms each time that its slice ends
//! (`do_enqueue_task()`, kernel/sched/ext/ext.c). So workers yield after each piece.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use state_migrate::Scope;

use crate::error::Result;
use crate::host::abi::SweepArgs;
use crate::host::compiled_sweep::Compiled;
use crate::host::memory::Mapped;
use crate::host::names::TRACK_UNTRACKED;
use crate::host::pins::Pins;
use crate::host::scopes::SCOPES;
use crate::host::scopes::SWEEP_UNTRACKED;
use crate::host::scopes::ScopeParts;
use crate::host::worker_pool::SLOW;
use crate::host::worker_pool::WorkerPool;
use crate::host::worker_pool::plus;
use crate::host::worker_pool::run;
use crate::host::worker_pool::share;
use crate::kernel::sysfs;
use serde::Deserialize;
use serde::Serialize;

/// The sweep of one scope.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Swept {
    /// `task`, `cgroup`, …
    pub scope: String,
    /// Tasks, cgroups or CPUs that it saw.
    pub visited: u64,
    /// Records that it brought up to date; the others had been by an op.
    pub applied: u64,
    /// Those for which there was no memory for a record.
    pub missing: u64,
    /// How long it took, ns.
    #[serde(default)]
    pub took_ns: u64,
}

/// Whose program sweeps, if not the host's own.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sweeper<'a> {
    /// Made for the plan, for the scopes that it has.
    pub compiled: Option<&'a Compiled>,
    /// That of the policy in this slot: the plan calls its conversions.
    pub slot: Option<u8>,
}

/// After so many tasks others may run: half a millisecond or so on hardware. A multiple of SCXU_SWEEP_TAKE.
const PIECE: u32 = 2_048;
const PROGRESS: Duration = Duration::from_secs(1);

/// The host whose records are swept.
#[derive(Debug, Clone, Copy)]
pub struct SweepTarget<'a> {
    /// Its memory.
    pub data: &'a Mapped,
    /// Does the kernel run it?
    pub attached: bool,
}

/// The same, with its pins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PinnedTarget<'a> {
    pub pins: &'a Pins,
    pub data: &'a Mapped,
    pub attached: bool,
}

impl PinnedTarget<'_> {
    /// Sweep all tasks when there is nothing to do, ahead of a sweep for which there is: what that will touch, one page after another
    /// of what nobody has touched for long, is in the caches then. And who was born outside sched_ext gets a row of the task table.
    ///
    /// Before the host is attached it makes the records of all tasks, so that they lie in memory in the order of the kernel's lists
    /// and not in that in which the tasks of all processes were born. Nothing depends on it.
    pub(crate) fn sweep_nothing(&self) {
        let Some(tasks) = SCOPES.iter().find(|s| s.scope == Scope::Task) else { return };
        if let Err(e) = self
            .track_untracked()
            .and_then(|()| self.sweep(tasks, Sweeper::default(), &WorkerPool::none(), &mut || {}))
        {
            log::debug!("the sweep takes longer: {e}");
        }
    }

    fn track_untracked(&self) -> Result<()> {
        if !self.has_task_table() || self.data.untracked() == 0 {
            return Ok(());
        }
        run(self.pins.program(TRACK_UNTRACKED)?.as_fd(), TRACK_UNTRACKED, SweepArgs::default()).map(drop)
    }

    /// Have tasks rows?
    fn has_task_table(&self) -> bool {
        self.attached && !self.data.task_table_is_void()
    }

    /// Bring every record of these scopes up to date, and say what became of each. Where there are many tasks the workers begins with
    /// them while this thread sees to the other scopes, and then takes part.
    pub(crate) fn sweep_scopes(
        &self,
        scopes: &[&ScopeParts],
        sweeper: Sweeper<'_>,
        workers: &WorkerPool,
    ) -> Vec<Result<Swept>> {
        let each = |scopes: &[&ScopeParts]| -> Vec<_> {
            scopes.iter().map(|s| self.sweep(s, sweeper, workers, &mut || {})).collect()
        };
        let Some((tasks, others)) = scopes.split_first().filter(|(first, _)| first.scope == Scope::Task)
        else {
            return each(scopes);
        };
        let mut rest = None;
        let swept = self.sweep(tasks, sweeper, workers, &mut || {
            rest.get_or_insert_with(|| each(others));
        });
        std::iter::once(swept).chain(rest.unwrap_or_else(|| each(others))).collect()
    }

    /// `meanwhile` is what this thread does before it takes part in a sweep of tasks.
    fn sweep(
        &self,
        scope: &ScopeParts,
        sweeper: Sweeper<'_>,
        workers: &WorkerPool,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<Swept> {
        let begin = Instant::now();
        let sums = match scope.scope {
            Scope::Task => self.sweep_tasks(scope, sweeper, workers, meanwhile)?,
            _ => self.sweep_scope(scope, sweeper)?,
        };
        Ok(Swept {
            scope: scope.scope.to_string(),
            visited: sums.visited,
            applied: sums.applied,
            missing: sums.missing,
            took_ns: begin.elapsed().as_nanos() as u64,
        })
    }

    /// A scope with few records.
    fn sweep_scope(&self, scope: &ScopeParts, sweeper: Sweeper<'_>) -> Result<SweepArgs> {
        let mut sums = SweepArgs::default();
        if let Some(program) = sweeper.compiled.and_then(|c| c.program(scope)) {
            sums = run(program, scope.sweep, sums)?;
            if sums.remaining == 0 {
                return Ok(sums);
            }
        }
        // More than one plan behind, or all of them.
        let pinned = self.sweeper(scope.sweep, sweeper.slot)?;
        let rest = run(pinned.as_fd(), scope.sweep, SweepArgs::default())?;
        Ok(SweepArgs { applied: sums.applied + rest.applied, ..rest })
    }

    fn sweep_tasks(
        &self,
        scope: &ScopeParts,
        sweeper: Sweeper<'_>,
        workers: &WorkerPool,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<SweepArgs> {
        let mut sums = SweepArgs::default();
        if self.has_task_table() {
            let pinned = self.sweeper(scope.sweep, sweeper.slot)?;
            let compiled = sweeper.compiled.and_then(|c| c.program(scope));
            sums = self.sweep_task_table(compiled.unwrap_or(pinned.as_fd()), workers, meanwhile)?;
            if sums.remaining > 0 {
                // More than one plan behind.
                sums.applied += self.sweep_task_table(pinned.as_fd(), workers, &mut || {})?.applied;
            }
        }
        // Asked afterwards: who is detached meanwhile takes the rows from under a sweep.
        if !self.has_task_table() || self.data.untracked() > 0 {
            let pinned = self.sweeper(SWEEP_UNTRACKED, sweeper.slot)?;
            let all = run(pinned.as_fd(), SWEEP_UNTRACKED, SweepArgs::default())?;
            sums = SweepArgs { applied: sums.applied + all.applied, ..all };
        }
        Ok(sums)
    }

    fn sweep_task_table(
        &self,
        program: BorrowedFd<'_>,
        workers: &WorkerPool,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<SweepArgs> {
        let tasks = sysfs::tasks();
        let args = SweepArgs { sweep: self.data.begin_sweep(), max_records: PIECE, ..Default::default() };
        let over = AtomicBool::new(false);
        let shares = thread::scope(|threads| {
            let watch = (tasks >= SLOW).then(|| threads.spawn(|| self.report_progress(tasks, &over)));
            let shares = workers.share(program, args, || {
                meanwhile();
                share(program, args)
            });
            over.store(true, Ordering::Relaxed);
            if let Some(watch) = watch {
                watch.thread().unpark();
            }
            shares
        });
        Ok(shares?.into_iter().fold(args, plus))
    }

    /// Say how far a sweep that takes long is, until it is over.
    fn report_progress(&self, tasks: u64, over: &AtomicBool) {
        loop {
            thread::park_timeout(PROGRESS);
            if over.load(Ordering::Relaxed) {
                return;
            }
            log::info!("sweep: {} of about {tasks} tasks", self.data.swept());
        }
    }

    fn sweeper(&self, program: &str, slot: Option<u8>) -> Result<OwnedFd> {
        match slot {
            Some(slot) => self.pins.program_at(&self.pins.policy_program_path(slot, program)),
            None => self.pins.program(program),
        }
    }
}
