//! `scx-upgrade stop`: end the scheduler.

use scx_upgrade_sdk::pins::Pins;
use scx_upgrade_sdk::stop;

use crate::failure::Failure;
use crate::output;

pub fn stop(pins: &Pins, json: bool) -> Result<(), Failure> {
    let stopped = stop::stop(pins)?;
    if json {
        output::json(&stopped);
    } else {
        match &stopped.policy {
            Some(policy) => println!("{policy} stopped in {}", output::duration(stopped.detach_ns)),
            None => println!("removed what an earlier host left"),
        }
        println!("tasks are on the kernel's default scheduler");
    }
    Ok(())
}
