//! The figures as plots (SVG). The same figures give the same bytes.

use anyhow::{Context, Result};
use plotters::{
    chart::{ChartBuilder, ChartContext},
    coord::{Shift, ranged1d::ValueFormatter},
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::{
    result::{Bench, ByThreads, Instructions, Published, Window},
    table::{count, duration},
};

/// Width and height of a plot, pixels.
const SIZE: (u32, u32) = (760, 380);
/// Room for what stands on the left of an axis, and below one.
const LEFT: u32 = 80;
const BELOW: u32 = 44;
/// Height of a line of text.
const LINE: i32 = 16;

/// Colours that also people who see fewer of them tell apart (Okabe and Ito).
const GREY: RGBColor = RGBColor(130, 130, 130);
const BLUE: RGBColor = RGBColor(0, 114, 178);
const GREEN: RGBColor = RGBColor(0, 158, 115);
const ORANGE: RGBColor = RGBColor(230, 159, 0);
const RED: RGBColor = RGBColor(213, 94, 0);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A plot.
pub struct Plot {
    /// Its file's name.
    pub name: &'static str,
    /// What is in it.
    pub svg: String,
}

/// All plots for which there are figures.
///
/// # Errors
/// When one cannot be drawn.
pub fn all(bench: &Bench) -> Result<Vec<Plot>> {
    let mut plots = Vec::new();
    if !bench.by_threads.is_empty() {
        plots.push(times(&bench.by_threads)?);
        plots.push(delays(&bench.by_threads)?);
    }
    if !bench.published.is_empty() {
        plots.push(published(&bench.published)?);
    }
    if let Some(counted) = &bench.instructions {
        plots.push(instructions(counted)?);
    }
    Ok(plots)
}

/// One line of [`times`]: name, colour, and what it shows of a run.
type Line = (&'static str, RGBColor, fn(&ByThreads) -> u64);

/// How times grow with threads, on logarithmic axes.
fn times(runs: &[ByThreads]) -> Result<Plot> {
    const LINES: [Line; 5] = [
        ("whole swap", BLUE, |run| run.swap_total_ns),
        ("detach and attach", RED, ByThreads::reattach_ns),
        ("sweep", GREEN, |run| run.sweep_ns),
        ("whole rollback", ORANGE, |run| run.rollback_total_ns),
        ("commit", BLACK, |run| run.commit_ns),
    ];
    let title = "Time by threads: a swap, and the kernel's own way";
    draw("times.svg", title, |root| {
        let threads = || runs.iter().map(|run| f64::from(run.threads));
        // A zero has no place on such an axis: it is drawn as the shortest time there is.
        let at = |line: &Line, run: &ByThreads| line.2(run).max(1) as f64;
        let values = || LINES.iter().flat_map(|line| runs.iter().map(|run| at(line, run)));
        let x = least(threads()) * 0.8..most(threads()) * 1.25;
        let y = decade_below(least(values()))..most(values()) * 3.0;
        let mut chart = ChartBuilder::on(root)
            .margin(12)
            .margin_top(40)
            .margin_right(140)
            .set_label_area_size(LabelAreaPosition::Left, LEFT)
            .set_label_area_size(LabelAreaPosition::Bottom, BELOW)
            .build_cartesian_2d(x.log_scale(), y.clone().log_scale())?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(0)
            .x_label_formatter(&|_| String::new())
            .light_line_style(WHITE)
            .bold_line_style(BLACK.mix(0.12))
            .label_style(font())
            .y_label_formatter(&|ns| tick(*ns))
            .draw()?;
        // Only what was measured is named on the axis.
        for run in runs {
            let (x, floor) = chart.backend_coord(&(f64::from(run.threads), y.start));
            root.draw(&PathElement::new([(x, floor), (x, floor + 5)], BLACK))?;
            root.draw(&Text::new(
                of_threads(run.threads),
                (x, floor + 10),
                aligned(HPos::Center, VPos::Top),
            ))?;
        }
        let mut names = Vec::new();
        for line in &LINES {
            let points: Vec<_> = runs.iter().map(|run| (f64::from(run.threads), at(line, run))).collect();
            chart.draw_series(LineSeries::new(points.clone(), line.1.stroke_width(2)))?;
            chart.draw_series(points.iter().map(|point| Circle::new(*point, 4, line.1.filled())))?;
            let end = points.last().context("there are no runs")?;
            names.push((chart.backend_coord(end), line));
        }
        // Each at the end of its line, but none on another.
        names.sort_by_key(|((_, y), _)| *y);
        let mut free = i32::MIN;
        for ((x, y), (name, colour, _)) in names {
            let y = y.max(free);
            free = y + LINE;
            root.draw(&Text::new(*name, (x + 10, y), aligned(HPos::Left, VPos::Center).color(colour)))?;
        }
        Ok(())
    })
}

/// A time on an axis: a round one.
fn tick(ns: f64) -> String {
    let text = duration(ns.round() as u64);
    text.replace(".00 ", " ").replace(".0 ", " ")
}

/// A delay where there is little room.
fn short(ns: f64) -> String {
    if (1e7..1e9).contains(&ns) { format!("{:.0} ms", ns / 1e6) } else { tick(ns) }
}

/// A bar: up to `value` in full colour, and faintly on up to `beyond`.
struct Bar {
    colour: RGBColor,
    value: f64,
    beyond: f64,
}

impl Bar {
    /// p99.9, and the longest delay faintly, in nanoseconds.
    fn of_delay(colour: RGBColor, window: &Window) -> Self {
        Self { colour, value: window.p999_us * 1e3, beyond: window.max_us * 1e3 }
    }

    fn of_count(colour: RGBColor, value: f64) -> Self {
        Self { colour, value, beyond: value }
    }
}

/// Bars that stand together.
struct Group {
    name: String,
    bars: Vec<Bar>,
}

fn delays(runs: &[ByThreads]) -> Result<Plot> {
    let legend = [("nothing happens", GREY), ("swap", BLUE), ("rollback", GREEN), ("detach and attach", RED)];
    let group = |run: &ByThreads| {
        let windows = [run.baseline, run.swap, run.rollback, run.detach_attach];
        let bars = legend.iter().zip(&windows).map(|((_, colour), window)| Bar::of_delay(*colour, window));
        Group { name: of_threads(run.threads), bars: bars.collect() }
    };
    let title = "Wake-up delay: p99.9, and the longest (faint)";
    let groups: Vec<_> = runs.iter().map(group).collect();
    bars("delays.svg", title, &legend, &groups, short)
}

fn published(runs: &[Published]) -> Result<Plot> {
    let legend = [
        ("old scheduler, at rest", GREY),
        ("scx_loader's way", RED),
        ("old policy, at rest", ORANGE),
        ("scx-upgrade swap", BLUE),
    ];
    let group = |run: &Published| {
        let windows = [run.loader.baseline, run.loader.window, run.swap.baseline, run.swap.window];
        let bars = legend.iter().zip(&windows).map(|((_, colour), window)| Bar::of_delay(*colour, window));
        Group { name: of_threads(run.threads), bars: bars.collect() }
    };
    let title = "From one scheduler to another: wake-up delay, p99.9, and the longest (faint)";
    let groups: Vec<_> = runs.iter().map(group).collect();
    bars("published.svg", title, &legend, &groups, short)
}

fn instructions(counted: &Instructions) -> Result<Plot> {
    let legend = [
        ("default scheduler", GREY),
        ("attached directly", ORANGE),
        ("in the host", BLUE),
        ("in a lean host", GREEN),
    ];
    let none = Group { name: "none".to_owned(), bars: vec![Bar::of_count(GREY, counted.default)] };
    let under = counted.policies.iter().map(|policy| Group {
        name: policy.policy.clone(),
        bars: [(ORANGE, Some(policy.direct)), (BLUE, Some(policy.hosted)), (GREEN, policy.lean)]
            .into_iter()
            .filter_map(|(colour, count)| Some(Bar::of_count(colour, count?)))
            .collect(),
    });
    let groups: Vec<_> = std::iter::once(none).chain(under).collect();
    bars("instructions.svg", "Instructions per context switch, by policy", &legend, &groups, |n| {
        count(n.round() as u64)
    })
}

/// A diagram of bars in groups, from zero, with what each colour means below the title.
fn bars(
    name: &'static str,
    title: &str,
    legend: &[(&str, RGBColor)],
    groups: &[Group],
    format: fn(f64) -> String,
) -> Result<Plot> {
    draw(name, title, |root| {
        let all = || groups.iter().flat_map(|group| group.bars.iter().map(|bar| bar.beyond));
        // Between two groups is the room of a bar.
        let width: usize = groups.iter().map(|group| group.bars.len() + 1).sum();
        let mut chart = ChartBuilder::on(root)
            .margin(12)
            .margin_top(40 + LINE)
            .set_label_area_size(LabelAreaPosition::Left, LEFT)
            .set_label_area_size(LabelAreaPosition::Bottom, BELOW)
            .build_cartesian_2d(0.0..width as f64, 0.0..(most(all()) * 1.12).max(1.0))?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(0)
            .light_line_style(WHITE)
            .bold_line_style(BLACK.mix(0.12))
            .label_style(font())
            .y_label_formatter(&|value| format(*value))
            .draw()?;
        let mut x = 0.5;
        for group in groups {
            let begin = x;
            for bar in &group.bars {
                one_bar(root, &mut chart, x, bar, &format(bar.beyond))?;
                x += 1.0;
            }
            let (middle, below) = chart.backend_coord(&((begin + x) / 2.0, 0.0));
            let style = aligned(HPos::Center, VPos::Top);
            root.draw(&Text::new(group.name.as_str(), (middle, below + 10), style))?;
            x += 1.0;
        }
        let columns = legend.len().max(1) as i32;
        for (i, (meaning, colour)) in legend.iter().enumerate() {
            let x = LEFT as i32 + 12 + i as i32 * (SIZE.0 as i32 - LEFT as i32 - 12) / columns;
            let y = 34;
            root.draw(&Rectangle::new([(x, y), (x + 11, y + 11)], colour.filled()))?;
            root.draw(&Text::new(*meaning, (x + 16, y + 6), aligned(HPos::Left, VPos::Center)))?;
        }
        Ok(())
    })
}

/// A bar of width 1 (less a little) at `x`, with its height written on top.
fn one_bar<X, Y>(
    root: &Area<'_>,
    chart: &mut ChartContext<'_, SVGBackend<'_>, Cartesian2d<X, Y>>,
    x: f64,
    bar: &Bar,
    height: &str,
) -> Result<()>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let rectangle = |from, to, style| Rectangle::new([(x + 0.06, from), (x + 0.94, to)], style);
    let faint = bar.colour.mix(0.35).filled();
    chart.draw_series([
        rectangle(0.0, bar.value, bar.colour.filled()),
        rectangle(bar.value, bar.beyond.max(bar.value), faint),
    ])?;
    let (middle, top) = chart.backend_coord(&(x + 0.5, bar.beyond));
    root.draw(&Text::new(height, (middle, top - 4), aligned(HPos::Center, VPos::Bottom)))?;
    Ok(())
}

/// A white sheet with a title, drawn on.
fn draw(name: &'static str, title: &str, on: impl FnOnce(&Area<'_>) -> Result<()>) -> Result<Plot> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let style = TextStyle::from(("sans-serif", 19).into_font()).pos(Pos::new(HPos::Center, VPos::Top));
        root.draw(&Text::new(title, (SIZE.0 as i32 / 2, 10), style))?;
        on(&root)?;
        root.present()?;
    }
    // For who has it read out.
    let svg = svg.replacen("<svg ", &format!("<svg role=\"img\" aria-label=\"{title}\" "), 1);
    Ok(Plot { name, svg })
}

