//! The options of every policy's binary, and what the binary does that is not a frontend: it describes itself to `scx-upgrade`,
//! or hands over to `scx-upgrade` where a person started it.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::ExitCode;

use scx_upgrade_protocol::DESCRIBE;
use scx_upgrade_protocol::Description;
use scx_upgrade_protocol::TAKE_OVER;

/// What `scx-upgrade` exits with where a command line makes no sense.
const USAGE: u8 = 2;
/// The engine's command. It is looked for beside the policy's binary and in `PATH`.
const COMMAND: &str = "scx-upgrade";

/// Options that every policy's binary has. Flatten them into its own.
#[derive(Debug, Clone, clap::Args)]
pub struct RunArgs {
    /// Attach without the host: nothing is carried, and Ctrl-C ends the scheduler
    #[arg(long)]
    pub direct: bool,

    /// Detach and attach again, with all state, where the policy cannot be swapped in in place
    #[arg(long)]
    pub allow_reattach: bool,

    /// Start with the state of a snapshot, where no scheduler runs yet
    #[arg(long, value_name = "FILE", conflicts_with = "direct")]
    pub restore: Option<PathBuf>,

    /// Replace a sched_ext scheduler that scx-upgrade did not start
    #[arg(long, conflicts_with = "direct")]
    pub replace: bool,

    /// Omit optional ops and flags that this policy does not use, where no scheduler runs yet; each costs time on every context switch
    #[arg(long, alias = "lean", conflicts_with = "direct")]
    pub minimal_ops: bool,

    /// Carry nothing over: the state of this policy starts with its defaults
    #[arg(long, conflicts_with = "restore")]
    pub no_carry: bool,

    /// Seconds to wait for another command that is changing the scheduler
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    pub lock_timeout: u64,

    /// Seconds between lines of statistics; 0 for none
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    pub stats: u64,

    /// Print what scx-upgrade needs to know, as JSON, and exit
    #[arg(long, hide = true)]
    pub(crate) describe: bool,

    /// Be the frontend of the policy that runs, as this descriptor says
    #[arg(long, hide = true, value_name = "DESCRIPTOR")]
    pub(crate) frontend: Option<i32>,
}

impl RunArgs {
    /// The options that tell how the policy takes over, as `scx-upgrade` has them.
    fn for_command(&self) -> Vec<OsString> {
        let flag = |on: bool, name: &str| on.then(|| OsString::from(name));
        let restore =
            self.restore.iter().flat_map(|file| ["--restore".into(), file.clone().into_os_string()]);
        let flags = [
            flag(self.direct, "--direct"),
            flag(self.allow_reattach, "--allow-reattach"),
            flag(self.replace, "--replace"),
            flag(self.minimal_ops, "--minimal-ops"),
            flag(self.no_carry, "--no-carry"),
        ];
        flags.into_iter().flatten().chain(restore).collect()
    }
}

/// Prints what the engine needs to know.
pub(crate) fn describe(args: &RunArgs, description: &Description) -> ExitCode {
    if args.direct {
        return usage("--direct attaches without the host: start the policy's binary by itself");
    }
    if let Some(option) = args.for_command().first() {
        return usage(&format!(
            "{} is an option of {COMMAND}: give it before the policy's binary",
            option.to_string_lossy()
        ));
    }
    // Its fields are text: it has a form as JSON.
    let json = serde_json::to_string(description).unwrap_or_default();
    match writeln!(io::stdout(), "{json}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn usage(message: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "error: {message}");
    ExitCode::from(USAGE)
}

/// Hands over to `scx-upgrade`, which becomes this process.
pub(crate) fn take_over(args: &RunArgs) -> ExitCode {
    let program = match env::current_exe() {
        Ok(program) => program,
        Err(error) => return usage(&format!("cannot find this program's own file: {error}")),
    };
    let mut command = Command::new(find_command(&program));
    command.arg(TAKE_OVER).args(args.for_command());
    command.arg("--timeout").arg(args.lock_timeout.to_string()).arg(&program).arg("--");
    command.args(policy_args(env::args_os().skip(1).collect()));
    let error = command.exec();
    let message = format!(
        "cannot start {COMMAND}, which puts a policy in charge: {error}; install it, or put it beside {}",
        program.display()
    );
    let _ = writeln!(io::stderr(), "error: {message}");
    ExitCode::FAILURE
}

/// Beside the policy's binary first: what was built together belongs together.
fn find_command(program: &Path) -> PathBuf {
    let beside = program.with_file_name(COMMAND);
    if is_as_good(&beside, program) { beside } else { PathBuf::from(COMMAND) }
}

/// Is it a file of root's or of the owner of the policy's binary, in a folder where not everybody can put one? A group that can
/// write there can also replace the policy.
fn is_as_good(beside: &Path, program: &Path) -> bool {
    let of = |path: &Path| fs::metadata(path).ok();
    let (Some(command), Some(policy)) = (of(beside), of(program)) else { return false };
    let folder = beside.parent().and_then(of);
    command.is_file()
        && [0, policy.uid()].contains(&command.uid())
        && folder.is_some_and(|folder| folder.mode() & 0o002 == 0)
}

/// The command line without the options that tell how the policy takes over. `--stats` stays. Options are recognised by their
/// definition in [`RunArgs`], in each form that clap takes.
fn policy_args(args: Vec<OsString>) -> Vec<OsString> {
    let options = <RunArgs as clap::Args>::augment_args(clap::Command::new("policy"));
    let is = |option: &clap::Arg, name: &str| {
        option.get_long() == Some(name)
            || option.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
    };
    let find = |name: &str| options.get_arguments().find(|option| is(option, name));
    let (mut own, mut rest) = (Vec::new(), args.into_iter());
    while let Some(arg) = rest.next() {
        if arg == "--" {
            own.push(arg);
            own.extend(rest);
            break;
        }
        let text = arg.to_string_lossy().into_owned();
        let text = text.strip_prefix("--").unwrap_or_default();
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        match find(name).filter(|_| !name.is_empty() && name != "stats" && name != &DESCRIBE[2..]) {
            None => own.push(arg),
            Some(option) if option.get_action().takes_values() && value.is_none() => drop(rest.next()),
            Some(_) => {}
        }
    }
    own
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> String {
        let args = policy_args(line.split(' ').map(OsString::from).collect());
        args.iter().map(|arg| arg.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn options_of_the_sdk_are_no_arguments_of_the_policy() {
        let own = "--slice-us 100";
        for how in [
            "--restore f",
            "--restore=f",
            "--no-carry --allow-reattach --replace --lean --minimal-ops",
            "--direct",
            "--lock-timeout 5",
            "--lock-timeout=5",
        ] {
            assert_eq!(of(&format!("{how} {own}")), own);
            assert_eq!(of(&format!("{own} {how}")), own);
        }
        assert_eq!(of("--stats 2 --restore f --slice-us=1 --stats=3"), "--stats 2 --slice-us=1 --stats=3");
        // What only looks like one.
        let kept = "--restored --leaner=1 -x --direction up --";
        assert_eq!(of(kept), kept);
        assert_eq!(of("a --lean -- --lean --restore"), "a -- --lean --restore");
    }
}
