//! `scx-upgrade recover`: bring back what the kernel took off, once, or whenever it does (`--watch`).

use std::time::Duration;

use scx_upgrade_engine::host::pins::Pins;
use scx_upgrade_engine::host::registry::RollbackTarget;
use scx_upgrade_engine::transition::effect;
use scx_upgrade_engine::transition::take_over;

use crate::args::RecoverArgs;
use crate::failure::Failure;
use crate::frontend;
use crate::output::Output;
use crate::supervise;

pub fn recover(pins: Pins, args: &RecoverArgs, out: Output) -> Result<(), Failure> {
    let pins = pins.patient(Duration::from_secs(args.timeout));
    if args.watch {
        return supervise::supervise(&pins, args, out);
    }
    match take_over::recover(&pins, RollbackTarget::Same, None)? {
        Some(done) => {
            frontend::after(&pins, done.generation);
            effect::confirm(&pins, &done)?;
            out.report(&done);
        }
        None => out.show(&serde_json::json!({ "recovered": false }), |out| {
            out.push_str("nothing to bring back: the host is running\n");
        }),
    }
    Ok(())
}
