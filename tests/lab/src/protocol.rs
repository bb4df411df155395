//! What the lab and the guest's PID 1 tell each other. Both link this module, so they cannot disagree.
//!
//! In: a [`Manifest`] as JSON at [`MANIFEST`] in the initramfs. Out: everything that the commands print, live, through the
//! port [`OUTPUT_PORT`]; then one result frame through the port [`RESULT_PORT`]. A frame is a [`Header`] as one line
//! of JSON, the bytes of its files one after the other, and [`TRAILER`], which shows that nothing was cut off.

use std::{
    io::{self, BufRead, Read, Write},
    path::{Component, Path},
};

use serde::{Deserialize, Serialize};

/// Where the guest finds its [`Manifest`].
pub const MANIFEST: &str = "/lab/job.json";
/// What the guest's PID 1 writes to the console first of all: the kernel is up.
pub const UP: &str = "lab-init: up";
/// The guest's folder whose files go back to the lab.
pub const OUT: &str = "/out";
/// Name of the virtio port that carries what the commands print.
pub const OUTPUT_PORT: &str = "lab.output";
/// Name of the virtio port that carries the result frame.
pub const RESULT_PORT: &str = "lab.result";
/// The end of a frame.
pub const TRAILER: &[u8] = b"\nend of frame\n";
/// The most bytes of files that a frame may carry, in total: what does not fit is named in [`Header::skipped`].
pub const MAX_FILES: u64 = 256 << 20;
/// The longest header in bytes.
const MAX_HEADER: u64 = 4 << 20;

/// What the guest is to do.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Manifest {
    /// Commands that run as root one after the other, each with its arguments. The next one runs even if one failed.
    pub commands: Vec<Vec<String>>,
    /// Environment variables of all of them, besides `PATH`, `HOME` and `TMPDIR`.
    pub env: Vec<(String, String)>,
    /// Whether the files in [`OUT`] are wanted.
    pub collect: bool,
}

/// How a command ended.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// By itself, with this status.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
    /// It could not be started, for this reason.
    NotStarted(String),
}

impl Ended {
    /// The status as a shell shows it: 128 and the number of the signal, 127 for what did not start.
    #[must_use]
    pub fn status(&self) -> i32 {
        match self {
            Self::Exited(status) => *status,
            Self::Signalled(signal) => 128 + signal,
            Self::NotStarted(_) => 127,
        }
    }
}

/// A file of the guest in a frame.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct FileEntry {
    /// Relative to [`OUT`].
    pub path: String,
    /// In bytes.
    pub size: u64,
}

/// The first line of a frame.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Header {
    /// How each command of the manifest ended, in order.
    pub ended: Vec<Ended>,
    /// The files whose bytes follow, in order.
    pub files: Vec<FileEntry>,
    /// What was in [`OUT`] and is not in the frame, each with the reason.
    pub skipped: Vec<String>,
}

/// Writes a frame. `contents` gives a reader for each file of the header; what it is short of `size` is filled with zeros
/// and what it has more is left out, because the announced size has to hold.
///
/// # Errors
/// When writing fails or `contents` does.
pub fn write_frame<R: Read>(
    out: &mut impl Write,
    header: &Header,
    mut contents: impl FnMut(&FileEntry) -> io::Result<R>,
) -> io::Result<()> {
    let mut line = serde_json::to_vec(header)?;
    line.push(b'\n');
    out.write_all(&line)?;
    for file in &header.files {
        let copied = io::copy(&mut contents(file)?.take(file.size), out)?;
        io::copy(&mut io::repeat(0).take(file.size - copied), out)?;
    }
    out.write_all(TRAILER)?;
    out.flush()
}

