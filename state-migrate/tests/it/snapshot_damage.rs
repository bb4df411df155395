//! Damaged snapshots are refused, and the message says how.

use state_migrate::snapshot::VERSION;
use state_migrate::{Snapshot, SnapshotError};

use crate::snapshot::{full, tiny};

const HEADER: usize = 24;

/// Puts length and checksums right.
fn seal(mut raw: Vec<u8>) -> Vec<u8> {
    let len = raw.len();
    raw[12..20].copy_from_slice(&(len as u64).to_le_bytes());
    let header = crc32fast::hash(&raw[..20]);
    raw[20..HEADER].copy_from_slice(&header.to_le_bytes());
    let whole = crc32fast::hash(&raw[..len - 4]);
    raw[len - 4..].copy_from_slice(&whole.to_le_bytes());
    raw
}

/// What comes of the tiny snapshot with these bytes at `at` instead, checksums right.
fn edited(at: usize, bytes: &[u8]) -> SnapshotError {
    let mut raw = tiny().to_bytes().unwrap();
    raw[at..at + bytes.len()].copy_from_slice(bytes);
    Snapshot::from_bytes(&seal(raw)).unwrap_err()
}

/// A snapshot of these sections: number and content.
fn of_sections(sections: &[(u16, &[u8])]) -> Result<Snapshot, SnapshotError> {
    let mut raw = tiny().to_bytes().unwrap()[..HEADER].to_vec();
    for (number, content) in sections {
        raw.extend(number.to_le_bytes());
        raw.extend((content.len() as u32).to_le_bytes());
        raw.extend_from_slice(content);
    }
    raw.extend([0; 4]);
    Snapshot::from_bytes(&seal(raw))
}

const META: (u16, &[u8]) = (1, &[0; 30]);
const NONE: &[u8] = &[0; 6];

/// What is wrong with this CPU table.
fn cpu_table(content: &[u8]) -> String {
    match of_sections(&[META, (2, NONE), (3, NONE), (4, content), (5, NONE)]) {
        Err(SnapshotError::Malformed { what, .. }) => what.to_owned(),
        other => format!("{other:?}"),
    }
}

#[test]
fn every_flipped_bit_is_found() {
    let good = full().to_bytes().unwrap();
    for bit in 0..good.len() * 8 {
        let mut raw = good.clone();
        raw[bit / 8] ^= 1 << (bit % 8);
        let error = Snapshot::from_bytes(&raw).unwrap_err();
        let expected = match bit / 8 {
            0..8 => matches!(error, SnapshotError::NotSnapshot),
            8..HEADER => matches!(error, SnapshotError::HeaderDamaged),
            _ => matches!(error, SnapshotError::Damaged),
        };
        assert!(expected, "bit {bit}: {error}");
    }
}

#[test]
fn every_cut_is_found() {
    let good = full().to_bytes().unwrap();
    assert!(matches!(Snapshot::from_bytes(&[]), Err(SnapshotError::NotSnapshot)));
    for len in 1..good.len() {
        let error = Snapshot::from_bytes(&good[..len]).unwrap_err();
        assert!(matches!(error, SnapshotError::Truncated { .. }), "{len} bytes: {error}");
    }
    let mut longer = good.clone();
    longer.push(0);
    let text = Snapshot::from_bytes(&longer).unwrap_err().to_string();
    assert!(text.contains("appended") && text.contains(&good.len().to_string()), "{text}");
}

#[test]
fn newer_and_older_versions_are_named() {
    let text = edited(8, &[2, 0]).to_string();
    assert!(text.contains("version 2.0") && text.contains(&format!("up to {VERSION}")), "{text}");
    assert!(matches!(edited(10, &[1]), SnapshotError::Newer { .. }));
    assert!(matches!(edited(8, &[0, 0, 255, 255]), SnapshotError::TooOld { .. }));
}

#[test]
fn other_files_are_not_snapshots() {
    for other in [&b"{}"[..], b"\x7fELF\x02\x01\x01", b"SCXSNAPS and more of it than a header has"] {
        assert!(matches!(Snapshot::from_bytes(other), Err(SnapshotError::NotSnapshot)));
    }
}

