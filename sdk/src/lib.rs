//! Write a sched_ext scheduler that can be replaced while it runs.
//!
//! A *policy* is a scheduler as a Rust crate with its BPF half. A resident *host*, attached once, tail-calls into the
//! policy that is active; replacing it is one store, and every field of state that both versions name is carried
//! over. See the repository's README for the whole picture, and `schedulers/` for policies.
//!
//! A policy's `main.rs`:
//!
//! ```ignore
//! scx_upgrade_sdk::policy!(my_policy);
//!
//! #[derive(clap::Parser)]
//! struct Options {
//!     #[command(flatten)]
//!     run: scx_upgrade_sdk::RunArgs,
//!     #[arg(long, default_value_t = 5000)]
//!     slice_us: u64,
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     let options = Options::parse();
//!     let config = my_policy::Config { slice_ns: options.slice_us * 1000, ..Default::default() };
//!     my_policy::policy(&config).run(&options.run, |running| {
//!         println!("{:?}", running.stats::<my_policy::Stats>());
//!     })
//! }
//! ```
//!
//! Reading order for the curious: [`take_over`] is where a command comes in, [`swap`] is the swap, [`host`] what it acts on,
//! `bpf/host/main.bpf.c` the other side.

pub mod abi;
mod affinity;
pub mod attend;
mod bpf;
pub mod clock;
mod compiled;
pub mod counters;
mod crew;
pub mod deadline;
pub mod direct;
pub mod doctor;
pub mod effect;
pub mod ejection;
pub mod environment;
pub mod error;
pub mod exit;
pub mod exits;
pub mod folder;
pub mod guard;
pub mod history;
mod hold;
pub mod host;
pub mod host_data;
pub mod identity;
pub mod info;
pub mod kernel;
mod kernel_btf;
mod kernel_log;
pub mod last_good;
mod launcher;
mod libbpf_log;
pub mod load;
pub mod lock;
pub mod logger;
pub mod machine;
pub mod obstacles;
pub mod ops;
pub mod pins;
pub mod plain_file;
pub mod policy;
mod polite;
pub mod prospect;
pub mod queues;
pub mod reattach;
pub mod recover;
pub mod registry;
pub mod report;
pub mod rescue;
pub mod run;
mod scopes;
pub mod snapshot;
mod start;
pub mod status;
mod steps;
pub mod stop;
mod stranger;
pub mod swap;
mod sweep;
pub mod take_over;
pub mod terms;
pub mod topology;
pub mod typed;
pub mod urgent;
mod variables;

pub use error::Error;
pub use error::Result;
pub use policy::Policy;
pub use run::RunArgs;
pub use run::Running;
pub use scopes::record_sizes;
pub use state_migrate::Scope;
