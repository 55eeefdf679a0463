use super::super::record::OutgoingRecord;
use super::*;

const NOW: i64 = 1_000_000;

fn followed() -> Followed {
    let place = Place {
        next: 0,
        last: None,
        began: 0,
        written: None,
        empty_until: i64::MIN,
        suspicion: Suspicion::None,
    };
    Followed {
        topic: "created".into(),
        backlog: Backlog::Whole,
        places: [(0, place)].into(),
        is_missing: false,
        silent: SilentPartitions::default(),
    }
}

fn record(offset: i64, timestamp: i64) -> Record {
    let value = Some(offset.to_string().into_bytes());
    let written = OutgoingRecord { topic: "created".to_owned(), key: None, value, headers: Vec::new() };
    Record::of(&written, 0, offset, Some(timestamp))
}

/// Reads records with these times, and returns what is seen.
fn read(followed: &mut Followed, times: &[i64]) -> usize {
    let mut records = 0;
    for (offset, time) in (0..).zip(times) {
        assert!(followed.see(record(offset, *time), &mut |sight| {
            records += usize::from(matches!(sight, Sight::Record(_)));
        }));
    }
    records
}

fn is_recreated(sight: &Sight) -> bool {
    matches!(sight, Sight::Recreated(_))
}

#[test]
fn records_that_are_not_in_the_order_of_their_times_cause_no_suspicion() {
    let mut followed = followed();
    assert_eq!(read(&mut followed, &[NOW, NOW + 2_000, NOW + 1]), 3);
    assert_eq!(followed.places[&0].written, Some(NOW + 2_000));
}

#[test]
fn a_suspicion_waits_until_the_last_record_is_compared_and_is_refuted_once() {
    let mut followed = followed();
    let mut sights = Vec::new();
    read(&mut followed, &[NOW, NOW + 1, NOW + 2]);
    let now = Instant::now();
    assert!(followed.is_doubtful(0, 1, now, &mut |sight| sights.push(sight)));
    // The new client has not read anything yet.
    assert!(!followed.is_doubtful(0, 1, now, &mut |sight| sights.push(sight)));
    assert!(followed.see(record(2, NOW + 2), &mut |sight| sights.push(sight)));
    assert!(!followed.is_doubtful(0, 1, now, &mut |sight| sights.push(sight)));
    assert!(followed.see(record(3, NOW + 3), &mut |_| {}));
    assert!(!followed.is_doubtful(0, 1, now + DELIVERY_LIMIT, &mut |sight| sights.push(sight)));
    assert!(sights.is_empty(), "{sights:?}");
    assert!(followed.is_doubtful(0, 2, now, &mut |sight| sights.push(sight)), "another record is newer");
}

#[test]
fn a_log_that_has_outgrown_the_last_record_is_read_again() {
    let mut followed = followed();
    let mut sights = Vec::new();
    read(&mut followed, &[NOW, NOW + 1]);
    assert!(followed.is_doubtful(0, 0, Instant::now(), &mut |sight| sights.push(sight)));
    assert!(!followed.see(record(1, NOW + 500), &mut |sight| sights.push(sight)));
    assert!(sights.iter().all(is_recreated) && sights.len() == 1, "{sights:?}");
    assert!(followed.places.is_empty());
}

#[test]
fn a_log_without_the_last_record_is_read_again_after_some_time() {
    let mut followed = followed();
    let mut sights = Vec::new();
    read(&mut followed, &[NOW, NOW + 1]);
    let now = Instant::now();
    assert!(followed.is_doubtful(0, 0, now, &mut |sight| sights.push(sight)));
    assert!(followed.is_doubtful(0, 0, now + DELIVERY_LIMIT, &mut |sight| sights.push(sight)));
    assert!(sights.iter().all(is_recreated) && sights.len() == 1, "{sights:?}");
}
