use super::*;
use proptest::prelude::*;

const LARGE_SEGMENT: u64 = 1 << 20;

impl Journal {
    /// Makes each later write fail, as on a full device.
    pub fn refuse_writes(&mut self) {
        let path = self.directory.path(&Kind::Segment.name(self.active_start));
        self.active = Arc::new(File::open(path).unwrap());
    }

    /// Returns the number of segments.
    pub fn segments(&self) -> usize {
        self.segments.len()
    }
}

fn replay(path: &Path) -> Result<(Journal, Vec<Bytes>), JournalError> {
    let mut payloads = Vec::new();
    let mut journal = Journal::open(path, LARGE_SEGMENT)?;
    journal.replay(0, |payload, _| {
        payloads.push(payload);
        Ok(())
    })?;
    Ok((journal, payloads))
}

fn written(path: &Path, payloads: &[Vec<u8>]) -> Vec<u64> {
    let (mut journal, _) = replay(path).unwrap();
    payloads.iter().map(|payload| journal.append(payload).unwrap() + payload.len() as u64).collect()
}

fn first_segment(dir: &Path) -> std::path::PathBuf {
    dir.join(Kind::Segment.name(0))
}

#[test]
fn a_segment_cut_at_any_byte_recovers_exactly_the_frames_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = first_segment(dir.path());
    let payloads = vec![vec![1; 3], vec![0; 40], b"a third".to_vec()];
    let ends = written(dir.path(), &payloads);
    let bytes = std::fs::read(&path).unwrap();
    for cut in 0..=bytes.len() {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        let whole = ends.iter().filter(|end| **end <= cut as u64).count();
        let (mut journal, found) = replay(dir.path()).unwrap();
        assert_eq!(found, payloads[..whole], "cut at byte {cut}");
        journal.append(b"next").unwrap();
        drop(journal);
        let (_, found) = replay(dir.path()).unwrap();
        assert_eq!(found.len(), whole + 1);
        assert_eq!(found[whole], "next");
    }
}

#[test]
fn zeros_at_the_end_are_truncated() {
    let dir = tempfile::tempdir().unwrap();
    let path = first_segment(dir.path());
    written(dir.path(), &[b"kept".to_vec()]);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend([0; 100]);
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(replay(dir.path()).unwrap().1, ["kept"]);
}

#[test]
fn a_file_of_another_format_is_refused_and_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path().join("journal"), first_segment(dir.path())] {
        for content in ["short", "something else entirely"] {
            std::fs::write(&path, content).unwrap();
            assert!(matches!(replay(dir.path()), Err(JournalError::Format(_))));
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        }
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn a_journal_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _first = replay(dir.path()).unwrap();
    assert!(matches!(replay(dir.path()), Err(JournalError::Locked(_))));
}

#[test]
fn a_journal_of_one_file_becomes_the_first_segment_even_if_that_is_interrupted() {
    let dir = tempfile::tempdir().unwrap();
    let old = dir.path().join("journal");
    let mut content = BytesMut::from(&SEGMENT_MAGIC[..]);
    frame::encode(b"old", &mut content).unwrap();
    for interrupted in [false, true] {
        let _ = std::fs::remove_file(first_segment(dir.path()));
        std::fs::write(&old, &content).unwrap();
        if interrupted {
            std::fs::hard_link(&old, first_segment(dir.path())).unwrap();
        }
        let (mut journal, found) = replay(dir.path()).unwrap();
        assert_eq!(found, ["old"]);
        assert!(matches!(replay(dir.path()), Err(JournalError::Locked(_))));
        journal.append(b"new").unwrap();
        drop(journal);
        assert_eq!(replay(dir.path()).unwrap().1, ["old", "new"]);
    }
}