fn font() -> TextStyle<'static> {
    ("sans-serif", 15).into_font().into()
}

fn aligned(h: HPos, v: VPos) -> TextStyle<'static> {
    font().pos(Pos::new(h, v))
}

fn of_threads(threads: u32) -> String {
    format!("{} threads", count(u64::from(threads)))
}

fn least(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(f64::INFINITY, f64::min)
}

fn most(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, f64::max)
}

/// The power of ten at or below a positive number.
fn decade_below(value: f64) -> f64 {
    10f64.powf(value.log10().floor())
}

#[cfg(test)]
mod tests {
    use super::super::result::sample;
    use super::*;

    fn plot(bench: &Bench, name: &str) -> String {
        all(bench).unwrap().into_iter().find(|plot| plot.name == name).unwrap().svg
    }

    fn has(svg: &str, tag: &str) -> usize {
        svg.matches(&format!("<{tag} ")).count()
    }

    #[test]
    fn every_line_has_its_points_and_its_name() {
        let svg = plot(&sample(), "times.svg");
        assert_eq!(has(&svg, "circle"), 5 * 2);
        for name in ["commit", "sweep", "whole swap", "whole rollback", "detach and attach", "100 threads"] {
            assert!(svg.contains(&format!("\n{name}\n")), "{name}: {svg}");
        }
    }

