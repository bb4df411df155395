//! {{project-name}}: options and statistics. The scheduler is in `bpf/policy.bpf.c`.

use std::process::ExitCode;

use clap::Parser;
use scx_upgrade_sdk::RunArgs;

scx_upgrade_sdk::policy!(policy);

/// A CPU scheduler that can be replaced while it runs
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    #[command(flatten)]
    run: RunArgs,

    /// Longest time on the CPU before the next task has its turn, microseconds
    #[arg(long, default_value_t = 5000, value_name = "US")]
    slice_us: u64,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let config = policy::Config { slice_ns: options.slice_us * 1000 };
    policy::policy(&config).run(&options.run, |running| match running.stats::<policy::Stats>() {
        Ok(stats) => println!("queued {}", stats.nr_queued),
        Err(error) => eprintln!("{error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::policy;

    /// The build checks state and queues, without a kernel.
    #[test]
    fn tasks_wait_in_one_queue() {
        assert_eq!(policy::QUEUES.len(), 1);
    }
}
