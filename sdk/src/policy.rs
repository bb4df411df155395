//! A policy as its own binary sees it: the compiled BPF half, and the settings that the command line gave.

use std::collections::BTreeMap;
use std::process::ExitCode;

use scx_upgrade_protocol::Description;

use crate::RunArgs;
use crate::Running;
use crate::by_hand;
use crate::frontend;
use crate::typed::Value;

/// See the module.
#[derive(Debug, Clone)]
pub struct Policy {
    description: Description,
}

impl Policy {
    /// A policy of this version. The BPF half is in a section of the binary: see [`policy_object!`](crate::policy_object!).
    pub fn new(version: &str) -> Policy {
        Policy { description: Description { version: version.to_string(), settings: BTreeMap::new() } }
    }

    /// Sets a `const volatile` global of the BPF half. It takes effect when the policy is loaded.
    pub fn set<T: Value>(&mut self, name: &str, value: &T) -> &mut Policy {
        let hex = value.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        self.description.settings.insert(name.to_string(), hex);
        self
    }

    /// Gives the policy another version than its crate's: for a crate that builds more than one.
    pub fn set_version(&mut self, version: &str) -> &mut Policy {
        self.description.version = version.to_string();
        self
    }

    /// Does what the binary was started for, and returns the exit code of the process.
    ///
    /// - Started by a person: hands over to `scx-upgrade`, which puts the policy in charge and comes back to this binary as
    ///   its frontend.
    /// - Started as the frontend: calls `statistics` every `--stats` seconds until the policy is superseded or a signal
    ///   comes. A panic in `statistics` ends the statistics, not the process: `println!` panics where output cannot be written.
    pub fn run(&self, args: &RunArgs, statistics: impl FnMut(&Running)) -> ExitCode {
        if args.describe {
            return by_hand::describe(args, &self.description);
        }
        match args.frontend {
            Some(descriptor) => frontend::run(descriptor, args.stats, statistics),
            None => by_hand::take_over(args),
        }
    }
}

/// The policy compiled by `scx_upgrade_build::policy(name, …)` in this crate's `build.rs`.
///
/// Expands to an expression of type [`Policy`](crate::Policy). The object goes into a section of its own, where `scx-upgrade`
/// finds it, and so does the version: the crate's, or the one that is given behind the name.
#[macro_export]
macro_rules! policy_object {
    ($name:literal) => {
        $crate::policy_object!($name, env!("CARGO_PKG_VERSION"))
    };
    ($name:literal, $version:expr) => {{
        const VERSION: &str = $version;
        #[used]
        #[unsafe(link_section = ".scx.version")]
        static VERSION_BYTES: [u8; VERSION.len()] = match VERSION.as_bytes().first_chunk() {
            Some(bytes) => *bytes,
            None => [0; VERSION.len()],
        };
        const BYTES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".bpf.o"));
        #[used]
        #[unsafe(link_section = ".scx.policy")]
        static OBJECT: [u8; BYTES.len()] = *include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".bpf.o"));
        $crate::Policy::new(VERSION)
    }};
}

/// The module that `scx_upgrade_build::policy("name", …)` wrote in this crate's `build.rs`.
///
/// It has `Config`, the `const volatile` globals of the BPF half, with what they were compiled with as default; `Stats`,
/// its other globals; `Task`, `Cgroup`, `Cpu` and `Global`, the columns of the scopes that it has state in; and
/// `policy(&Config)`, which makes the [`Policy`](crate::Policy). Its version is the crate's, or the one that is given
/// behind the name: `policy!(mine_v2, "2.0.0")`.
#[macro_export]
macro_rules! policy {
    ($name:ident) => {
        $crate::policy!($name, env!("CARGO_PKG_VERSION"));
    };
    ($name:ident, $version:expr) => {
        #[allow(dead_code, clippy::derivable_impls, clippy::unreadable_literal)]
        mod $name {
            const POLICY_VERSION: &str = $version;
            include!(concat!(env!("OUT_DIR"), "/", stringify!($name), ".rs"));
        }
    };
}
