//! The sweep: every record of a scope is brought up to date. `bpf/include/scx_upgrade/sweep.bpf.h` has the programs.
//!
//! It may be as urgent as the commit was (`urgent.rs`), and then nobody else runs on the CPUs that take part: so it stops to
//! take breath every few thousand tasks.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::panic::resume_unwind;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use state_migrate::Scope;

use crate::abi::SweepArgs;
use crate::bpf;
use crate::clock::monotonic_ns;
use crate::compiled::Compiled;
use crate::error::Result;
use crate::error::Trying;
use crate::host::Host;
use crate::kernel;
use crate::report::Swept;
use crate::scopes::ScopeParts;

/// Whose program sweeps, if not the host's own.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sweeper<'a> {
    /// Made for the plan, for the scopes that it has.
    pub compiled: Option<&'a Compiled>,
    /// That of the policy in this slot: the plan calls its conversions.
    pub slot: Option<u8>,
}

/// From so many tasks on a sweep is shared among CPUs, and it pays to put its plan into instructions.
pub(crate) const MANY: u64 = 4_000;
/// The most CPUs that share a sweep: each walks the list of processes, so more gain little.
const MAX_SHARES: u32 = 8;
/// After so many tasks others may run: one to two milliseconds on hardware.
const ENOUGH: u32 = 4_096;
/// For so long.
const BREATH: Duration = Duration::from_micros(250);
/// From so many tasks on a sweep may take long enough to say how far it is; how often.
pub(crate) const SLOW: u64 = 500_000;
const PROGRESS: Duration = Duration::from_secs(1);

impl Host {
    /// Bring every record of these scopes up to date, and say what became of each. Where there are many tasks several CPUs take
    /// part. The first that finds no more tasks goes on with the other scopes: what is small goes last, where one CPU has more
    /// to do than another.
    pub(crate) fn sweep_all(&self, scopes: &[&ScopeParts], sweeper: Sweeper<'_>) -> Vec<Result<Swept>> {
        let each = |scopes: &[&ScopeParts]| -> Vec<_> {
            scopes.iter().map(|s| self.sweep(s, sweeper, &|| {})).collect()
        };
        match scopes.split_first() {
            Some((tasks, others)) if tasks.scope == Scope::Task => {
                let rest = OnceLock::new();
                let mut all = vec![self.sweep(tasks, sweeper, &|| {
                    rest.get_or_init(|| each(others));
                })];
                all.extend(rest.into_inner().unwrap_or_else(|| each(others)));
                all
            }
            _ => each(scopes),
        }
    }

    /// `then` is for each CPU that takes part in a sweep of tasks, when it is done.
    fn sweep(&self, scope: &ScopeParts, sweeper: Sweeper<'_>, then: &(dyn Fn() + Sync)) -> Result<Swept> {
        let begin = Instant::now();
        let pinned = self.sweeper(scope, sweeper.slot)?;
        let compiled = sweeper.compiled.and_then(|c| c.program(scope));
        let mut sums = self.sweep_with(compiled.unwrap_or(pinned.as_fd()), scope, then)?;
        if sums.left > 0 {
            // More than one plan behind.
            sums.applied += self.sweep_with(pinned.as_fd(), scope, then)?.applied;
        }
        Ok(Swept {
            scope: scope.scope.to_string(),
            visited: sums.visited,
            applied: sums.applied,
            missing: sums.missing,
            took_ns: begin.elapsed().as_nanos() as u64,
        })
    }

    fn sweep_with(
        &self,
        program: BorrowedFd<'_>,
        scope: &ScopeParts,
        then: &(dyn Fn() + Sync),
    ) -> Result<SweepArgs> {
        if scope.scope != Scope::Task {
            return share(program, scope, SweepArgs::default());
        }
        let tasks = kernel::tasks();
        let parts = shares(tasks);
        // Of the time, because no other sweep has had it; also where that was cut off.
        let all =
            SweepArgs { sweep: monotonic_ns(), parts, whole: whole(tasks, parts), ..Default::default() };
        self.data.set_swept(0);
        let share = |part: u32| {
            let sums = share(program, scope, SweepArgs { part, ..all })?;
            then();
            Ok(sums)
        };
        let shares: Result<Vec<_>> = thread::scope(|threads| {
            let others: Vec<_> = (1..parts).map(|part| threads.spawn(move || share(part))).collect();
            let watch = (tasks >= SLOW).then(|| threads.spawn(|| self.report_progress(tasks)));
            let first = share(0);
            let joined = others.into_iter().map(|t| t.join().unwrap_or_else(|panic| resume_unwind(panic)));
            let all = std::iter::once(first).chain(joined).collect();
            // Ends the watch.
            self.data.set_swept(u32::MAX);
            if let Some(watch) = watch {
                watch.thread().unpark();
            }
            all
        });
        Ok(shares?.into_iter().fold(all, plus))
    }

    /// Say how far a sweep that takes long is, until it is over.
    fn report_progress(&self, tasks: u64) {
        loop {
            thread::park_timeout(PROGRESS);
            match self.data.swept() {
                u32::MAX => return,
                swept => log::info!("sweep: {swept} of about {tasks} tasks"),
            }
        }
    }

    fn sweeper(&self, scope: &ScopeParts, slot: Option<u8>) -> Result<OwnedFd> {
        match slot {
            Some(slot) => self.pins.program_at(&self.pins.policy_program_path(slot, scope.sweep)),
            None => self.program(scope.sweep),
        }
    }
}

/// What falls to one CPU, and the sums of it.
fn share(program: BorrowedFd<'_>, scope: &ScopeParts, all: SweepArgs) -> Result<SweepArgs> {
    let mut sums = SweepArgs { first: 1, budget: ENOUGH, ..all };
    loop {
        let mut args = SweepArgs { visited: 0, applied: 0, missing: 0, left: 0, ..sums };
        let ret = bpf::run(&program, scope.sweep, &mut args)?;
        if ret < 0 {
            return Err(std::io::Error::from_raw_os_error(-ret))
                .trying(format!("cannot sweep: {}", scope.sweep));
        }
        sums = SweepArgs { first: 0, ..plus(sums, args) };
        if args.more == 0 {
            return Ok(sums);
        }
        thread::sleep(BREATH);
    }
}

/// The sums of both, and otherwise the first.
fn plus(a: SweepArgs, b: SweepArgs) -> SweepArgs {
    SweepArgs {
        visited: a.visited + b.visited,
        applied: a.applied + b.applied,
        missing: a.missing + b.missing,
        left: a.left + b.left,
        ..a
    }
}

/// How many CPUs share the sweep of so many tasks: a power of two.
fn shares(tasks: u64) -> u32 {
    if tasks < MANY {
        return 1;
    }
    let cpus = thread::available_parallelism().map_or(1, |n| n.get() as u32);
    1 << cpus.min(MAX_SHARES).ilog2()
}

/// The most threads of a process that one CPU takes on by itself: with more, the others would have long been done.
fn whole(tasks: u64, parts: u32) -> u32 {
    if parts == 1 { u32::MAX } else { (tasks / u64::from(2 * parts)) as u32 }
}
