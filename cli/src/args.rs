//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use clap::Subcommand;
use clap_complete::Shell;
use scx_upgrade_engine::exit::Exit;
use scx_upgrade_engine::host::registry::RollbackTarget;
use scx_upgrade_engine::observe::ejection::Limits;

use crate::probation::ProbationArgs;

/// Replace the running sched_ext scheduler in place, with every task's state, and take it back
#[derive(Debug, Parser)]
#[command(name = "scx-upgrade", version, propagate_version = true, long_about = long_about())]
pub struct Args {
    /// Print one JSON document instead of text
    #[arg(long, global = true)]
    pub json: bool,

    /// Print nothing but errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Say what is done besides; twice: all that libbpf says
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,

    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Start a policy where none is running
    Run(RunArgs),
    /// Replace the running policy, in place
    #[command(visible_alias = "switch")]
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
    /// What a policy's binary executes that is started by hand
    #[command(hide = true)]
    TakeOver(TakeOverArgs),
    /// Make the policy before it run again; it is still loaded
    #[command(visible_alias = "undo")]
    Rollback(RollbackArgs),
    /// Bring back what the kernel took off, with its state
    Recover(RecoverArgs),
    /// What the running policy knows, to a file and back
    #[command(subcommand)]
    Snapshot(SnapshotVerb),
    /// Show what runs and what a rollback would go to
    Status(StatusArgs),
    /// Show the policies that are loaded, and which of them a rollback can go to
    List,
    /// Show what is in a policy's binary, on any machine, without root
    Info {
        /// The policy's binary
        binary: PathBuf,
    },
    /// Show what was done: each start, swap, rollback and stop, by whom, and how it ended
    History(HistoryArgs),
    /// End the scheduler: tasks go back to the kernel's default, state is forgotten
    Stop(StopArgs),
    /// Look for all that could stand in the way, and say what to do about it
    Doctor,
    /// Print a shell's completions
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print a manual page: of the whole, or of one verb
    Man {
        /// The verb
        verb: Option<String>,
    },
}

impl Verb {
    /// Does it change what runs, or what that knows?
    pub fn changes(&self) -> bool {
        match self {
            Verb::Run(RunArgs { change, .. })
            | Verb::Swap(SwapArgs { change, .. })
            | Verb::Rollback(RollbackArgs { change, .. })
            | Verb::Stop(StopArgs { change, .. }) => !change.dry_run,
            Verb::Recover(_)
            | Verb::TakeOver(_)
            | Verb::Snapshot(SnapshotVerb::Save { .. } | SnapshotVerb::Restore { .. }) => true,
            _ => false,
        }
    }
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
    #[arg(long, value_name = "FILE", conflicts_with = "no_carry")]
    pub restore: Option<PathBuf>,

    /// Where a sched_ext scheduler runs that scx-upgrade did not start: take that off once this one is loaded and verified,
    /// and put it back if this one cannot be attached
    #[arg(long)]
    pub replace: bool,

    /// Omit optional ops and flags that this policy does not use; each costs time on every context switch. A policy that
    /// uses more then takes `swap --allow-reattach`
    #[arg(long, alias = "lean")]
    pub minimal_ops: bool,

    #[command(flatten)]
    pub change: ChangeArgs,

    #[command(flatten)]
    pub policy: PolicyArgs,
}

#[derive(Debug, clap::Args)]
pub struct SwapArgs {
    #[command(flatten)]
    pub reattach: ReattachArgs,

    /// Also where the same binary runs with the same arguments
    #[arg(long)]
    pub again: bool,

    /// Draw the wake-up delays of the seconds around the swap into this file (SVG)
    #[arg(long, value_name = "FILE")]
    pub picture: Option<PathBuf>,

    #[command(flatten)]
    pub probation: ProbationArgs,

    #[command(flatten)]
    pub change: ChangeArgs,

    #[command(flatten)]
    pub policy: PolicyArgs,
}

/// As the options of a policy's binary: see `scx_upgrade_sdk::RunArgs`.
#[derive(Debug, clap::Args)]
pub struct TakeOverArgs {
    #[arg(long)]
    pub direct: bool,
    #[arg(long)]
    pub restore: Option<PathBuf>,
    #[arg(long)]
    pub replace: bool,
    #[arg(long)]
    pub minimal_ops: bool,
    #[arg(long)]
    pub no_carry: bool,
    #[command(flatten)]
    pub reattach: ReattachArgs,
    #[arg(long, default_value_t = 10)]
    pub timeout: u64,
    pub binary: PathBuf,
    #[arg(last = true)]
    pub args: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub struct RollbackArgs {
    /// To the policy of this generation, while it is loaded; `list` shows which are
    #[arg(long, value_name = "GENERATION")]
    pub to: Option<u32>,

    #[command(flatten)]
    pub reattach: ReattachArgs,

    #[command(flatten)]
    pub change: ChangeArgs,
}

impl RollbackArgs {
    /// Where it goes.
    pub fn aim(&self) -> RollbackTarget {
        self.to.map_or(RollbackTarget::Before, RollbackTarget::Generation)
    }
}

#[derive(Debug, clap::Args)]
pub struct RecoverArgs {
    /// Stay, and bring back what the kernel takes off from now on
    #[arg(long)]
    pub watch: bool,

    /// Where nothing runs at first, start the policy that ran well last, with what it knew: for after a boot
    #[arg(long, requires = "watch")]
    pub boot: bool,

    /// Also where someone at the console took it off, by sysrq and S, or by its link
    #[arg(long, requires = "watch")]
    pub always: bool,

