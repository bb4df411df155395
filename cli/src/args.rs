//! The command line.

use std::path::PathBuf;

use clap::Parser;
use clap::Subcommand;

/// Replace the running sched_ext scheduler in place, with every task's state, and take it back
///
/// Exit codes: 0 done; 1 failed, and what ran before still runs; 2 wrong usage; 3 nothing is running; 4 the state
/// cannot be carried, or only by a reattach, which was not allowed; 5 failed, and tasks are on the kernel's default
/// scheduler; 6 a snapshot cannot be read, written or used.
#[derive(Debug, Parser)]
#[command(name = "scx-upgrade", version)]
pub struct Args {
    /// Print JSON instead of text
    #[arg(long, global = true)]
    pub json: bool,

    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Start a policy where none is running
    Run(RunArgs),
    /// Replace the running policy, in place
    #[command(alias = "switch")]
    Swap(SwapArgs),
    /// Show what a swap would do to each column, without doing it
    Plan {
        /// The policy's binary
        binary: PathBuf,
    },
    /// Show what a swap from one policy to another would do, on any machine, without root
    Check {
        /// The binary of the policy that would run before
        old: PathBuf,
        /// The binary of the policy that would take over
        new: PathBuf,
    },
    /// Make the policy before it run again; it is still loaded
    #[command(alias = "undo")]
    Rollback {
        #[command(flatten)]
        reattach: ReattachArgs,
    },
    /// What the running policy knows, to a file and back
    #[command(subcommand)]
    Snapshot(SnapshotVerb),
    /// Show what runs and what a rollback would go to
    Status,
    /// End the scheduler: tasks go back to the kernel's default, state is forgotten
    Stop,
}

#[derive(Debug, Subcommand)]
pub enum SnapshotVerb {
    /// Write what the running policy knows to a file: columns of cgroups, CPUs and tasks, and global ones
    Save {
        /// The file. One that is there is replaced, whole or not at all
        file: PathBuf,
        /// Leave tasks out: they mean nothing after a boot
        #[arg(long)]
        no_tasks: bool,
    },
    /// Show what is in a file, on any machine, without root
    Show {
        /// The file
        file: PathBuf,
    },
    /// Bring what is in a file into the policy that runs
    Restore {
        /// The file
        file: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// Begin with what is in this snapshot
    #[arg(long, value_name = "FILE")]
    pub restore: Option<PathBuf>,

    #[command(flatten)]
    pub policy: PolicyArgs,
}

#[derive(Debug, clap::Args)]
pub struct SwapArgs {
    #[command(flatten)]
    pub reattach: ReattachArgs,

    #[command(flatten)]
    pub policy: PolicyArgs,
}

#[derive(Debug, clap::Args)]
pub struct ReattachArgs {
    /// Where it cannot be done in place, detach what runs and attach again, with all state: every task spends a fraction
    /// of a second on the kernel's default scheduler
    #[arg(long)]
    pub allow_reattach: bool,
}

#[derive(Debug, clap::Args)]
pub struct PolicyArgs {
    /// The policy's binary
    pub binary: PathBuf,

    /// Its arguments
    #[arg(last = true)]
    pub args: Vec<String>,
}
