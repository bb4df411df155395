//! Two threads hand a byte to and fro over two pipes: each round trip is two context switches and two wake-ups. Under
//! `cargo xtask lab --icount` the guest's clock counts instructions, so the figure is instructions a round trip, and
//! the same run gives the same figure.

use std::io::Read;
use std::io::Write;
use std::io::pipe;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use clap::Parser;
use guest::machine::Machine;
use scx_upgrade_engine::Policy;
use scx_upgrade_engine::candidate::direct::Direct;
use serde::Serialize;

/// Clock ticks per round trip of a byte between two threads, under each way to run a policy
#[derive(Debug, Parser)]
struct Options {
    /// The policy; may be given several times
    #[arg(long, default_value = "/bin/scx_fair_v1")]
    policy: Vec<PathBuf>,
    /// Round trips of each measurement
    #[arg(long, default_value_t = 5000)]
    rounds: u32,
    /// Swap the policy in again so many times before it is measured in the host: each time it is in another slot
    #[arg(long, default_value_t = 0)]
    swaps: u32,
    /// Write the figures (JSON) to this file as well
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// Clock ticks per round trip, which is two context switches.
#[derive(Debug, Serialize)]
struct Report {
    /// Where.
    #[serde(flatten)]
    machine: Machine,
    /// Under the kernel's default scheduler.
    default_ticks: f64,
    /// Under policies.
    policies: Vec<Ticks>,
}

/// Under one policy.
#[derive(Debug, Serialize)]
struct Ticks {
    /// Its program.
    policy: String,
    /// Attached directly.
    direct_ticks: f64,
    /// In the host.
    hosted_ticks: f64,
    /// In a lean host, see `scx-upgrade run --minimal-ops`.
    lean_ticks: f64,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let default_ticks = measure(options.rounds)?;
    println!("default scheduler   {default_ticks:>7.0}");
    let policies = options.policy.iter().map(|policy| under(policy, &options)).collect::<Result<_>>()?;
    if let Some(file) = &options.report {
        let report = Report { machine: Machine::this()?, default_ticks, policies };
        std::fs::write(file, serde_json::to_vec_pretty(&report)?)
            .with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(())
}

fn under(policy: &Path, options: &Options) -> Result<Ticks> {
    let name = policy.file_name().context("a policy needs a name")?.to_string_lossy().into_owned();
    let mut direct = Direct::load(&Policy::from_binary(policy)?)?;
    direct.attach()?;
    let alone = measure(options.rounds)?;
    direct.detach()?;
    println!("{name}");
    println!("  attached directly {alone:>7.0}");

    let by_host = |title: &str, run: &[&str]| -> Result<f64> {
        let path = policy.to_string_lossy();
        scx_upgrade(&[run, &[&path]].concat())?;
        for _ in 0..options.swaps {
            scx_upgrade(&["swap", "--again", &path])?;
        }
        let ticks = measure(options.rounds)?;
        println!("  {title:<17} {ticks:>7.0}  {:+.2} %", (ticks / alone - 1.0) * 100.0);
        scx_upgrade(&["stop"])?;
        Ok(ticks)
    };
    let hosted_ticks = by_host("in the host", &["run"])?;
    let lean_ticks = by_host("in a lean host", &["run", "--lean"])?;
    Ok(Ticks { policy: name, direct_ticks: alone, hosted_ticks, lean_ticks })
}

fn scx_upgrade(args: &[&str]) -> Result<()> {
    let out = Command::new("/bin/scx-upgrade").args(args).output().context("cannot start scx-upgrade")?;
    ensure!(out.status.success(), "scx-upgrade {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    Ok(())
}

/// The least of several goes: what else runs in the guest, most of all shortly after boot, only ever adds.
fn measure(rounds: u32) -> Result<f64> {
    let goes = (0..8).map(|_| one_go(rounds)).collect::<Result<Vec<_>>>()?;
    Ok(goes.into_iter().fold(f64::INFINITY, f64::min))
}

/// Ticks (ns, or instructions) per round trip, the first tenth left out.
fn one_go(rounds: u32) -> Result<f64> {
    let (mut here_read, mut there_write) = pipe()?;
    let (mut there_read, mut here_write) = pipe()?;
    let total = rounds + rounds / 10;
    let echo = std::thread::spawn(move || -> Result<()> {
        let mut byte = [0];
        for _ in 0..total {
            there_read.read_exact(&mut byte)?;
            there_write.write_all(&byte)?;
        }
        Ok(())
    });
    let mut begin = Instant::now();
    let mut byte = [0];
    for round in 0..total {
        if round == rounds / 10 {
            begin = Instant::now();
        }
        here_write.write_all(&byte)?;
        here_read.read_exact(&mut byte)?;
    }
    let ticks = begin.elapsed().as_nanos() as f64 / f64::from(rounds);
    echo.join().map_err(|_| anyhow::anyhow!("the echo thread panicked"))??;
    Ok(ticks)
}
