//! A BPF object: opened, given maps that exist already, and loaded.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;

use libbpf_rs::MapHandle;
use libbpf_rs::Object;
use libbpf_rs::ObjectBuilder;
use libbpf_rs::OpenObject;

use crate::error::Error;
use crate::error::Result;
use crate::error::Trying;
use crate::kernel::libbpf_log;

/// The probe that the scx headers put into every object. It wants to be attached, and nothing here needs it.
pub(crate) const SCX_PROBE: &str = "scx_lib_init_probe";

/// Opens an object of this crate's that is no scheduler.
pub(crate) fn open_tool(object: &'static [u8]) -> Result<OpenObject> {
    open(object, None)
}

pub(crate) fn open(object: &[u8], btf: Option<&BtfFile>) -> Result<OpenObject> {
    let mut builder = ObjectBuilder::default();
    // Names the object's maps in the kernel, for bpftool.
    builder.name("scx_policy").trying("cannot name the object")?;
    if let Some(btf) = btf {
        builder.btf_custom_path(btf.path()).trying("cannot name the BTF")?;
    }
    let (open, log) = libbpf_log::captured(|| builder.open_memory(object));
    open.map_err(|e| Error::NotAPolicy { why: format!("libbpf cannot open its BPF half: {e}\n{log}") })
}

/// Makes its maps of these names the ones that exist already.
pub(crate) fn share(open: &mut OpenObject, shared: &[(&str, &MapHandle)]) -> Result<()> {
    for mut map in open.maps_mut() {
        let name = map.name().to_string_lossy().into_owned();
        if let Some((_, host)) = shared.iter().find(|(n, _)| *n == name) {
            map.reuse_fd(host.as_fd()).trying(format!("cannot share the host's map {name}"))?;
        }
    }
    Ok(())
}

/// Loads an object. `what` names it in messages.
pub(crate) fn load(mut open: OpenObject, what: &str) -> Result<Object> {
    for mut program in open.progs_mut().filter(|p| p.name() == SCX_PROBE) {
        program.set_autoload(false);
    }
    let (object, log) = libbpf_log::captured(|| open.load());
    object.map_err(|source| Error::Load { policy: what.to_string(), source, log })
}

/// Load those of an object's SYSCALL programs that `wanted` wants, on the host's maps.
pub(crate) fn load_programs(
    object: &[u8],
    shared: &[(&str, &MapHandle)],
    wanted: impl Fn(&str) -> bool,
) -> Result<Object> {
    let mut open = self::open(object, None)?;
    share(&mut open, shared)?;
    for mut program in open.progs_mut() {
        let wants = wanted(&program.name().to_string_lossy());
        program.set_autoload(wants);
    }
    let (object, log) = libbpf_log::captured(|| open.load());
    object.map_err(|source| Error::Load { policy: "the sweep".to_string(), source, log })
}

/// Enough of a file for libbpf, which takes BTF by path only: anonymous memory, seen through /proc.
#[derive(Debug)]
pub(crate) struct BtfFile(pub File);

impl BtfFile {
    pub(crate) fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.0.as_raw_fd())
    }
}
