use super::*;

const ALLOWED: i64 = 30_000;

fn ledger() -> Ledger {
    let mut ledger = Ledger::default();
    ledger.begin(10, 0);
    ledger
}

fn passed(estimated: i64, advertised: i64) -> Passed {
    Passed { estimated: [(0, estimated)].into(), advertised: [(0, advertised)].into() }
}

fn suspects(ledger: &mut Ledger, passed: &Passed) -> Vec<i64> {
    let mut suspects = Vec::new();
    for seconds in 1..=60 {
        suspects = ledger.suspects(ALLOWED + 1_000 * seconds, ALLOWED, passed, 10);
    }
    suspects.into_iter().map(|(id, _)| id).collect()
}

#[test]
fn only_vehicles_that_were_accepted_after_the_beginning_count() {
    let mut ledger = ledger();
    assert_eq!(ledger.list(10, "old", 0), None);
    ledger.created(9, (0, 5));
    assert_eq!(ledger.ad(7, "ad", 0), AdOutcome::Known);
    assert_eq!(ledger.list(11, "new", 0), Some(AdOutcome::Known));
    let counts = ledger.summary();
    assert_eq!((counts.accepted, counts.on_their_way, counts.ads), (1, 1, 0));
}

#[test]
fn a_vehicle_counts_once_in_whichever_order_its_traces_appear() {
    let mut ledger = ledger();
    ledger.processed(11, (0, 0));
    ledger.created(11, (0, 0));
    assert_eq!(ledger.ad(11, "ad-a", 1_100), AdOutcome::Known);
    assert_eq!(ledger.summary().accepted, 0, "only the list proves that stock accepted a vehicle");
    assert_eq!(ledger.list(11, "a", 100), Some(AdOutcome::First(1_000)));
    assert_eq!(ledger.ad(11, "ad-a", 1_100), AdOutcome::Known);
    // A repeated event of a vehicle with an ad.
    ledger.created(11, (0, 9));
    ledger.processed(11, (0, 9));
    let counts = ledger.summary();
    assert_eq!((counts.accepted, counts.ads, counts.on_their_way, counts.repeated), (1, 1, 0, 1));
    assert_eq!((counts.lost, counts.doubled), (0, 0));
}

#[test]
fn a_second_ad_is_doubtful_and_counts_once_when_it_is_verified() {
    let mut ledger = ledger();
    ledger.list(11, "a", 0);
    ledger.ad(11, "first", 1);
    assert_eq!(ledger.ad(11, "second", 2), AdOutcome::Doubtful);
    ledger.doubled(11);
    ledger.doubled(11);
    assert_eq!(ledger.summary().doubled, 1);
}

#[test]
fn a_late_vehicle_is_suspected_only_when_the_platform_has_passed_it() {
    let mut ledger = ledger();
    ledger.list(11, "unadvertised", 0);
    ledger.created(11, (0, 6));
    ledger.processed(11, (0, 3));
    ledger.list(12, "unestimated", 0);
    ledger.created(12, (0, 5));
    ledger.list(13, "unpublished", 0);
    assert!(suspects(&mut ledger, &passed(5, 3)).is_empty());
    assert_eq!(ledger.summary().late, 3);
    assert_eq!(suspects(&mut ledger, &passed(6, 3)), [12]);
    assert_eq!(suspects(&mut ledger, &passed(6, 4)), [11, 12]);
    ledger.created(14, (0, 9));
    ledger.list(14, "published", ALLOWED + 100_000);
    assert_eq!(suspects(&mut ledger, &passed(6, 4)), [11, 12]);
    assert_eq!(suspects(&mut ledger, &passed(10, 4)), [11, 12, 13]);
    ledger.lost(12);
    let counts = ledger.summary();
    assert_eq!((counts.lost, counts.on_their_way), (1, 3));
    // An audit publishes it again.
    ledger.created(12, (0, 20));
    assert_eq!(ledger.summary().lost, 0);
    assert_eq!(suspects(&mut ledger, &passed(10, 4)), [11, 13]);
}

#[test]
fn a_vehicle_in_a_dead_letter_is_neither_lost_nor_on_its_way() {
    let mut ledger = ledger();
    ledger.list(11, "a", 0);
    ledger.created(11, (0, 1));
    ledger.dead(11, true);
    assert!(suspects(&mut ledger, &passed(9, 9)).is_empty());
    let counts = ledger.summary();
    assert_eq!((counts.dead, counts.lost, counts.on_their_way), (1, 0, 0));
    ledger.dead(11, false);
    assert_eq!(suspects(&mut ledger, &passed(9, 9)), [11]);
}