#[test]
fn sections_are_all_there_once_and_in_order() {
    let all = [META, (2, NONE), (3, NONE), (4, NONE), (5, NONE)];
    assert_eq!(of_sections(&all).unwrap(), Snapshot::default());
    let wrong = |sections: &[_]| match of_sections(sections) {
        Err(SnapshotError::Malformed { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    for missing in 0..4 {
        let mut sections = all.to_vec();
        sections.remove(missing);
        assert!(wrong(&sections).contains("section is missing"), "{missing}");
    }
    assert!(wrong(&all[..4]).contains("larger than what follows"));
    assert!(wrong(&[META, META]).contains("twice"));
    assert!(wrong(&[&all[..], &[(6, NONE)]].concat()).contains("behind the end"));
    assert!(wrong(&[(1, &[0; 31]), (2, NONE), (3, NONE), (4, NONE), (5, NONE)]).contains("behind the end"));
    assert!(wrong(&[(1, &[0; 29]), (2, NONE), (3, NONE), (4, NONE), (5, NONE)]).contains("larger"));
    let mut meta = [0; 31];
    (meta[24], meta[26]) = (1, 0xff);
    assert!(wrong(&[(1, &meta), (2, NONE), (3, NONE), (4, NONE), (5, NONE)]).contains("UTF-8"));
    let mut line = meta;
    line[26] = b'\n';
    assert!(wrong(&[(1, &line), (2, NONE), (3, NONE), (4, NONE), (5, NONE)]).contains("control characters"));
}

#[test]
fn tables_say_what_is_wrong_with_them() {
    let good = [1, 0, 1, b'n', 0, 1, 1, 1, 0, 0, 0, 9, 0, 0, 0, 7];
    assert!(cpu_table(&good).starts_with("Ok("));
    let wrong = |at: usize, bytes: &[u8]| {
        let mut table = good.to_vec();
        table[at..at + bytes.len()].copy_from_slice(bytes);
        cpu_table(&table)
    };
    assert!(wrong(0, &[65]).contains("columns"), "too many columns");
    assert!(wrong(7, &[1, 0, 1, 0]).contains("CPUs"), "too many rows");
    assert!(wrong(7, &[0, 1]).contains("larger than what follows"), "rows that are not there");
    assert!(wrong(7, &[0]).contains("behind the end"), "a row that is not counted");
    assert!(wrong(5, &[0]).contains("unknown kind of type"));
    assert!(wrong(5, &[9]).contains("unknown kind of type"));
    assert!(wrong(6, &[3]).contains("1, 2, 4 or 8"));
    assert!(wrong(2, &[200]).contains("larger"));
    assert!(cpu_table(&[1, 0, 0, 0, 3, 0, 0, 0, 0]).contains("without a name"));
    assert!(cpu_table(&[0, 0, 1, 0, 0, 0, 9, 0, 0, 0]).contains("rows without columns"));
    let two = |a, b| cpu_table(&[2, 0, 1, a, 0, 3, 1, b, 0, 3, 0, 0, 0, 0]);
    assert!(two(b'a', b'b').starts_with("Ok("));
    assert!(two(b'b', b'a').contains("columns that do not ascend"));
    assert!(two(b'a', b'a').contains("columns that do not ascend"));
    let rows = |a, b| cpu_table(&[1, 0, 1, b'n', 0, 3, 2, 0, 0, 0, a, 0, 0, 0, 1, b, 0, 0, 0, 1]);
    assert!(rows(1, 2).starts_with("Ok("));
    assert!(rows(2, 1).contains("rows that do not ascend"));
    assert!(rows(2, 2).contains("rows that do not ascend"));
    // Arrays of arrays of …
    let mut deep = vec![1, 0, 1, b'n', 0];
    deep.extend([6, 1, 0, 0, 0].repeat(30));
    assert!(cpu_table(&deep).contains("too deep"));
    // A struct in which each field is a type of its own.
    let mut many = vec![1, 0, 1, b'n', 0, 7, 0, 16, 0, 0, 1, 0, 16];
    many.extend([1, b'f', 0, 0, 0, 0, 3].repeat(4096));
    assert!(cpu_table(&many).contains("too many parts"));
    let dots = [1, 0, 1, b'n', 0, 3, 1, 0, 0, 0, 3, 0, b'/', b'.', b'.', 1];
    let error = of_sections(&[META, (2, NONE), (3, &dots), (4, NONE), (5, NONE)]).unwrap_err();
    assert!(error.to_string().contains("a path that no cgroup has"), "{error}");
    let error = of_sections(&[META, (2, NONE), (3, NONE), (4, NONE), (5, &[0, 0, 2, 0, 0, 0])]).unwrap_err();
    assert!(error.to_string().contains("2 global records, at most 1"), "{error}");
}

#[test]
fn a_claimed_count_takes_no_memory() {
    // 4,194,304 tasks of 1 MiB each, and not one of them there.
    let table = [1, 0, 1, b'n', 0, 6, 0, 0, 16, 0, 3, 0, 0, 64, 0];
    let error = of_sections(&[META, (2, &table), (3, NONE), (4, NONE), (5, NONE)]).unwrap_err();
    assert!(matches!(error, SnapshotError::Malformed { .. }), "{error}");
}
