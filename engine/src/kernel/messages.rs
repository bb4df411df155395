//! What the kernel logs of sched_ext while a scheduler is attached. Some refusals leave user space nothing but an errno.

use std::fs::File;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::os::unix::fs::OpenOptionsExt;

/// How many lines go into a message, the latest.
const LINES: usize = 4;
/// How many records are read, so that a machine that logs without end does not hold a command up.
const RECORDS: usize = 10_000;

/// A place in the kernel's log.
#[derive(Debug)]
pub(crate) struct KernelLog(Option<File>);

impl KernelLog {
    /// Its present end. What cannot be read stays unread: a message without the kernel's words is a message still.
    pub fn mark() -> KernelLog {
        let open =
            File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open("/dev/kmsg");
        let at_end = |mut file: File| file.seek(SeekFrom::End(0)).ok().map(|_| file);
        KernelLog(open.ok().and_then(at_end))
    }

    /// What the kernel has logged of sched_ext since.
    pub fn words(&mut self) -> String {
        let Some(file) = &mut self.0 else { return String::new() };
        let mut lines = Vec::new();
        let mut record = [0; 8192];
        for _ in 0..RECORDS {
            match file.read(&mut record) {
                Ok(0) => break,
                Ok(length) => lines.extend(of_sched_ext(&String::from_utf8_lossy(&record[..length]))),
                // It was overwritten before it was read.
                Err(e) if e.kind() == ErrorKind::BrokenPipe || e.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        joined(&lines)
    }
}

/// The message of a record of `/dev/kmsg`, if it is of sched_ext: `6,339,5140900,-;text`, and lines of properties behind it.
fn of_sched_ext(record: &str) -> Option<String> {
    let (_, text) = record.split_once(';')?;
    let line = text.lines().next().unwrap_or_default().trim();
    line.contains("sched_ext").then(|| line.to_string())
}

fn joined(lines: &[String]) -> String {
    lines[lines.len().saturating_sub(LINES)..].join("; ")
}

/// How words of the kernel's end a message.
pub(crate) fn suffix(words: &str) -> String {
    match words {
        "" => String::new(),
        words => format!(". The kernel logged: {words}{}", advice(words)),
    }
}

/// What to do about it, where the kernel's words say that.
fn advice(words: &str) -> &'static str {
    if words.contains("failed to attach ext_server") {
        ". It has no deadline bandwidth left for the server of sched_ext: raise kernel.sched_rt_runtime_us, or end \
         SCHED_DEADLINE tasks"
    } else if words.contains("isolcpus=") {
        ". Boot without isolcpus="
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_lines_of_sched_ext_are_taken_and_only_the_latest() {
        let record =
            "4,900,5140900,-;sched_ext: failed to attach ext_server on CPU 1 (-16)\n SUBSYSTEM=cpu\n";
        let line = of_sched_ext(record).unwrap();
        assert_eq!(line, "sched_ext: failed to attach ext_server on CPU 1 (-16)");
        assert_eq!(of_sched_ext("6,1,2,-;usb 1-1: new device\n DEVICE=sched_ext\n"), None);
        assert_eq!(of_sched_ext("no record"), None);
        let many: Vec<String> = (0..9).map(|n| n.to_string()).collect();
        assert_eq!(joined(&many), "5; 6; 7; 8");
        assert_eq!(joined(&[]), "");
    }

    #[test]
    fn words_that_say_what_to_do_are_followed_by_it() {
        let busy = suffix("sched_ext: failed to attach ext_server on CPU 1 (-16)");
        assert!(busy.contains("CPU 1 (-16)") && busy.contains("kernel.sched_rt_runtime_us"), "{busy}");
        let isolated = suffix("sched_ext: Not compatible with \"isolcpus=\" domain isolation");
        assert!(isolated.ends_with("Boot without isolcpus="), "{isolated}");
        assert_eq!(suffix(""), "");
    }
}
