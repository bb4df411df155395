//! What machine this is, for reports.

use anyhow::Result;
use serde::Serialize;

/// The machine.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// `uname -r`.
    pub kernel: String,
    /// Whether the CPUs are emulated in software, which makes everything 10 to 30 times slower.
    pub emulated: bool,
    /// CPUs.
    pub cpus: usize,
}

impl Machine {
    /// This one.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn this() -> Result<Self> {
        let read = std::fs::read_to_string;
        Ok(Self {
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            // What QEMU calls its CPU models when it emulates them; under KVM it shows the machine's own.
            emulated: read("/proc/cpuinfo")?.lines().any(|line| line.contains("QEMU TCG CPU")),
            cpus: std::thread::available_parallelism()?.get(),
        })
    }
}
