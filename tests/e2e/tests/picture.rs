//! `swap --picture`: the drawing has its marks and as many dots as there were windows, and nothing is swapped where it could
//! not be written.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::Path;

use e2e::Busy;
use e2e::Cgroup;
use e2e::EnabledWatch;
use e2e::cli;
use e2e::fresh;
use e2e::load;
use e2e::objects;
use e2e::report;
use e2e::status;
use e2e::wait_until;

const V1: &str = "/bin/scx_fair_v1";
const V2: &str = "/bin/scx_fair_v2";
const FILE: &str = "/tmp/picture.svg";

fn has(svg: &str, tag: &str) -> usize {
    svg.matches(&format!("<{tag} ")).count()
}

/// What the file has, which is removed.
fn taken() -> String {
    let svg = fs::read_to_string(FILE).unwrap();
    assert!(svg.starts_with("<svg role=\"img\"") && svg.trim_end().ends_with("</svg>"), "{svg}");
    fs::remove_file(FILE).unwrap();
    svg
}

#[test]
fn a_picture_has_its_marks_and_its_dots() {
    fresh();
    let load = load(200);
    let busy = Busy::start(&Cgroup::root());
    report(&["run", V1]);
    let held = objects();
    let watch = EnabledWatch::start();

    let swap = report(&["swap", "--picture", FILE, V2]);
    assert!(swap.committed_at_ns > 0);
    let svg = taken();
    println!("{} bytes, {} dots", svg.len(), has(&svg, "circle"));
    for words in
        ["scx_fair 1.0.0 → scx_fair 2.0.0", "commit ", "sweep ", "load and verify", "seconds from the commit"]
    {
        assert!(svg.contains(words), "{words:?} is not in {svg}");
    }
    // 8 s and the load, in windows of 50 ms; where the machine is slow these are longer. Two dots each, two for what they mean.
    assert!(has(&svg, "circle") > 2 + 2 * 40, "{}", has(&svg, "circle"));
    // The sheet, two meanings, the baseline, loading, the sweep.
    assert_eq!(has(&svg, "rect"), 6);
    assert!(!svg.contains("NaN"));

    // With probation as well. Nothing is swept where nothing is converted.
    let again = report(&["swap", "--picture", FILE, "--probation", "2s", "--baseline", "2s", V2]);
    let svg = taken();
    assert!(svg.contains("commit ") && !svg.contains("sweep "), "{svg}");
    assert_eq!(has(&svg, "rect"), 5);
    assert_eq!(again.generation, 3);
    watch.finish();
    wait_until("what counted is gone", || objects().links <= held.links);
    // It has the load's pipes open, being born later.
    drop(busy);
    load.stop().unwrap();
    fresh();
}

#[test]
fn nothing_is_swapped_where_the_picture_could_not_be_written() {
    fresh();
    report(&["run", V1]);
    let watch = EnabledWatch::start();
    for file in ["/no/such/folder/picture.svg", "/tmp", "/proc/picture.svg", "/dev/null"] {
        for dry in [&[][..], &["--dry-run"]] {
            let ran = cli(&[&["swap", "--picture", file][..], dry, &[V2]].concat());
            assert_eq!(ran.code, 1, "{file}: {}{}", ran.out, ran.err);
            assert!(ran.err.contains(&format!("cannot write the picture {file}")), "{}", ran.err);
        }
    }
    // A swap that fails leaves what was there, and nothing beside it.
    fs::write(FILE, "old").unwrap();
    let before = fs::read_dir("/tmp").unwrap().count();
    assert_eq!(cli(&["swap", "--picture", FILE, "/bin/bad_type"]).code, 4);
    assert_eq!(fs::read_to_string(FILE).unwrap(), "old");
    assert_eq!(fs::read_dir("/tmp").unwrap().count(), before);
    fs::remove_file(FILE).unwrap();
    assert_eq!(status().generation, 1);
    assert!(Path::new("/dev/null").exists());
    watch.finish();
    fresh();
}