/// Reads a frame and leaves its files in the folder `into`.
///
/// # Errors
/// `UnexpectedEof` when the frame is cut off, `InvalidData` when it is not a frame, is larger than allowed or names a file
/// outside of the folder; else what the file system says.
pub fn read_frame(input: &mut impl BufRead, into: &Path) -> io::Result<Header> {
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let cut = || io::Error::new(io::ErrorKind::UnexpectedEof, "the result frame is cut off");

    let mut line = Vec::new();
    input.by_ref().take(MAX_HEADER).read_until(b'\n', &mut line)?;
    if line.last() != Some(&b'\n') {
        return Err(cut());
    }
    let header: Header = serde_json::from_slice(&line)
        .map_err(|error| invalid(format!("the first line of the result frame is no header: {error}")))?;
    let total = header.files.iter().try_fold(0_u64, |sum, file| sum.checked_add(file.size));
    if total.is_none_or(|total| total > MAX_FILES) {
        return Err(invalid(format!("the result frame announces more than {MAX_FILES} bytes of files")));
    }
    for file in &header.files {
        if !is_inside(&file.path) {
            return Err(invalid(format!(
                "the result frame names a file outside of its folder: {:?}",
                file.path
            )));
        }
        let target = into.join(&file.path);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let copied = io::copy(&mut input.by_ref().take(file.size), &mut std::fs::File::create(&target)?)?;
        if copied != file.size {
            return Err(cut());
        }
    }
    let mut trailer = Vec::new();
    input.take(TRAILER.len() as u64).read_to_end(&mut trailer)?;
    if trailer != TRAILER {
        return Err(cut());
    }
    Ok(header)
}

fn is_inside(path: &str) -> bool {
    !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> std::path::PathBuf {
        let folder = std::env::temp_dir().join(format!("lab-protocol-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn header(path: &str, size: u64) -> Header {
        Header {
            ended: vec![Ended::Exited(3), Ended::Signalled(9), Ended::NotStarted("why".to_owned())],
            files: vec![FileEntry { path: path.to_owned(), size }],
            skipped: vec!["fifo: not a regular file".to_owned()],
        }
    }

    fn frame(header: &Header, contents: &'static [u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, header, |_| Ok(contents)).unwrap();
        bytes
    }

    #[test]
    fn frames_come_back_as_they_were() {
        let into = folder("round");
        let sent = header("deep/report.json", 5);
        let got = read_frame(&mut frame(&sent, b"ab\ncd").as_slice(), &into).unwrap();
        assert_eq!(got, sent);
        assert_eq!(got.ended.iter().map(Ended::status).collect::<Vec<_>>(), [3, 137, 127]);
        assert_eq!(std::fs::read(into.join("deep/report.json")).unwrap(), b"ab\ncd");
        std::fs::remove_dir_all(into).unwrap();
    }

    #[test]
    fn a_file_that_changed_size_keeps_the_announced_one() {
        let into = folder("sizes");
        for contents in [&b"ab"[..], b"abcdefgh"] {
            read_frame(&mut frame(&header("x", 4), contents).as_slice(), &into).unwrap();
            assert_eq!(std::fs::read(into.join("x")).unwrap().len(), 4);
        }
        std::fs::remove_dir_all(into).unwrap();
    }

    #[test]
    fn every_cut_is_noticed() {
        let into = folder("cut");
        let whole = frame(&header("x", 4), b"abcd");
        for length in 0..whole.len() {
            let error = read_frame(&mut &whole[..length], &into).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "cut at {length}: {error}");
        }
        std::fs::remove_dir_all(into).unwrap();
    }

    #[test]
    fn files_stay_in_their_folder_and_in_bounds() {
        let into = folder("outside");
        for path in ["../x", "/etc/x", "a/../../x", ""] {
            let error = read_frame(&mut frame(&header(path, 1), b"a").as_slice(), &into).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{path:?}");
        }
        let mut big = serde_json::to_vec(&header("x", u64::MAX)).unwrap();
        big.push(b'\n');
        assert_eq!(read_frame(&mut big.as_slice(), &into).unwrap_err().kind(), io::ErrorKind::InvalidData);
        std::fs::remove_dir_all(into).unwrap();
    }
}
