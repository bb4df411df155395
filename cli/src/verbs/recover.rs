//! `scx-upgrade recover`: bring back what the kernel took off, once, or whenever it does (`--watch`).

use std::time::Duration;

use scx_upgrade_sdk::effect;
use scx_upgrade_sdk::pins::Pins;
use scx_upgrade_sdk::swap::Aim;
use scx_upgrade_sdk::take_over;

use crate::args::RecoverArgs;
use crate::attend;
use crate::failure::Failure;
use crate::output::Output;
use crate::supervise;

pub fn recover(pins: Pins, args: &RecoverArgs, out: Output) -> Result<(), Failure> {
    let pins = pins.patient(Duration::from_secs(args.timeout));
    if args.watch {
        return supervise::supervise(&pins, args, out);
    }
    match take_over::recover(&pins, Aim::Same, None)? {
        Some(done) => {
            attend::after(&pins, done.generation, args.timeout);
            effect::confirm(&pins, &done)?;
            out.report(&done);
        }
        None => out.show(&serde_json::json!({ "recovered": false }), |out| {
            out.push_str("nothing to bring back: the host is running\n");
        }),
    }
    Ok(())
}
