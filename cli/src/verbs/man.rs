//! `scx-upgrade man`: the manual, a page for the whole and one for each verb, as troff.

use anyhow::Context;
use clap::CommandFactory;
use clap_mangen::Man;
use scx_upgrade_engine::exit::Exit;

use crate::args::Args;
use crate::failure::Failure;
use crate::output::Output;

pub fn man(verb: Option<&str>, out: Output) -> Result<(), Failure> {
    let mut command = Args::command();
    // Fills in the options that every verb has, and their pages' names.
    command.build();
    let command = match verb {
        None => command,
        Some(verb) => {
            let found = command.find_subcommand(verb).cloned();
            found.ok_or_else(|| Failure::new(Exit::Usage, format!("there is no verb {verb}")))?
        }
    };
    let mut page = Vec::new();
    Man::new(command).render(&mut page).context("cannot write the page")?;
    let page = String::from_utf8_lossy(&page);
    out.show(&serde_json::json!({ "page": page }), |text| text.push_str(&page));
    Ok(())
}
