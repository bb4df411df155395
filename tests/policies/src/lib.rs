//! What the test policies' programs share.

use std::process::ExitCode;

use clap::Parser;
use scx_upgrade_sdk::Policy;
use scx_upgrade_sdk::RunArgs;

#[derive(Debug, Parser)]
struct Options {
    #[command(flatten)]
    run: RunArgs,
}

/// Run the policy.
pub fn main(policy: Policy) -> ExitCode {
    policy.run(&Options::parse().run, |_| {})
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use scx_upgrade_sdk::typed::Fields as _;
    use state_migrate::Schema;
    use state_migrate::Scope;

    scx_upgrade_sdk::policy!(two);

    /// What two sources define is in one object, once: state and queues that both declare, and what one uses of the other.
    #[test]
    fn a_policy_of_two_sources_is_one_object() {
        let schema = Schema::from_object(include_bytes!(concat!(env!("OUT_DIR"), "/two.bpf.o"))).unwrap();
        let columns: Vec<_> = schema.scopes[&Scope::Task].iter().map(|c| c.name.as_str()).collect();
        assert_eq!(columns, ["enqueued", "ran"]);
        let queues: Vec<_> = schema.queues.iter().map(|q| q.name.as_str()).collect();
        assert_eq!(queues, ["two_queue"]);
        // The other source's counter, with the type that it has there.
        let mut read = Vec::new();
        let stats = two::Stats::read(&mut |name| {
            read.push(name.to_owned());
            Some(7u64.to_ne_bytes().to_vec())
        });
        assert_eq!(stats.unwrap().nr_placed, 7);
        assert_eq!(read, ["nr_placed"]);
    }
}
