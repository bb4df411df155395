//! The few BPF system calls that libbpf-rs has no safe call for.

use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::path::Path;

use libbpf_rs::MapCore;
use libbpf_rs::MapFlags;
use libbpf_rs::MapHandle;
use libbpf_rs::libbpf_sys;
use plain::Plain;

use crate::error::Error;
use crate::error::Result;
use crate::error::Trying;
use crate::kernel::messages::KernelLog;

/// Run a SYSCALL program with `args`, which it may change, and give back what it returned.
pub(crate) fn run<T: Plain>(program: &impl AsFd, what: &str, args: &mut T) -> Result<i32> {
    // SAFETY: Plain types have no padding that matters and take any bytes.
    let ctx = unsafe { plain::as_mut_bytes(args) };
    let mut opts = libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>() as _,
        ctx_in: ctx.as_mut_ptr().cast(),
        ctx_size_in: ctx.len() as u32,
        ..Default::default()
    };
    // SAFETY: the descriptor is open, and `ctx` outlives the call: for SYSCALL programs the kernel writes it back.
    let ret = unsafe { libbpf_sys::bpf_prog_test_run_opts(program.as_fd().as_raw_fd(), &mut opts) };
    if ret < 0 {
        return Err(io::Error::from_raw_os_error(-ret)).trying(format!("cannot run the host's {what}"));
    }
    Ok(opts.retval as i32)
}

/// Attach a struct_ops map by a link. One that was detached can be attached again.
pub(crate) fn attach_struct_ops(map: &MapHandle, what: &str) -> Result<OwnedFd> {
    let mut log = KernelLog::mark();
    // SAFETY: the map's descriptor is open; without options no memory is involved.
    let fd = unsafe {
        libbpf_sys::bpf_link_create(map.as_fd().as_raw_fd(), 0, libbpf_sys::BPF_STRUCT_OPS, std::ptr::null())
    };
    if fd < 0 {
        let source = io::Error::from_raw_os_error(-fd).into();
        return Err(Error::NotAttached { what: what.to_string(), source, words: log.words() });
    }
    // SAFETY: the kernel just gave us this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Pin a link.
pub(crate) fn pin(link: &impl AsFd, path: &Path) -> Result<()> {
    let what = format!("cannot pin {}", path.display());
    let path = CString::new(path.as_os_str().as_encoded_bytes()).map_err(io::Error::from).trying(&what)?;
    // SAFETY: the descriptor is open, and the path is NUL-terminated.
    let ret = unsafe { libbpf_sys::bpf_obj_pin(link.as_fd().as_raw_fd(), path.as_ptr()) };
    if ret < 0 {
        return Err(io::Error::from_raw_os_error(-ret)).trying(&what);
    }
    Ok(())
}

/// Put a program into a slot of a program array, or empty the slot.
pub(crate) fn set_slot(array: &MapHandle, slot: u8, program: Option<BorrowedFd<'_>>) -> Result<()> {
    let key = u32::from(slot).to_ne_bytes();
    let name = array.name().to_string_lossy().into_owned();
    match program {
        Some(program) => {
            let fd = program.as_raw_fd().to_ne_bytes();
            array.update(&key, &fd, MapFlags::ANY).trying(format!("cannot fill slot {slot} of {name}"))
        }
        None => match array.delete(&key) {
            Err(e) if e.kind() == libbpf_rs::ErrorKind::NotFound => Ok(()),
            other => other.trying(format!("cannot empty slot {slot} of {name}")),
        },
    }
}
