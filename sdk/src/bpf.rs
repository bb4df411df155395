//! The few BPF system calls that libbpf-rs has no safe call for.

use std::os::fd::AsFd;
use std::os::fd::AsRawFd;

use libbpf_rs::MapCore;
use libbpf_rs::MapFlags;
use libbpf_rs::MapHandle;
use libbpf_rs::libbpf_sys;
use plain::Plain;

use crate::error::Result;
use crate::error::Trying;

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
        return Err(std::io::Error::from_raw_os_error(-ret)).trying(format!("cannot run the host's {what}"));
    }
    Ok(opts.retval as i32)
}

/// Put a program into a slot of a program array, or empty the slot.
pub(crate) fn set_slot(array: &MapHandle, slot: u8, program: Option<&dyn AsFdDyn>) -> Result<()> {
    let key = u32::from(slot).to_ne_bytes();
    let name = array.name().to_string_lossy().into_owned();
    match program {
        Some(program) => {
            let fd = program.raw().to_ne_bytes();
            array.update(&key, &fd, MapFlags::ANY).trying(format!("cannot fill slot {slot} of {name}"))
        }
        None => match array.delete(&key) {
            Err(e) if e.kind() == libbpf_rs::ErrorKind::NotFound => Ok(()),
            other => other.trying(format!("cannot empty slot {slot} of {name}")),
        },
    }
}

/// Object-safe face of [`AsFd`].
pub(crate) trait AsFdDyn {
    fn raw(&self) -> i32;
}

impl<T: AsFd> AsFdDyn for T {
    fn raw(&self) -> i32 {
        self.as_fd().as_raw_fd()
    }
}
