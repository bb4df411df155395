//! `scx-upgrade info`: what is in a policy's binary, on any machine, without running it.

use std::fmt::Write as _;
use std::path::Path;

use scx_upgrade_engine::candidate::info::Column;
use scx_upgrade_engine::candidate::info::Info;

use crate::failure::Failure;
use crate::output;
use crate::output::Output;
use crate::output::line;

/// Width of the words in front.
const LABEL: usize = 14;

pub fn info(binary: &Path, out: Output) -> Result<(), Failure> {
    let info = Info::of(binary)?;
    out.show(&info, |out| text(out, &info));
    Ok(())
}

fn text(out: &mut String, info: &Info) {
    let mut label = |name: &str, value: &str| {
        let _ = write!(out, "{name:<LABEL$}");
        output::wrapped(out, LABEL, value);
    };
    label("policy", &format!("{} {}", info.name, info.version));
    let fits = match info.abi == info.abi_here {
        true => "the one that this program brings".to_string(),
        false => format!("this program brings {}: it is refused", info.abi_here),
    };
    label("host version", &format!("{}, {fits}", info.abi));
    if let Some(binary) = &info.binary {
        label("file", &binary.path.display().to_string());
        label("sha256", &binary.sha256);
        label("build id", binary.build_id.as_deref().unwrap_or("none"));
    }
    label("ops", &list(&info.ops));
    for obstacle in &info.obstacles {
        label(if obstacle.refused { "refused" } else { "warning" }, &obstacle.message);
    }
    label("flags", &list(&info.flags));
    for queue in &info.queues {
        label("queue", &format!("{} ({})", queue.name, queue.kind));
    }
    if !info.conversions.is_empty() {
        label("conversions", &list(&info.conversions));
    }
    for option in &info.options {
        label("option", &format!("{}: {} = {}", option.name, option.ty, option.default));
    }
    let name = |c: &Column| format!("{}.{}", c.scope, c.name);
    let names = info.columns.iter().map(|c| name(c).len()).max().unwrap_or(0);
    for column in &info.columns {
        let unit = column.unit.as_ref().map(|unit| format!("in {unit}"));
        let default = column.default.as_ref().map(|default| format!("starts as {default}"));
        let from = column.from.as_ref().map(|from| format!("made of {from}"));
        let more = [unit, default, from].into_iter().flatten().collect::<Vec<_>>().join(", ");
        let ty = if more.is_empty() { column.ty.clone() } else { format!("{}, {more}", column.ty) };
        line!(out, "{:<LABEL$}{:<names$}  {ty}", "column", name(column));
    }
}

fn list(items: &[String]) -> String {
    if items.is_empty() { "none".to_string() } else { items.join(", ") }
}
