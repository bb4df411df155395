//! What a policy's process and the `scx-upgrade` engine tell each other, as JSON.
//!
//! The engine asks a policy's binary once to describe itself ([`DESCRIBE`]), loads the policy, and starts the binary as the
//! policy's *frontend* ([`FRONTEND`]), which reads maps and prints statistics. Either side may be of another version than the
//! other: readers ignore fields that they do not know, and new fields have defaults.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;

/// The option that makes a policy's binary print a [`Description`] on standard output and exit.
pub const DESCRIBE: &str = "--describe";
/// The option that makes a policy's binary the frontend of a policy that runs. Its value is the number of an inherited
/// descriptor, from which the binary reads a [`Frontend`].
pub const FRONTEND: &str = "--frontend";
/// The verb of `scx-upgrade` that a policy's binary executes when a person starts it by hand.
pub const TAKE_OVER: &str = "take-over";

/// What a policy's binary says of itself, given its arguments.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// Version of the policy.
    pub version: String,
    /// The `const volatile` globals of its BPF half that its arguments set, as bytes in hexadecimal, by name.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
}

/// What a frontend needs to read its policy's maps and to notice that the policy was superseded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frontend {
    /// Path of the policy's binary: it may be executed from a descriptor, and goes by this name in `ps`.
    #[serde(default)]
    pub path: String,
    /// Number of this load of the policy. `0` where the policy is attached directly, without the host.
    pub load: u64,
    /// Global variables of the BPF half, by name.
    pub variables: BTreeMap<String, Place>,
    /// The records of each scope: `task`, `cgroup`, `cpu`, `global`.
    pub scopes: BTreeMap<String, Records>,
    /// The host's shared memory.
    pub memory: Memory,
    /// Path of the file that a guard locks while it may still roll back. The frontend then stays although its policy was superseded.
    #[serde(default)]
    pub probation: Option<String>,
    /// An inherited descriptor that keeps the scheduler attached while it is open.
    #[serde(default)]
    pub link: Option<i32>,
    /// Other inherited descriptors: of maps that no program uses, and that would be gone without them.
    #[serde(default)]
    pub inherited: Vec<i32>,
}

/// Where a value is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The kernel's id of the map.
    pub map: u32,
    /// Offset in the map's one value, in bytes.
    pub offset: usize,
    /// Bytes.
    pub size: usize,
}

/// The records of a scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Records {
    /// The kernel's id of the map.
    pub map: u32,
    /// First byte and length of each column that the policy names.
    pub columns: BTreeMap<String, (usize, usize)>,
}

/// The host's shared memory: the kernel's id of the map, and where fields stand in its one value, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// The kernel's id of the map.
    pub map: u32,
    /// Size of the value.
    pub size: usize,
    /// The 8-byte word that names the active slot: the slot in its lowest byte, the generation in the three bytes above it.
    pub active: usize,
    /// The number of the load in each slot, 8 bytes each.
    pub loads: usize,
    /// How the kernel ended the scheduler, 8 bytes; 0 while it runs.
    pub exit_kind: usize,
    /// The values of `exit_kind` that mean an orderly detach. Every other one is an ejection.
    pub detached: Vec<u64>,
    /// Why, as zero-terminated text.
    pub exit_reason: usize,
    /// The message, as zero-terminated text.
    pub exit_msg: usize,
}
