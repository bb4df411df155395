//! The drawing itself. The same scene gives the same bytes.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;
use plotters::style::text_anchor::Pos;
use plotters::style::text_anchor::VPos;

use crate::output::duration;

/// Width and height, pixels.
const SIZE: (u32, u32) = (800, 420);
/// Room for what stands on the left of the axis, and below it.
const LEFT: u32 = 80;
const BELOW: u32 = 48;
/// Room for the title, what colours mean, and the names of the marks.
const ABOVE: u32 = 84;
/// Nothing is narrower: it would not be seen.
const NARROWEST: i32 = 2;

/// Colours that also people who see fewer of them tell apart (Okabe and Ito).
const GREY: RGBColor = RGBColor(130, 130, 130);
const BLUE: RGBColor = RGBColor(0, 114, 178);
const GREEN: RGBColor = RGBColor(0, 158, 115);
const ORANGE: RGBColor = RGBColor(230, 159, 0);
const RED: RGBColor = RGBColor(213, 94, 0);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// One window with wake-ups in it.
#[derive(Debug, Clone, Copy)]
pub struct Dot {
    /// Its middle, s from the commit.
    pub at_s: f64,
    /// Half of the delays are at most this, ns,
    pub half_ns: u64,
    /// and 99 of 100 this.
    pub most_ns: u64,
}

/// What there is to draw. Times are in seconds from the commit.
#[derive(Debug, Clone)]
pub struct Scene {
    /// Which policy by which.
    pub title: String,
    /// The windows.
    pub dots: Vec<Dot>,
    /// The same of all that was before the swap: half, and 99 of 100, ns.
    pub baseline_ns: Option<(u64, u64)>,
    /// While the new policy was loaded and verified.
    pub load_s: (f64, f64),
    /// How long the commit took, ns.
    pub commit_ns: u64,
    /// How long no policy was in charge, ns: in a reattach.
    pub gap_ns: u64,
    /// While records were brought up to date.
    pub sweep_s: Option<(f64, f64)>,
    /// When yet another generation took over, and which.
    pub next: Option<(f64, u32)>,
    /// Beginning and end of the recording.
    pub span_s: (f64, f64),
}

/// The scene as an SVG document.
///
/// # Errors
/// It cannot be drawn.
pub fn svg(scene: &Scene) -> anyhow::Result<String> {
    let mut svg = String::new();
    let title = format!("Wake-up delay around a swap: {}", scene.title);
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let style = TextStyle::from(("sans-serif", 19).into_font()).pos(Pos::new(HPos::Center, VPos::Top));
        root.draw(&Text::new(title.as_str(), (SIZE.0 as i32 / 2, 10), style))?;
        legend(&root)?;
        chart(&root, scene)?;
        root.present()?;
    }
    // For who has it read out. Names of policies have no markup in them, or the text above would not be drawn as it is.
    let title = title.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
    Ok(svg.replacen("<svg ", &format!("<svg role=\"img\" aria-label=\"{title}\" "), 1))
}

fn legend(root: &Area<'_>) -> anyhow::Result<()> {
    let baseline = "p50 to p99 before the swap";
    let meanings =
        [("p99 of 50 ms", RED), ("p50 of 50 ms", BLUE), (baseline, GREY), ("load and verify", ORANGE)];
    let mut x = LEFT as i32 + 12;
    for (i, (meaning, colour)) in meanings.into_iter().enumerate() {
        let (y, dot) = (44, i < 2);
        match dot {
            true => root.draw(&Circle::new((x + 5, y + 6), 4, colour.filled()))?,
            false => root.draw(&Rectangle::new([(x, y), (x + 11, y + 11)], colour.mix(0.3).filled()))?,
        }
        root.draw(&Text::new(meaning, (x + 16, y + 6), aligned(HPos::Left, VPos::Center)))?;
        x += if dot { 130 } else { 230 };
    }
    Ok(())
}