#[test]
fn a_dead_letter_is_known_in_whichever_order_the_records_are_read() {
    let mut ledger = ledger();
    // The letters are read before the list, and before the record of the priced vehicle.
    ledger.created(11, (0, 1));
    ledger.dead(11, true);
    ledger.list(11, "unestimated", 0);
    ledger.list(12, "unadvertised", 0);
    ledger.created(12, (0, 2));
    ledger.dead(12, true);
    ledger.processed(12, (0, 1));
    assert!(suspects(&mut ledger, &passed(9, 9)).is_empty());
    assert_eq!(ledger.summary().dead, 2);
    // A letter that was put back before the list is read.
    ledger.created(13, (0, 3));
    ledger.dead(13, true);
    ledger.created(13, (0, 4));
    ledger.list(13, "put back", 0);
    ledger.processed(12, (0, 2));
    assert_eq!(ledger.summary().dead, 1);
}

#[test]
fn above_the_bound_the_totals_stay_right_without_details() {
    let mut ledger = ledger();
    let count = i64::try_from(MAX_OPEN).unwrap() + 7;
    for id in 11..11 + count {
        assert!(ledger.list(id, "v", 0).is_some());
    }
    assert_eq!(ledger.open.len(), MAX_OPEN);
    assert_eq!(ledger.summary().unfollowed, 7);
    for id in 11..11 + count {
        ledger.ad(id, &format!("ad-{id}"), 1);
    }
    let counts = ledger.summary();
    assert_eq!((counts.accepted, counts.ads), (count.unsigned_abs(), count.unsigned_abs()));
    assert_eq!((counts.on_their_way, counts.doubled), (0, 0));
    assert!(ledger.done.len() <= MAX_DONE);
    // Further ads of a vehicle whose ad is forgotten, and of one that was not followed.
    assert_eq!(ledger.ad(11, "second", 2), AdOutcome::Doubtful);
    assert_eq!(ledger.ad(10 + count, "second", 2), AdOutcome::Doubtful);
    assert_eq!(ledger.summary().ads, count.unsigned_abs());
}

#[test]
fn vehicles_of_a_topic_that_was_created_again_are_suspected() {
    let mut ledger = ledger();
    ledger.list(11, "a", 0);
    ledger.list(12, "b", 40_000);
    ledger.created(11, (0, 1_000));
    ledger.created(12, (0, 1_001));
    assert!(suspects(&mut ledger, &passed(9, 9)).is_empty());
    ledger.forget_positions(true);
    assert_eq!(suspects(&mut ledger, &passed(9, 9)), [11]);
}

/// Returns a ledger that has not read the event of its first vehicle, but that of the second one.
fn ledger_that_missed_an_event() -> Ledger {
    let mut ledger = ledger();
    ledger.list(11, "missed", 0);
    ledger.list(12, "read", ALLOWED + 100_000);
    ledger.created(1, (1, 6));
    ledger.created(12, (0, 4));
    ledger.processed(2, (0, 2));
    ledger
}

#[test]
fn a_vehicle_whose_event_was_not_read_is_lost_only_after_the_platform_has_finished_all_events() {
    let mut ledger = ledger_that_missed_an_event();
    let mut passed = Passed { estimated: [(0, 9), (1, 6)].into(), advertised: [(0, 2)].into() };
    assert!(suspects(&mut ledger, &passed).is_empty(), "an estimator holds a vehicle");
    assert_eq!(ledger.summary().late, 1);
    passed.estimated.insert(1, 7);
    assert!(suspects(&mut ledger, &passed).is_empty(), "a price waits for ads");
    passed.advertised.insert(0, 3);
    assert_eq!(suspects(&mut ledger, &passed), [11]);
}

#[test]
fn a_lost_vehicle_is_judged_anew_when_a_record_of_it_is_read() {
    let mut ledger = ledger_that_missed_an_event();
    ledger.lost(11);
    ledger.created(11, (1, 20));
    assert_eq!(ledger.summary().lost, 0);
    assert!(suspects(&mut ledger, &passed(9, 9)).is_empty());
}

#[test]
fn events_of_strangers_do_not_displace_those_of_the_next_vehicles() {
    let mut ledger = ledger();
    for id in 1_000..1_000 + i64::try_from(MAX_EARLY).unwrap() {
        ledger.created(id, (0, id));
    }
    ledger.created(11, (0, 1));
    assert_eq!(ledger.early.len(), MAX_EARLY);
    ledger.list(11, "a", 0);
    assert_eq!(suspects(&mut ledger, &passed(2, 0)), [11], "its event is known");
}

#[test]
fn events_of_strangers_take_bounded_room() {
    let mut ledger = ledger();
    for id in 1_000..1_000 + 2 * i64::try_from(MAX_EARLY).unwrap() {
        ledger.created(id, (0, id));
    }
    assert_eq!(ledger.early.len(), MAX_EARLY);
    assert_eq!(ledger.summary().accepted, 0);
}
