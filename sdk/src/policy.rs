//! A policy as its author's program hands it over: the BPF object, who it is, what its settings are.

use std::borrow::Cow;
use std::path::Path;

use state_migrate::Btf;
use state_migrate::Schema;
use state_migrate::object as elf;

use crate::abi;
use crate::abi::SdkData;
use crate::error::Error;
use crate::error::Result;
use crate::error::Trying;
use crate::identity::Binary;
use crate::plain_file;
use crate::plain_file::MAX_BINARY;
use crate::typed::Value;
use crate::variables::Variables;

/// Section of a policy's binary that holds its BPF object, so that tools can read the policy without running it.
pub const SECTION: &str = ".scx.policy";
/// Section of a policy's binary that holds its version.
pub const VERSION_SECTION: &str = ".scx.version";

/// See the module. Make one with [`policy_object!`](crate::policy_object).
#[derive(Debug, Clone)]
pub struct Policy {
    object: Cow<'static, [u8]>,
    version: String,
    settings: Vec<(String, Vec<u8>)>,
    binary: Option<Binary>,
}

/// What can be known of a policy without a kernel.
#[derive(Debug, Clone)]
pub(crate) struct Inspected {
    pub schema: Schema,
    pub variables: Variables,
}

impl Policy {
    /// A policy from its compiled BPF object and the version of its crate.
    pub fn new(object: &'static [u8], version: &str) -> Policy {
        Policy {
            object: Cow::Borrowed(object),
            version: version.to_string(),
            settings: Vec::new(),
            binary: None,
        }
    }

    /// The policy inside a policy's binary, to look at it: its settings are those it was compiled with.
    ///
    /// # Errors
    /// The file cannot be read, or [`Error::NotAPolicy`].
    pub fn from_binary(path: &Path) -> Result<Policy> {
        let bytes = plain_file::read(path, MAX_BINARY).trying(format!("cannot read {}", path.display()))?;
        Policy::from_bytes(&bytes, path)
    }

    /// The same, of a binary that has been read. Its path is for messages.
    ///
    /// # Errors
    /// [`Error::NotAPolicy`]
    pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Policy> {
        let section = |name| elf::section(bytes, name).ok().flatten();
        let object = section(SECTION)
            .ok_or_else(|| Error::NotAPolicy {
                why: format!(
                    "{} is no binary built with the scx-upgrade SDK (it has no section {SECTION})",
                    path.display()
                ),
            })?
            .to_vec();
        let version = section(VERSION_SECTION).map(String::from_utf8_lossy).unwrap_or_default().into_owned();
        Ok(Policy { object: Cow::Owned(object), version, settings: Vec::new(), binary: None })
    }

    /// Say that it came from this process's own program.
    pub(crate) fn of_this_process(mut self) -> Policy {
        self.binary = Binary::of_this_process();
        self
    }

    /// The binary that it came from, if that is known.
    pub fn binary(&self) -> Option<&Binary> {
        self.binary.as_ref()
    }

    /// Set a `const volatile` global of the BPF half. It takes effect when the policy is loaded.
    pub fn set<T: Value>(&mut self, name: &str, value: &T) -> &mut Policy {
        self.settings.push((name.to_string(), value.to_bytes()));
        self
    }

    /// Give the policy another version than its crate's: for a crate that builds more than one.
    pub fn set_version(&mut self, version: &str) -> &mut Policy {
        self.version = version.to_string();
        self
    }

    /// The BPF object.
    pub fn object(&self) -> &[u8] {
        &self.object
    }

    /// Version of the policy's crate.
    pub fn version(&self) -> &str {
        &self.version
    }

    pub(crate) fn settings(&self) -> &[(String, Vec<u8>)] {
        &self.settings
    }

    /// Its state and queues.
    ///
    /// # Errors
    /// As for a swap: not a policy, or state that no layout can take.
    pub fn schema(&self) -> Result<Schema> {
        Ok(self.inspect()?.schema)
    }

    pub(crate) fn btf(&self) -> Result<Btf<'_>> {
        let raw = elf::btf_section(&self.object).map_err(|e| Error::NotAPolicy { why: e.to_string() })?;
        Ok(Btf::parse(raw)?)
    }

    /// The version of the host's ABI that it was built for.
    pub(crate) fn abi(&self) -> Result<u32> {
        let sdk = elf::section(&self.object, ".rodata.scxu_sdk")
            .map_err(|e| Error::NotAPolicy { why: e.to_string() })?
            .and_then(|bytes| {
                // A copy: nobody promises how the object is aligned.
                let mut sdk = SdkData::default();
                plain::copy_from_bytes(&mut sdk, bytes).ok().map(|()| sdk)
            })
            .ok_or_else(|| Error::NotAPolicy {
                why: "its BPF half does not include <scx_upgrade/policy.bpf.h>".to_string(),
            })?;
        Ok(sdk.abi)
    }

    pub(crate) fn inspect(&self) -> Result<Inspected> {
        let theirs = self.abi()?;
        if theirs != abi::ABI {
            return Err(Error::AbiMismatch { policy: theirs, host: abi::ABI });
        }
        let schema = Schema::of_policy(&self.object, &self.btf()?)?;
        Ok(Inspected { schema, variables: Variables::of(&self.object)? })
    }
}

/// The policy compiled by `scx_upgrade_build::policy(name, …)` in this crate's `build.rs`.
///
/// Expands to an expression of type [`Policy`](crate::Policy). The object goes into a section of its own, where tools
/// find it, and so does the version: the crate's, or the one that is given behind the name.
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
        $crate::Policy::new(&OBJECT, VERSION)
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
