//! The live view: a pure function from what is shown to what is drawn.

use ratatui::Frame;
use ratatui::layout::Constraint;
use ratatui::layout::Layout;
use ratatui::style::Modifier;
use ratatui::style::Style;
use ratatui::text::Line;
use ratatui::widgets::Block;
use ratatui::widgets::Borders;
use ratatui::widgets::Paragraph;
use ratatui::widgets::Row;
use ratatui::widgets::Table;
use ratatui::widgets::Wrap;

use super::view::View;
use crate::clock;

/// Draw it. Nothing is told by colour alone.
pub fn draw(frame: &mut Frame<'_>, view: &View) {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let mut top = vec![Line::styled(view.running(), bold)];
    top.extend(view.alarm.iter().map(|alarm| Line::styled(format!("! {alarm}"), bold)));
    top.extend(view.back_to.iter().map(|back| Line::raw(format!("back to {}", back.line()))));
    let queues = view.queues.iter();
    top.extend(queues.map(|q| Line::raw(format!("queue {} ({}): {} waiting", q.queue, q.kind, q.tasks))));

    // The alarm may take two lines; the frame takes two more.
    let height = top.len() as u16 + u16::from(view.alarm.is_some()) + 2;
    let areas = [Constraint::Length(height), Constraint::Min(3), Constraint::Length(1)];
    let [above, below, last] = Layout::vertical(areas).areas(frame.area());
    let title = format!(" scx-upgrade  {}  {} ", view.kernel, clock::local(view.unix_time));
    let about = Paragraph::new(top).wrap(Wrap { trim: true });
    frame.render_widget(about.block(Block::new().borders(Borders::ALL).title(title)), above);

    let rows = view.rates.iter().map(|rate| {
        let [total, per_second] = [rate.total.to_string(), rate.in_words()].map(|text| format!("{text:>14}"));
        Row::new([rate.name.clone(), total, per_second])
    });
    let widths = [Constraint::Min(30), Constraint::Length(14), Constraint::Length(14)];
    let header =
        Row::new(["counted".to_string(), format!("{:>14}", "in all"), format!("{:>14}", "per second")]);
    let table = Table::new(rows, widths).header(header.style(bold)).block(Block::new().borders(Borders::ALL));
    frame.render_widget(table, below);
    frame.render_widget(Line::raw(" q: quit"), last);
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::view::tests::looks;
    use super::*;

    fn screen(view: &View, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, view)).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_string();
        (0..height).map(line).collect()
    }

    #[test]
    fn all_of_it_is_there_at_80_columns() {
        let (before, mut now) = looks();
        now.status.held = true;
        let screen = screen(&View::of(&before, &now), 80, 24);
        let has = |words: &str| {
            assert!(screen.iter().any(|l| l.contains(words)), "{words}:\n{}", screen.join("\n"))
        };
        has("scx-upgrade  enabled scx_upgrade  ");
        has("│scx_fair 3.0.0, generation 7, for 1 min 15 s");
        has("│! no policy runs, tasks are served as they come");
        has("│back to scx_fair 2.0.0, generation 6: rollback ");
        has("│back to scx_fair 1.0.0, generation 4: rollback --to 4");
        has("│queue fair_queue (vtime): 3 waiting");
        has(&format!("│{:<48} {:>14} {:>14}│", "context switches", 3000, "1000.0/s"));
        has(&format!("│{:<48} {:>14} {:>14}│", "nr_direct", 40, "15.0/s"));
        has("q: quit");
    }

    #[test]
    fn a_small_terminal_shows_what_runs() {
        let (before, now) = looks();
        for (width, height) in [(1, 1), (10, 3), (40, 8), (300, 100)] {
            let screen = screen(&View::of(&before, &now), width, height);
            if width >= 40 {
                assert!(screen.concat().contains("scx_fair 3.0.0"), "{}", screen.join("\n"));
            }
        }
    }
}
