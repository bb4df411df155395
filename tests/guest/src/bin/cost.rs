//! What it takes to prepare a swap, beside what libbpf takes to open and load the same object by itself; and what an
//! accessor to a task's state takes, beside the look-up that is in it. Under `cargo xtask lab --icount` the clock counts
//! instructions, so the figures are exact.

use std::io::Write as _;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Parser;
use guest::demo::command::{Command, binary};
use guest::programs::Programs;
use libbpf_rs::ObjectBuilder;
use plain::Plain;
use scx_upgrade_engine::Policy;
use scx_upgrade_engine::host::Host;
use scx_upgrade_engine::host::pins::Pins;
use scx_upgrade_engine::kernel::sysfs;

/// The scx headers put this program into every object; it wants to be attached, and nothing here needs it.
const SCX_PROBE: &str = "scx_lib_init_probe";
/// The fastest of so many counts.
const GOES: usize = 3;

/// Clock ticks to prepare a swap, and for an access to state, each beside the least that it can be
///
/// Needs root, a kernel with sched_ext, and scx-upgrade in PATH or beside it.
#[derive(Debug, Parser)]
struct Options {
    /// The policy, by name or path
    #[arg(default_value = "scx_fair_v1")]
    policy: String,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let path = binary(&options.policy)?;
    let command = Command::find()?;
    command.launch("run", &path)?;

    let mut prepared = Vec::new();
    for _ in 0..GOES {
        prepared.push(command.launch("swap", &path)?.timings);
    }
    let sum =
        |t: &scx_upgrade_engine::observe::report::Timings| t.open_ns + t.plan_ns + t.load_ns + t.prepare_ns;
    let best = prepared.iter().min_by_key(|t| sum(t)).context("no swap")?;

    let host = Host::running(&Pins::open()?)?;
    let policy = Policy::from_binary(&path)?;
    let slot = u32::from(host.data.active().slot);
    let btf = state_migrate::augment(&sysfs::btf()?, &policy.schema()?, &host.registry.layout, slot)?;
    let mut file = std::fs::File::create("/tmp/augmented.btf")?;
    file.write_all(&btf)?;
    let plain = (0..GOES).map(|_| plain(&policy)).collect::<Result<Vec<_>>>()?;
    let plain = plain.into_iter().min().context("no load")?;

    println!("open {} plan {} load {} prepare {}", best.open_ns, best.plan_ns, best.load_ns, best.prepare_ns);
    println!("scx-upgrade, up to the commit   {:>12}", sum(best));
    println!("libbpf, open and load           {plain:>12}");
    println!("ratio                           {:>12.3}", sum(best) as f64 / plain as f64);

    let programs = Programs::load(ACCESS, &host)?;
    let ticks = |name: &str| -> Result<f64> {
        let goes = (0..GOES).map(|_| {
            let mut args = Access { times: ACCESSES, sum: 0 };
            programs.run(name, &mut args)
        });
        let best = goes.collect::<Result<Vec<_>>>()?.into_iter().min().context("no run")?;
        Ok(best as f64 / ACCESSES as f64)
    };
    let (plain, state) = (ticks("access_plain")?, ticks("access_state")?);
    println!("look-up in task storage         {plain:>12.2}");
    println!("access to state                 {state:>12.2}");
    println!("more                            {:>12.2}", state - plain);
    command.stop()?;
    Ok(())
}

const ACCESS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/access.bpf.o"));
/// Accesses that are measured together.
const ACCESSES: u64 = 100_000;

/// `struct access_args`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Access {
    times: u64,
    sum: u64,
}

// SAFETY: two numbers, without padding, and any bytes are valid.
unsafe impl Plain for Access {}

/// Open, load, verify; then all of it goes again.
fn plain(policy: &Policy) -> Result<u64> {
    let begin = Instant::now();
    let mut builder = ObjectBuilder::default();
    let mut open = builder.btf_custom_path("/tmp/augmented.btf")?.open_memory(policy.object())?;
    for mut program in open.progs_mut().filter(|program| program.name() == SCX_PROBE) {
        program.set_autoload(false);
    }
    let _object = open.load()?;
    Ok(begin.elapsed().as_nanos() as u64)
}
