//! `scx-upgrade status --watch`: the status, again and again, with what is counted per second. On a terminal it is drawn
//! in place, elsewhere it is a block each time.

mod draw;
mod look;
mod view;

use std::io;
use std::io::IsTerminal;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event;
use ratatui::crossterm::event::Event;
use ratatui::crossterm::event::KeyCode;
use ratatui::crossterm::event::KeyEventKind;
use ratatui::crossterm::event::KeyModifiers;
use scx_upgrade_engine::host::pins::Pins;
use scx_upgrade_engine::observe::status::Status;

use self::look::Look;
use self::view::View;
use crate::args::StatusArgs;
use crate::failure::Failure;
use crate::output::Output;

/// Watch until `q` is pressed, or for as many looks as are asked for. The last status that was seen.
pub fn watch(pins: &Pins, args: &StatusArgs, out: Output) -> Result<Status, Failure> {
    let interval = Duration::from_secs_f64(args.interval);
    let looks = args.count.unwrap_or(u64::MAX).max(1);
    if out.json || out.quiet || !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return blocks(pins, interval, looks, out);
    }
    let mut terminal = ratatui::try_init().context("cannot draw on this terminal")?;
    let seen = live(&mut terminal, pins, interval, looks);
    ratatui::restore();
    seen
}

fn blocks(pins: &Pins, interval: Duration, looks: u64, out: Output) -> Result<Status, Failure> {
    let mut last = Look::now(pins)?;
    for n in 0..looks {
        // The first says what there is, and no rates: there is nothing to compare it with.
        let now = if n == 0 { last.clone() } else { Look::after(pins, interval)? };
        let view = View::of(&last, &now);
        let read = out.line(&view, || view.block());
        last = now;
        if !read {
            break;
        }
    }
    Ok(last.status)
}

fn live(
    terminal: &mut DefaultTerminal,
    pins: &Pins,
    interval: Duration,
    looks: u64,
) -> Result<Status, Failure> {
    let mut last = Look::now(pins)?;
    let mut now = last.clone();
    for _ in 0..looks {
        let view = View::of(&last, &now);
        terminal.draw(|frame| draw::draw(frame, &view)).context("cannot draw on this terminal")?;
        if ended_before(Instant::now() + interval)? {
            break;
        }
        last = std::mem::replace(&mut now, Look::now(pins)?);
    }
    Ok(now.status)
}

/// Wait; was it said meanwhile that this is enough? What changes the terminal's size ends the wait: it is drawn anew.
fn ended_before(deadline: Instant) -> Result<bool, Failure> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if !event::poll(left).context("cannot read from this terminal")? {
            return Ok(false);
        }
        match event::read().context("cannot read from this terminal")? {
            Event::Key(key) if key.kind == KeyEventKind::Press => match key.code {
                KeyCode::Char('q') | KeyCode::Esc => return Ok(true),
                KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Ok(true),
                _ => {}
            },
            Event::Resize(..) => return Ok(false),
            _ => {}
        }
    }
}
