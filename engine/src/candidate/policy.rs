//! A policy as the engine has it: the BPF object out of its binary, its settings, and where the binary is.

use std::borrow::Cow;
use std::path::Path;

use scx_upgrade_protocol::Description;
use state_migrate::Btf;
use state_migrate::Schema;
use state_migrate::object as elf;

use crate::error::Error;
use crate::error::Result;
use crate::error::Trying;
use crate::host::abi;
use crate::host::abi::SdkData;
use crate::kernel::variables::Variables;
use crate::os::bounded_read;
use crate::os::bounded_read::MAX_BINARY;
use crate::os::identity::Binary;

/// Section of a policy's binary that holds its BPF object, so that tools can read the policy without running it.
pub const SECTION: &str = ".scx.policy";
/// Section of a policy's binary that holds its version.
pub const VERSION_SECTION: &str = ".scx.version";

/// See the module.
#[derive(Debug, Clone)]
pub struct Policy {
    object: Cow<'static, [u8]>,
    version: String,
    settings: Vec<(String, Vec<u8>)>,
    binary: Option<Binary>,
    args: Vec<String>,
    frontend_pid: u32,
}

/// What can be known of a policy without a kernel.
#[derive(Debug, Clone)]
pub struct Inspected {
    /// Its state and queues.
    pub schema: Schema,
    /// Its global variables.
    pub variables: Variables,
}

impl Policy {
    /// A policy from its compiled BPF object and the version of its crate.
    pub fn new(object: &'static [u8], version: &str) -> Policy {
        Policy::of(Cow::Borrowed(object), version.to_string())
    }

    /// The policy inside a policy's binary, to look at it: its settings are those it was compiled with.
    ///
    /// # Errors
    /// The file cannot be read, or [`Error::NotAPolicy`].
    pub fn from_binary(path: &Path) -> Result<Policy> {
        let bytes = bounded_read::read(path, MAX_BINARY).trying(format!("cannot read {}", path.display()))?;
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
        Ok(Policy::of(Cow::Owned(object), version))
    }

    /// A policy of any bytes.
    #[cfg(test)]
    pub(crate) fn of_object(object: Vec<u8>, version: &str) -> Policy {
        Policy::of(Cow::Owned(object), version.to_string())
    }

    fn of(object: Cow<'static, [u8]>, version: String) -> Policy {
        Policy { object, version, settings: Vec::new(), binary: None, args: Vec::new(), frontend_pid: 0 }
    }

    /// The same policy as its binary, started with these arguments, describes it.
    ///
    /// # Errors
    /// [`Error::NotDescribed`] where a setting is not what it must be.
    pub fn described(mut self, description: &Description, binary: Binary, args: &[String]) -> Result<Policy> {
        let bytes = |(name, hex): (&String, &String)| {
            let why = || format!("the value of its setting {name} is {hex}");
            let bytes = unhex(hex).ok_or_else(|| Error::NotDescribed {
                path: binary.path.clone(),
                why: why(),
                usage: false,
            })?;
            Ok((name.clone(), bytes))
        };
        self.settings = description.settings.iter().map(bytes).collect::<Result<_>>()?;
        self.version.clone_from(&description.version);
        self.args = args.to_vec();
        self.binary = Some(binary);
        Ok(self)
    }

    /// The same policy, out of this binary.
    #[must_use]
    pub fn from(mut self, binary: Binary) -> Policy {
        self.binary = Some(binary);
        self
    }

    /// This process becomes the policy's frontend once the policy runs, or is it already.
    #[must_use]
    pub fn with_frontend(mut self, pid: u32) -> Policy {
        self.frontend_pid = pid;
        self
    }

    /// The binary that it came from, if that is known.
    pub fn binary(&self) -> Option<&Binary> {
        self.binary.as_ref()
    }

    /// What its binary was given.
    pub(crate) fn args(&self) -> &[String] {
        &self.args
    }

    /// The binary and its arguments.
    pub(crate) fn command_line(&self) -> Vec<String> {
        let path = self.binary.as_ref().map(|binary| binary.path.to_string_lossy().into_owned());
        path.into_iter().chain(self.args.iter().cloned()).collect()
    }

    /// The process that becomes its frontend; 0 where none is known before the commit.
    pub(crate) fn frontend_pid(&self) -> u32 {
        self.frontend_pid
    }

    /// Gives the policy settings of its BPF half as bytes: for tests and measurements, which have no binary to describe it.
    pub fn set_bytes(&mut self, name: &str, value: &[u8]) -> &mut Policy {
        self.settings.push((name.to_string(), value.to_vec()));
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
        let btf = self.btf()?;
        let schema = Schema::of_policy(&self.object, &btf)?;
        Ok(Inspected { schema, variables: Variables::of(&self.object)? })
    }
}

fn unhex(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}
