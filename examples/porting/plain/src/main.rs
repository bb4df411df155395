//! steady, a plain sched_ext scheduler: attached while this process lives.

#[allow(
    missing_docs,
    clippy::all,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::undocumented_unsafe_blocks
)]
mod bpf {
    include!(concat!(env!("OUT_DIR"), "/bpf_skel.rs"));
}

// ANCHOR: main
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use libbpf_rs::MapCore;
use libbpf_rs::MapFlags;
use scx_utils::scx_ops_attach;
use scx_utils::scx_ops_load;
use scx_utils::scx_ops_open;
use scx_utils::uei_exited;
use scx_utils::uei_report;

/// One queue by virtual time
#[derive(Debug, Parser)]
struct Options {
    /// Longest turn on the CPU, microseconds
    #[arg(long, default_value_t = 5000)]
    slice_us: u64,

    /// Seconds between lines of statistics; 0 for none
    #[arg(long, default_value_t = 0)]
    stats: u64,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed))?;
    // A CPU that comes or goes ends the scheduler, which then has to start again from nothing.
    while run(&options, &stop)? {}
    Ok(())
}

/// Run until Ctrl-C or until the kernel ends it. Says whether to start again.
fn run(options: &Options, stop: &AtomicBool) -> anyhow::Result<bool> {
    let mut storage = MaybeUninit::uninit();
    let mut skel = scx_ops_open!(bpf::BpfSkelBuilder::default(), &mut storage, steady_ops, None)?;
    let settings = skel.maps.rodata_data.as_mut().context("the object has no settings")?;
    settings.slice_ns = options.slice_us * 1000;
    let mut skel = scx_ops_load!(skel, steady_ops, uei)?;
    let link = scx_ops_attach!(skel, steady_ops)?;

    for tick in 1u64.. {
        std::thread::sleep(Duration::from_millis(100));
        if stop.load(Ordering::Relaxed) || uei_exited!(&skel, uei) {
            break;
        }
        if options.stats > 0 && tick % (options.stats * 10) == 0 {
            let cpus = skel.maps.stats.lookup_percpu(&0u32.to_ne_bytes(), MapFlags::ANY)?.unwrap_or_default();
            let sum = |at: usize| -> u64 {
                let value = |cpu: &Vec<u8>| cpu.get(at..at + 8).and_then(|b| b.try_into().ok());
                cpus.iter().filter_map(value).map(u64::from_ne_bytes).sum()
            };
            println!("direct {} queued {}", sum(0), sum(8));
        }
    }
    drop(link);
    Ok(uei_report!(&skel, uei)?.should_restart())
}
// ANCHOR_END: main