    #[test]
    fn every_bar_is_there() {
        // The sheet, what colours mean, and two parts of each bar.
        let rectangles = |legend: usize, bars: usize| 1 + legend + 2 * bars;
        assert_eq!(has(&plot(&sample(), "delays.svg"), "rect"), rectangles(4, 8));
        assert_eq!(has(&plot(&sample(), "published.svg"), "rect"), rectangles(4, 8));
        let svg = plot(&sample(), "instructions.svg");
        assert_eq!(has(&svg, "rect"), rectangles(4, 7));
        assert!(svg.contains("scx_mini") && svg.contains("\n8,400\n"), "{svg}");
    }

    /// Names at the ends of lines that meet stand below each other.
    #[test]
    fn no_name_is_on_another() {
        let mut bench = sample();
        for run in &mut bench.by_threads {
            run.swap_total_ns = 1_000_000_000;
            (run.detach_ns, run.attach_ns, run.rollback_total_ns) = (0, 1_000_000_000, 1_000_000_000);
        }
        let svg = plot(&bench, "times.svg");
        let mut at: Vec<i32> = ["whole swap", "detach and attach", "whole rollback"]
            .map(|name| {
                let tag = svg[..svg.find(&format!("\n{name}\n")).unwrap()].rsplit("<text").next().unwrap();
                tag.split("y=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap()
            })
            .into();
        at.sort_unstable();
        assert!(at.windows(2).all(|pair| pair[1] - pair[0] >= LINE), "{at:?}");
    }

    #[test]
    fn one_number_of_threads_and_zeros_can_be_drawn() {
        let mut bench = sample();
        bench.by_threads.truncate(1);
        bench.by_threads[0].sweep_ns = 0;
        for plot in all(&bench).unwrap() {
            assert!(plot.svg.starts_with("<svg role=\"img\" aria-label=") && plot.svg.contains("</svg>"));
            assert!(!plot.svg.contains("NaN") && !plot.svg.contains("inf"), "{}", plot.svg);
        }
    }

    #[test]
    fn the_same_figures_give_the_same_bytes() {
        let svgs = || all(&sample()).unwrap().into_iter().map(|plot| plot.svg).collect::<Vec<_>>();
        assert_eq!(svgs(), svgs());
    }
}
