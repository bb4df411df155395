//! See `src/bpf/misbehave.bpf.c`. Its user-space half can misbehave too.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use clap::ValueEnum;
use scx_upgrade_sdk::RunArgs;

#[derive(Debug, Clone, Copy, ValueEnum)]
enum How {
    Well,
    Error,
    NoCpu,
    WrongKind,
    Drop,
    Forget,
    Starve,
    Refuse,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Half {
    /// Stands by as it should.
    Well,
    /// Ends.
    Exit,
    /// Answers to nothing.
    Hang,
    /// Fills its log.
    Print,
}

#[derive(Debug, Parser)]
struct Options {
    #[command(flatten)]
    run: RunArgs,
    /// What the BPF half does
    #[arg(long, default_value = "well")]
    how: How,
    /// After how long, milliseconds
    #[arg(long, default_value_t = 0)]
    after_ms: u64,
    /// The cgroup that is starved, or where nobody is born
    #[arg(long, default_value_t = 0)]
    cgroup: u64,
    /// What the user-space half does
    #[arg(long, default_value = "well")]
    half: Half,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let mut policy = scx_upgrade_sdk::policy_object!("misbehave");
    policy.set("how", &(options.how as u32));
    policy.set("after_ns", &(options.after_ms * 1_000_000));
    policy.set("cgroup_id", &options.cgroup);
    let half = options.half;
    policy.run(&options.run, |_| match half {
        Half::Well => {}
        Half::Exit => std::process::exit(3),
        Half::Hang => loop {
            std::thread::sleep(Duration::from_secs(1));
        },
        Half::Print => loop {
            println!("and on and on and on");
        },
    })
}