fn chart(root: &Area<'_>, scene: &Scene) -> anyhow::Result<()> {
    let (from, to) = scene.span_s;
    let baseline = scene.baseline_ns.into_iter().flat_map(|(half, most)| [half, most]);
    let delays = scene.dots.iter().flat_map(|dot| [dot.half_ns, dot.most_ns]).chain(baseline);
    // A zero has no place on such an axis.
    let (least, most) = delays
        .map(|ns| ns.max(1) as f64)
        .fold((f64::INFINITY, 1.0_f64), |(least, most), ns| (least.min(ns), most.max(ns)));
    let least = if least.is_finite() { 10f64.powf(least.log10().floor()) } else { 1.0 };
    let mut chart = ChartBuilder::on(root)
        .margin(12)
        .margin_top(ABOVE)
        .set_label_area_size(LabelAreaPosition::Left, LEFT)
        .set_label_area_size(LabelAreaPosition::Bottom, BELOW)
        .build_cartesian_2d(from..to.max(from + 0.001), (least..most.max(least) * 2.0).log_scale())?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE)
        .bold_line_style(BLACK.mix(0.12))
        .label_style(font())
        .x_desc("seconds from the commit")
        .x_label_formatter(&|s| format!("{s:.0}"))
        .y_label_formatter(&|ns| tick(*ns))
        .draw()?;

    let (floor, ceiling) = (chart.backend_coord(&(from, least)).1, ABOVE as i32);
    let x = |s: f64| chart.backend_coord(&(s.clamp(from, to), least)).0;
    let y = |ns: u64| chart.backend_coord(&(from, ns.max(1) as f64)).1;
    let band = |(begin, end): (f64, f64), colour: RGBColor, depth: f64| {
        let (left, right) = (x(begin), x(end).max(x(begin) + NARROWEST));
        Rectangle::new([(left, ceiling), (right, floor)], colour.mix(depth).filled())
    };
    if let Some((half, most)) = scene.baseline_ns {
        root.draw(&Rectangle::new([(x(from), y(most)), (x(to), y(half))], GREY.mix(0.3).filled()))?;
    }
    root.draw(&band(scene.load_s, ORANGE, 0.2))?;
    if let Some(sweep) = scene.sweep_s {
        root.draw(&band(sweep, GREEN, 0.6))?;
        let name = format!("sweep {}", duration(((sweep.1 - sweep.0) * 1e9) as u64));
        let at = (x(sweep.1).max(x(sweep.0) + NARROWEST) + 5, ceiling - 4);
        root.draw(&Text::new(name, at, aligned(HPos::Left, VPos::Bottom).color(&GREEN)))?;
    }
    let line = |at: f64, colour: RGBColor| PathElement::new([(x(at), ceiling - 18), (x(at), floor)], colour);
    root.draw(&line(0.0, BLACK))?;
    let name = match scene.gap_ns {
        0 => format!("commit {}", duration(scene.commit_ns)),
        gap => format!("commit, in a reattach of {}", duration(gap)),
    };
    root.draw(&Text::new(name, (x(0.0) - 5, ceiling - 4), aligned(HPos::Right, VPos::Bottom)))?;
    if let Some((at, generation)) = scene.next {
        root.draw(&line(at, RED))?;
        let name = format!("generation {generation}");
        root.draw(&Text::new(name, (x(at) + 5, ceiling - 4), aligned(HPos::Left, VPos::Bottom).color(&RED)))?;
    }
    for dot in &scene.dots {
        for (ns, colour) in [(dot.half_ns, BLUE), (dot.most_ns, RED)] {
            root.draw(&Circle::new((x(dot.at_s), y(ns)), 3, colour.mix(0.8).filled()))?;
        }
    }
    Ok(())
}

/// A delay on the axis: a round one.
fn tick(ns: f64) -> String {
    match ns {
        0.0..1e3 => format!("{ns:.0} ns"),
        1e3..1e6 => format!("{:.0} us", ns / 1e3),
        1e6..1e9 => format!("{:.0} ms", ns / 1e6),
        _ => format!("{:.0} s", ns / 1e9),
    }
}

fn font() -> TextStyle<'static> {
    ("sans-serif", 14).into_font().into()
}

fn aligned(h: HPos, v: VPos) -> TextStyle<'static> {
    font().pos(Pos::new(h, v))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scene() -> Scene {
        let dot = |i: i32| Dot { at_s: f64::from(i) * 0.05, half_ns: 20_000, most_ns: 3_000_000 };
        Scene {
            title: "a 1 → a 2".to_owned(),
            dots: (-60..100).map(dot).collect(),
            baseline_ns: Some((20_000, 3_000_000)),
            load_s: (-0.9, 0.0),
            commit_ns: 601,
            gap_ns: 0,
            sweep_s: Some((0.002, 0.0056)),
            next: None,
            span_s: (-3.0, 5.0),
        }
    }

    fn has(svg: &str, tag: &str) -> usize {
        svg.matches(&format!("<{tag} ")).count()
    }

    #[test]
    fn every_window_and_every_mark_is_there() {
        let drawn = svg(&scene()).unwrap();
        // Two of each window, and two in what they mean.
        assert_eq!(has(&drawn, "circle"), 2 * 160 + 2);
        // The sheet, two meanings, the baseline, loading and the sweep.
        assert_eq!(has(&drawn, "rect"), 6);
        for words in ["commit 601 ns", "sweep 3600.0 us", "seconds from the commit", "a 1 → a 2", "10 us"] {
            assert!(drawn.contains(words), "{words}: {drawn}");
        }
        assert!(!drawn.contains("generation"));
        assert_eq!(drawn, svg(&scene()).unwrap());
    }

    #[test]
    fn what_is_missing_is_left_out() {
        let bare = Scene { dots: vec![], baseline_ns: None, sweep_s: None, ..scene() };
        let drawn = svg(&bare).unwrap();
        assert!(!drawn.contains("sweep") && has(&drawn, "circle") == 2);
        for odd in [
            Scene { gap_ns: 40_000_000, next: Some((2.5, 3)), title: "<\"&\">".to_owned(), ..scene() },
            Scene { dots: vec![Dot { at_s: 0.0, half_ns: 0, most_ns: 0 }], span_s: (0.0, 0.0), ..bare },
        ] {
            let drawn = svg(&odd).unwrap();
            assert!(drawn.starts_with("<svg role=\"img\" aria-label=") && drawn.contains("</svg>"));
            assert!(!drawn.contains("NaN") && !drawn.contains("inf") && !drawn.contains("<\""), "{drawn}");
        }
    }
}
