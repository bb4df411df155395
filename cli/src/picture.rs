//! `--picture`: wake-up delays over time around a swap, as a drawing (SVG).

mod draw;

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use anyhow::bail;
use scx_upgrade_engine::host::pins::Pins;
use scx_upgrade_engine::observe::guard::recorder::Recorder;
use scx_upgrade_engine::observe::guard::recorder::Window;
use scx_upgrade_engine::observe::guard::sample::Delays;
use scx_upgrade_engine::observe::report::Report;
use scx_upgrade_engine::os::clock::monotonic_ns;
use tempfile::NamedTempFile;

use self::draw::Dot;
use self::draw::Scene;
use crate::failure::Failure;

/// Each dot is of so long.
const WINDOW: Duration = Duration::from_millis(50);
/// What is shown before the swap begins, and is its baseline.
const BEFORE: Duration = Duration::from_secs(3);
/// What is shown after its commit.
const AFTER: Duration = Duration::from_secs(5);

/// A place for the drawing, which can be written. What is there is as it was until the drawing is done.
#[derive(Debug)]
pub struct Sheet {
    path: PathBuf,
    new: NamedTempFile,
}

impl Sheet {
    /// Beside what it is to replace: a plain file, or none yet. A link is replaced, not followed.
    ///
    /// # Errors
    /// Nothing can be written there.
    pub fn at(path: &Path) -> Result<Sheet, Failure> {
        let trying = || format!("cannot write the picture {}", path.display());
        let is_other = |meta: &std::fs::Metadata| !meta.is_file() && !meta.is_symlink();
        if path.file_name().is_none() || path.symlink_metadata().is_ok_and(|meta| is_other(&meta)) {
            let what = anyhow::anyhow!("that is no plain file");
            return Err(what.context(trying()).into());
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let new = tempfile::Builder::new()
            .prefix(".scx-picture.")
            .permissions(Permissions::from_mode(0o644))
            .tempfile_in(folder.unwrap_or(Path::new(".")))
            .with_context(trying)?;
        Ok(Sheet { path: path.to_path_buf(), new })
    }

    fn write(mut self, svg: &str) -> anyhow::Result<()> {
        let trying = || format!("cannot write the picture {}", self.path.display());
        let written = self.new.write_all(svg.as_bytes()).and_then(|()| self.new.as_file().sync_all());
        written.with_context(trying)?;
        self.new
            .persist(&self.path)
            .map(drop)
            .with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// A picture of what happens from now on.
#[derive(Debug)]
pub struct Picture {
    sheet: Sheet,
    recorder: Recorder,
    began_ns: u64,
}

impl Picture {
    /// Begin to record.
    ///
    /// # Errors
    /// No host runs, or the kernel does not take what counts.
    pub fn begin(pins: &Pins, sheet: Sheet) -> Result<Picture, Failure> {
        let recorder = Recorder::start(pins, WINDOW)?;
        log::info!("recording wake-up delays for {}", sheet.path.display());
        Ok(Picture { sheet, recorder, began_ns: monotonic_ns() })
    }

    /// Wait until the baseline is long enough; now the swap may begin.
    pub fn baseline(&mut self) {
        let seen = Duration::from_nanos(monotonic_ns().saturating_sub(self.began_ns));
        std::thread::sleep(BEFORE.saturating_sub(seen));
        self.began_ns = monotonic_ns();
    }

    /// The swap is done. Record on for a while, aside.
    pub fn swapped(&self) {
        self.recorder.end_at(monotonic_ns() + AFTER.as_nanos() as u64);
    }

    /// Wait for the end of the recording, and draw it.
    ///
    /// # Errors
    /// It cannot be drawn or written. What was there is as it was.
    pub fn finish(self, done: &Report) -> anyhow::Result<()> {
        let (windows, error) = self.recorder.finish();
        if let Some(e) = error {
            log::warn!("the recording ends early: {e}");
        }
        let scene = scene(&windows, self.began_ns, done)?;
        self.sheet.write(&draw::svg(&scene)?)
    }
}

/// What there is to see, in seconds from the commit and nanoseconds of delay.
fn scene(windows: &[Window], began_ns: u64, done: &Report) -> anyhow::Result<Scene> {
    let before = began_ns.saturating_sub(BEFORE.as_nanos() as u64);
    let windows: Vec<_> = windows.iter().filter(|w| w.from_ns >= before).collect();
    // A policy that was built before it was told when: then to a window.
    let commit_ns = match done.committed_at_ns {
        0 => windows.iter().find(|w| w.generation == done.generation).map(|w| w.from_ns),
        at => Some(at),
    };
    let Some(commit_ns) = commit_ns else { bail!("the recording ended before the commit") };
    let at = |ns: u64| (ns as f64 - commit_ns as f64) / 1e9;
    let dot = |w: &&&Window| Dot {
        at_s: at(w.from_ns.midpoint(w.to_ns)),
        half_ns: w.delays.percentile(0.5),
        most_ns: w.delays.percentile(0.99),
    };
    let dots: Vec<_> = windows.iter().filter(|w| w.delays.count() > 0).map(|w| dot(&w)).collect();
    let usual = windows.iter().filter(|w| w.to_ns <= began_ns);
    let usual = usual.fold(Delays::default(), |all, window| all.and(&window.delays));
    let t = &done.timings;
    let swept_ns = commit_ns + t.settle_ns;
    // The policy in charge changes once more where the guard takes the new one back.
    let mut later = windows.windows(2).filter(|pair| pair[1].generation > done.generation);
    let next = later.find(|pair| pair[0].generation != pair[1].generation);
    Ok(Scene {
        title: match &done.from {
            Some(from) => format!("{from} → {}", done.to),
            None => done.to.clone(),
        },
        dots,
        baseline_ns: (usual.count() > 0).then(|| (usual.percentile(0.5), usual.percentile(0.99))),
        load_s: (at(commit_ns.saturating_sub(t.load_ns + t.prepare_ns + t.commit_ns)), 0.0),
        commit_ns: t.commit_ns,
        gap_ns: t.gap_ns,
        sweep_s: (t.sweep_ns > 0 && !done.reattached).then(|| (at(swept_ns), at(swept_ns + t.sweep_ns))),
        next: next.map(|pair| (at(pair[1].from_ns), pair[1].generation)),
        span_s: match (windows.first(), windows.last()) {
            (Some(first), Some(last)) => (at(first.from_ns), at(last.to_ns)),
            _ => bail!("nothing was recorded"),
        },
    })
}

#[cfg(test)]
mod tests {
    use scx_upgrade_engine::host::registry::Kind;
    use scx_upgrade_engine::observe::report::Timings;
    use tempfile::TempDir;

    use super::*;

    const MS: u64 = 1_000_000;

    fn window(at_ms: u64, generation: u32, delays_us: &[u64]) -> Window {
        let mut delays = Delays::default();
        delays_us.iter().for_each(|us| delays.add(us * 1000));
        Window { from_ns: at_ms * MS, to_ns: (at_ms + 50) * MS, generation, delays }
    }

    fn report() -> Report {
        Report {
            kind: Kind::Swap,
            generation: 2,
            slot: 1,
            from: Some("a 1".to_owned()),
            to: "a 2".to_owned(),
            reattached: false,
            restored: None,
            columns: vec![],
            queues: vec![],
            swept: vec![],
            tasks_handed_over: 0,
            tasks_rescued: 0,
            timings: Timings { settle_ns: 2 * MS, sweep_ns: 4 * MS, load_ns: 300 * MS, ..Timings::default() },
            committed_at_ns: 9_430 * MS,
            warnings: vec![],
        }
    }

    fn close(a: (f64, f64), b: (f64, f64)) -> bool {
        (a.0 - b.0).abs() < 1e-9 && (a.1 - b.1).abs() < 1e-9
    }

    #[test]
    fn what_is_before_the_swap_is_its_baseline() {
        // From long before the swap begins at 9 s.
        let mut windows: Vec<_> = (0..100).map(|i| window(4_000 + i * 50, 1, &[100, 200])).collect();
        windows.push(window(9_000, 1, &[5_000]));
        windows.push(window(9_400, 2, &[]));
        windows.push(window(9_450, 2, &[300]));
        let scene = scene(&windows, 9_000 * MS, &report()).unwrap();
        assert_eq!(scene.dots.len(), 60 + 2, "3 s of baseline, and the windows that have something");
        assert_eq!(scene.dots.last().unwrap().at_s, 0.045);
        let (half, most) = scene.baseline_ns.unwrap();
        assert!(half <= 100_000 && most <= 200_000 && most > half, "{half} {most}");
        assert!(close(scene.load_s, (-0.3, 0.0)), "{:?}", scene.load_s);
        assert!(close(scene.sweep_s.unwrap(), (0.002, 0.006)), "{:?}", scene.sweep_s);
        assert!(close(scene.span_s, (-3.43, 0.07)), "{:?}", scene.span_s);
        assert!(scene.next.is_none());
    }

    #[test]
    fn without_a_time_the_commit_is_where_the_generation_changes() {
        let windows = [window(9_000, 1, &[1]), window(9_050, 2, &[1]), window(9_100, 3, &[1])];
        let untold = Report { committed_at_ns: 0, ..report() };
        let found = scene(&windows, 9_050 * MS, &untold).unwrap();
        assert!(close(found.span_s, (-0.05, 0.1)), "{:?}", found.span_s);
        assert_eq!(found.next, Some((0.05, 3)), "the guard took it back");
        assert!(scene(&windows[..1], 9_050 * MS, &untold).is_err());
    }

    #[test]
    fn a_sheet_is_written_whole_or_not_at_all() {
        let dir = TempDir::new().unwrap();
        let (file, none) = (dir.path().join("p.svg"), dir.path().join("no/p.svg"));
        std::fs::write(&file, "old").unwrap();
        drop(Sheet::at(&file).unwrap());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "old");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
        Sheet::at(&file).unwrap().write("new").unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
        for bad in [none.as_path(), dir.path(), Path::new("/"), Path::new("/dev/null")] {
            let refused = Sheet::at(bad).unwrap_err();
            assert!(refused.message.contains("cannot write the picture"), "{}", refused.message);
        }
    }
}