#[test]
fn frames_of_all_segments_are_replayed_and_read_by_position() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = replay(dir.path()).unwrap();
    let mut positions = Vec::new();
    for name in ["first", "second", "third"] {
        positions.push((name, journal.append(name.as_bytes()).unwrap()));
        journal.begin_segment().unwrap();
    }
    let check = |journal: &Journal| {
        for (name, position) in &positions {
            let mut buffer = vec![0; name.len()];
            journal.reader().read_into(&mut buffer, *position).unwrap();
            assert_eq!(buffer, name.as_bytes());
        }
    };
    check(&journal);
    drop(journal);
    check(&replay(dir.path()).unwrap().0);
    assert_eq!(replay(dir.path()).unwrap().1, ["first", "second", "third"]);
}

#[test]
fn segments_without_a_limit_are_never_full() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(dir.path(), u64::MAX).unwrap();
    journal.replay(0, |_, _| Ok(())).unwrap();
    journal.append(b"entry").unwrap();
    assert!(!journal.is_full());
    journal.begin_segment().unwrap();
    assert!(!journal.is_full());
    drop(journal);
    assert!(!Journal::open(dir.path(), u64::MAX).unwrap().is_full());
}

#[test]
fn a_missing_or_shortened_segment_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = replay(dir.path()).unwrap();
    let second = journal.append(b"first").unwrap() + 5;
    journal.begin_segment().unwrap();
    journal.append(b"second").unwrap();
    let third = journal.end;
    journal.begin_segment().unwrap();
    drop(journal);
    let path = dir.path().join(Kind::Segment.name(second));
    let content = std::fs::read(&path).unwrap();
    for damage in [None, Some(&content[..content.len() - 1]), Some(&content[..10])] {
        match damage {
            Some(rest) => std::fs::write(&path, rest).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        assert!(matches!(replay(dir.path()), Err(JournalError::Damaged { .. })));
    }
    std::fs::write(&path, content).unwrap();
    assert_eq!(replay(dir.path()).unwrap().0.active_start(), third);
}

#[test]
fn segments_without_used_positions_are_removed_unless_a_start_replays_them() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = replay(dir.path()).unwrap();
    let mut used = Used::default();
    for index in 0..5 {
        let position = journal.append(b"entry").unwrap();
        if index == 2 {
            used.ranges.push((position, position));
        }
        journal.begin_segment().unwrap();
    }
    journal.remove_unused_segments(&used).unwrap();
    assert_eq!(journal.segments.len(), 6);
    journal.create_index().unwrap();
    journal.write_checkpoint(std::iter::empty()).unwrap();
    let reader = journal.reader();
    journal.remove_unused_segments(&used).unwrap();
    assert_eq!(journal.segments.len(), 2);
    assert_eq!(journal.directory.positions(Kind::Segment).unwrap().len(), 2);
    journal.check_used(&used).unwrap();
    let mut buffer = [0; 5];
    reader.read_into(&mut buffer, MAGIC_LENGTH + 8).unwrap();
    assert_eq!(&buffer, b"entry", "a reader keeps the segments that it began with");
    used.ranges.push((MAGIC_LENGTH + 8, MAGIC_LENGTH + 8));
    assert!(matches!(journal.check_used(&used), Err(JournalError::Damaged { .. })));
}

proptest! {
    #[test]
    fn what_is_appended_is_replayed(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..20)) {
        let dir = tempfile::tempdir().unwrap();
        written(dir.path(), &payloads);
        let (_, found) = replay(dir.path()).unwrap();
        prop_assert_eq!(found, payloads);
    }

    #[test]
    fn an_invalid_frame_before_a_valid_one_is_an_error(flaw in 8_usize..60, bit in 0_u8..8) {
        let dir = tempfile::tempdir().unwrap();
        let path = first_segment(dir.path());
        written(dir.path(), &[vec![7; 44], vec![9; 100]]);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[flaw] ^= 1_u8 << bit;
        std::fs::write(&path, &bytes).unwrap();
        let damaged = matches!(replay(dir.path()), Err(JournalError::Damaged { position: 8, .. }));
        prop_assert!(damaged);
        prop_assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }
}
