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
//! A policy's binary changes nothing itself. The command `scx-upgrade` reads the BPF object out of it, asks it for its settings,
//! loads and commits it, and then starts it as the policy's *frontend*, which prints statistics until the policy is superseded.

mod by_hand;
mod frontend;
mod policy;
mod running;
pub mod typed;

pub use by_hand::RunArgs;
pub use policy::Policy;
pub use running::Error;
pub use running::Running;
pub use typed::Scope;