    /// A policy that has run for so long is good: it is brought back itself, and started after a boot
    #[arg(long, value_name = "TIME", default_value = "1m", requires = "watch", value_parser = humantime::parse_duration)]
    pub good_after: Duration,

    /// Give up after so many recoveries within ten minutes
    #[arg(long, value_name = "N", default_value_t = Limits::default().at_most, requires = "watch")]
    pub at_most: usize,

    /// Start the policy's own process again where it ends; the policy runs on without it meanwhile
    #[arg(long, requires = "watch")]
    pub attend: bool,

    /// How often to save what the policy knows, for after a boot; 0s: never
    #[arg(long, value_name = "TIME", default_value = "10m", requires = "watch", value_parser = humantime::parse_duration)]
    pub save_every: Duration,

    /// Seconds to wait for another command that is changing the scheduler
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub timeout: u64,
}

impl RecoverArgs {
    /// When to do what.
    pub fn limits(&self) -> Limits {
        Limits { good_after: self.good_after, at_most: self.at_most, ..Limits::default() }
    }
}

#[derive(Debug, clap::Args)]
pub struct StopArgs {
    #[command(flatten)]
    pub change: ChangeArgs,
}

#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    /// Go on showing it: a live view on a terminal, which `q` ends, else a block each time
    #[arg(long)]
    pub watch: bool,

    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, requires = "watch", value_parser = seconds)]
    pub interval: f64,

    /// End after so many looks
    #[arg(long, value_name = "N", requires = "watch")]
    pub count: Option<u64>,
}

#[derive(Debug, clap::Args)]
pub struct HistoryArgs {
    /// Show the latest so many
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    pub latest: usize,

    /// Show all that is known of each
    #[arg(long)]
    pub long: bool,
}

/// What every verb takes that changes the scheduler.
#[derive(Debug, clap::Args)]
pub struct ChangeArgs {
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Seconds to wait for another command that is changing the scheduler
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub timeout: u64,
}

impl ChangeArgs {
    /// How long to wait for another command.
    pub fn patience(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }
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
    /// Carry nothing over from what runs or ran: the policy's state starts anew
    #[arg(long)]
    pub no_carry: bool,

    /// Where systemd runs, start the policy's process by itself all the same, and not as a unit
    #[arg(long)]
    pub no_unit: bool,

    /// The policy's binary
    pub binary: PathBuf,

    /// Its arguments
    #[arg(last = true)]
    pub args: Vec<String>,
}

fn long_about() -> String {
    let about = "Replace the running sched_ext scheduler in place, with every task's state, and take it back";
    format!("{about}\n\n{}", Exit::list())
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("give a number of seconds from 0.1 to 3600".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::Command;
    use clap::CommandFactory;

    use super::Args;

    const CHAPTER: &str = include_str!("../../docs/operator.md");

    /// The options that a text names.
    fn options_in(text: &str) -> BTreeSet<String> {
        let ends = |c: char| !(c.is_ascii_alphanumeric() || c == '-');
        text.split(ends).filter(|word| word.len() > 2 && word.starts_with("--")).map(str::to_owned).collect()
    }

    /// The options of a command that `--help` shows and that are not those of every verb.
    fn options_of(command: &Command) -> BTreeSet<String> {
        let own = command.get_arguments().filter(|a| !a.is_hide_set() && !a.is_global_set());
        let longs = own.filter_map(|a| a.get_long()).filter(|long| !["help", "version"].contains(long));
        longs.map(|long| format!("--{long}")).collect()
    }

    #[test]
    fn each_row_of_the_chapter_for_operators_has_the_options_of_its_verb() {
        let chapter = CHAPTER.split_once("## The verbs").unwrap().1;
        let (verbs, rest) = chapter.split_once("With each verb that changes the scheduler:").unwrap();
        let of_all = options_in(rest.split_once("What is behind `--`").unwrap().0);
        assert!(of_all.contains("--dry-run"), "{of_all:?}");
        let mut args = Args::command();
        args.build();
        let mut seen = 0;
        for command in args.get_subcommands().filter(|c| c.get_name() != "help" && !c.is_hide_set()) {
            let (name, under) = (command.get_name(), command.get_subcommands().collect::<Vec<_>>());
            let leaves: Vec<(String, &Command)> = match under.is_empty() {
                true => vec![(name.to_owned(), command)],
                false => under
                    .into_iter()
                    .filter(|c| c.get_name() != "help")
                    .map(|c| (format!("{name} {}", c.get_name()), c))
                    .collect(),
            };
            for (name, command) in leaves {
                let is_of = |row: &&str| {
                    let rest = row.strip_prefix(&format!("| `{name}"));
                    rest.is_some_and(|rest| rest.starts_with(['`', ' ']))
                };
                let row = verbs.lines().find(is_of).unwrap_or_else(|| panic!("no row for {name}"));
                let missing: Vec<_> = options_of(command)
                    .into_iter()
                    .filter(|option| !options_in(row).contains(option) && !of_all.contains(option))
                    .collect();
                assert!(missing.is_empty(), "docs/operator.md: the row of {name} lacks {missing:?}");
                let known = options_of(command);
                let stale: Vec<_> = options_in(row).into_iter().filter(|o| !known.contains(o)).collect();
                assert!(stale.is_empty(), "docs/operator.md: {name} has no {stale:?}");
                seen += 1;
            }
        }
        assert!(seen > 12, "only {seen} rows were compared");
    }
}
