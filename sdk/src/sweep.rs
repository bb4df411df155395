//! The sweep: every record of a scope is brought up to date. `bpf/include/scx_upgrade/sweep.bpf.h` has the programs.
//!
//! The thread that swaps may be as urgent as the commit was (`urgent.rs`), and then nobody else runs on its CPU: so it pauses every
//! few thousand tasks. Those who help it are tasks like any (`crew.rs`), so on their CPUs the policy says who runs; but not while
//! they are in a BPF program: a task there cannot migrate, and where the policy has not asked for such tasks
//! (SCX_OPS_ENQ_MIGRATION_DISABLED) the kernel itself gives it the CPU for another 20 ms each time that its slice ends
//! (`do_enqueue_task()`, kernel/sched/ext/ext.c). So they give way of their own accord after each piece.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use state_migrate::Scope;

use crate::abi::MAX_SWEEPERS;
use crate::abi::SWEEP_DONE;
use crate::abi::SWEEP_PAUSE;
use crate::abi::SweepArgs;
use crate::bpf;
use crate::clock::monotonic_ns;
use crate::compiled::Compiled;
use crate::crew::Crew;
use crate::error::Result;
use crate::error::Trying;
use crate::host::Host;
use crate::kernel;
use crate::report::Swept;
use crate::scopes::SCOPES;
use crate::scopes::SWEEP_TASKS;
use crate::scopes::ScopeParts;
use crate::urgent;

/// Whose program sweeps, if not the host's own.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sweeper<'a> {
    /// Made for the plan, for the scopes that it has.
    pub compiled: Option<&'a Compiled>,
    /// That of the policy in this slot: the plan calls its conversions.
    pub slot: Option<u8>,
}

/// After so many tasks others may run: half a millisecond or so on hardware. A multiple of SCX_SWEEP_WORD.
const PIECE: u32 = 4_096;
/// Who is urgent then pauses for this part of the time that the piece took.
const PAUSE: u32 = 32;
/// From so many tasks on a sweep may take long enough to say how far it is, and how often; and for a pause to be as long as a piece.
const SLOW: u64 = 500_000;
const PROGRESS: Duration = Duration::from_secs(1);

impl Host {
    /// Walk all tasks by a sweep for which there is nothing to do, ahead of one for which there is: what that will touch, one
    /// page after another of what nobody has touched for long, is in the caches then. Tasks without a record have one made, so
    /// before the host is attached that is each: they lie in memory in the order in which sweeps pass by, and not in that in
    /// which the tasks of all processes were born.
    ///
    /// Nothing depends on it.
    pub(crate) fn walk_tasks(&self) {
        let Some(tasks) = SCOPES.iter().find(|s| s.scope == Scope::Task) else { return };
        if let Err(e) = self.sweep(tasks, Sweeper::default(), &Crew::none(), &mut || {}) {
            log::debug!("the sweep takes longer: {e}");
        }
    }

    /// Bring every record of these scopes up to date, and say what became of each. Where there are many tasks the crew begins with
    /// them while this thread sees to the other scopes, and then takes part.
    pub(crate) fn sweep_all(
        &self,
        scopes: &[&ScopeParts],
        sweeper: Sweeper<'_>,
        crew: &Crew,
    ) -> Vec<Result<Swept>> {
        let each = |scopes: &[&ScopeParts]| -> Vec<_> {
            scopes.iter().map(|s| self.sweep(s, sweeper, crew, &mut || {})).collect()
        };
        let Some((tasks, others)) = scopes.split_first().filter(|(first, _)| first.scope == Scope::Task)
        else {
            return each(scopes);
        };
        let mut rest = None;
        let swept = self.sweep(tasks, sweeper, crew, &mut || {
            rest.get_or_insert_with(|| each(others));
        });
        std::iter::once(swept).chain(rest.unwrap_or_else(|| each(others))).collect()
    }

    /// `meanwhile` is what this thread does before it takes part in a sweep of tasks.
    fn sweep(
        &self,
        scope: &ScopeParts,
        sweeper: Sweeper<'_>,
        crew: &Crew,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<Swept> {
        let begin = Instant::now();
        let pinned = self.sweeper(scope, sweeper.slot)?;
        let compiled = sweeper.compiled.and_then(|c| c.program(scope));
        let mut sums = self.sweep_with(compiled.unwrap_or(pinned.as_fd()), scope, crew, meanwhile)?;
        if sums.left > 0 {
            // More than one plan behind.
            sums.applied += self.sweep_with(pinned.as_fd(), scope, crew, &mut || {})?.applied;
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
        crew: &Crew,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<SweepArgs> {
        if scope.scope != Scope::Task {
            return run(program, scope.sweep, SweepArgs::default());
        }
        let tasks = kernel::tasks();
        // Of the time, because no other sweep has had it; also where that was cut off.
        let args = SweepArgs { sweep: monotonic_ns(), ..Default::default() };
        self.data.begin_sweep();
        let shares = thread::scope(|threads| {
            let watch = (tasks >= SLOW).then(|| threads.spawn(|| self.report_progress(tasks)));
            let shares = crew.share(program, args, || {
                meanwhile();
                share(program, args)
            });
            // Ends the watch.
            self.data.set_swept(u32::MAX);
            if let Some(watch) = watch {
                watch.thread().unpark();
            }
            shares
        });
        Ok(shares?.into_iter().fold(args, plus))
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

/// What falls to one CPU of a sweep of tasks, and the sums of it: of processes that nobody is at yet, then of those that others
/// are at.
pub(crate) fn share(program: BorrowedFd<'_>, args: SweepArgs) -> Result<SweepArgs> {
    let gives_way = urgent::is_urgent().into();
    let pause = if kernel::tasks() >= SLOW { 1 } else { PAUSE };
    let mut sums = piecewise(program, SweepArgs { first: 1, budget: PIECE, gives_way, ..args }, pause)?;
    loop {
        let before = sums.visited;
        for other in 1..=MAX_SWEEPERS as u32 {
            sums = piecewise(program, SweepArgs { first: 0, help: other, ..sums }, pause)?;
        }
        // Once more, for what is left of it by then.
        if sums.visited == before {
            return Ok(sums);
        }
    }
}

/// Run it with these arguments for as long as it has more to do, in pieces, of whose time `pause` divides what an urgent one
/// pauses for. The sums that came in, and what it added.
fn piecewise(program: BorrowedFd<'_>, mut sums: SweepArgs, pause: u32) -> Result<SweepArgs> {
    loop {
        let begin = Instant::now();
        let part =
            run(program, SWEEP_TASKS, SweepArgs { visited: 0, applied: 0, missing: 0, left: 0, ..sums })?;
        sums = SweepArgs { first: 0, ..plus(sums, part) };
        match part.more {
            SWEEP_DONE => return Ok(sums),
            SWEEP_PAUSE if sums.gives_way != 0 => thread::sleep(begin.elapsed() / pause),
            SWEEP_PAUSE => thread::yield_now(),
            _ => {}
        }
    }
}

fn run(program: BorrowedFd<'_>, name: &str, mut args: SweepArgs) -> Result<SweepArgs> {
    let ret = bpf::run(&program, name, &mut args)?;
    if ret < 0 {
        return Err(std::io::Error::from_raw_os_error(-ret)).trying(format!("cannot sweep: {name}"));
    }
    Ok(args)
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
