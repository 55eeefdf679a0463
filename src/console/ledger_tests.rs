use super::*;
use crate::console::early::MAX_EARLY;

const ALLOWED: i64 = 30_000;

fn ledger() -> Ledger {
    let mut ledger = Ledger::default();
    ledger.begin(10, 0);
    ledger
}

fn vehicle(id: i64) -> VehicleKey {
    VehicleKey::new(id, &format!("vin-{id}"))
}

fn passed(estimated: i64, advertised: i64) -> Passed {
    Passed { estimated: [(0, estimated)].into(), advertised: [(0, advertised)].into() }
}

fn suspects(ledger: &mut Ledger, passed: &Passed) -> Vec<i64> {
    let mut suspects = Vec::new();
    for seconds in 1..=60 {
        suspects = ledger.suspects(ALLOWED + 1_000 * seconds, ALLOWED, passed, 10);
    }
    suspects.into_iter().map(|vehicle| vehicle.id).collect()
}

#[test]
fn only_vehicles_that_were_accepted_after_the_beginning_count() {
    let mut ledger = ledger();
    assert_eq!(ledger.list(&vehicle(10), 0), None);
    ledger.created(&vehicle(9), (0, 5));
    assert_eq!(ledger.ad(&vehicle(7), "ad", 0), AdOutcome::Known);
    assert_eq!(ledger.list(&vehicle(11), 0), Some(AdOutcome::Known));
    let counts = ledger.summary();
    assert_eq!((counts.accepted, counts.on_their_way, counts.ads), (1, 1, 0));
}

#[test]
fn a_vehicle_counts_once_in_whichever_order_its_traces_appear() {
    let mut ledger = ledger();
    ledger.processed(&vehicle(11), (0, 0));
    ledger.created(&vehicle(11), (0, 0));
    assert_eq!(ledger.ad(&vehicle(11), "ad-a", 1_100), AdOutcome::Known);
    assert_eq!(ledger.summary().accepted, 0, "only the list proves that stock accepted a vehicle");
    assert_eq!(ledger.list(&vehicle(11), 100), Some(AdOutcome::First(1_000)));
    assert_eq!(ledger.ad(&vehicle(11), "ad-a", 1_100), AdOutcome::Known);
    // A repeated event of a vehicle with an ad.
    ledger.created(&vehicle(11), (0, 9));
    ledger.processed(&vehicle(11), (0, 9));
    let counts = ledger.summary();
    assert_eq!((counts.accepted, counts.ads, counts.on_their_way, counts.repeated), (1, 1, 0, 1));
    assert_eq!((counts.lost, counts.doubled), (0, 0));
}

#[test]
fn a_second_ad_is_doubtful_and_counts_once_when_it_is_verified() {
    let mut ledger = ledger();
    ledger.list(&vehicle(11), 0);
    ledger.ad(&vehicle(11), "first", 1);
    assert_eq!(ledger.ad(&vehicle(11), "second", 2), AdOutcome::Doubtful);
    ledger.doubled(&vehicle(11));
    ledger.doubled(&vehicle(11));
    assert_eq!(ledger.summary().doubled, 1);
}

#[test]
fn a_second_ad_counts_when_both_are_read_before_stocks_list_shows_the_vehicle() {
    let mut ledger = ledger();
    assert_eq!(ledger.ad(&vehicle(11), "a", 1), AdOutcome::Known);
    assert_eq!(ledger.ad(&vehicle(11), "a", 1), AdOutcome::Known);
    assert_eq!(ledger.ad(&vehicle(11), "b", 2), AdOutcome::Doubtful);
    ledger.doubled(&vehicle(11));
    assert_eq!(ledger.summary().doubled, 0, "stock has not accepted it");
    assert_eq!(ledger.list(&vehicle(11), 0), Some(AdOutcome::First(1)));
    assert_eq!(ledger.summary().doubled, 1);
    // The answer of ads arrives after counting has begun again.
    ledger.begin(11, 0);
    ledger.doubled(&vehicle(11));
    assert_eq!(ledger.summary().doubled, 0);
}

#[test]
fn a_late_vehicle_is_suspected_only_when_the_platform_has_passed_it() {
    let mut ledger = ledger();
    ledger.list(&vehicle(11), 0);
    ledger.created(&vehicle(11), (0, 6));
    ledger.processed(&vehicle(11), (0, 3));
    ledger.list(&vehicle(12), 0);
    ledger.created(&vehicle(12), (0, 5));
    ledger.list(&vehicle(13), 0);
    assert!(suspects(&mut ledger, &passed(5, 3)).is_empty());
    assert_eq!(ledger.summary().late, 3);
    assert_eq!(suspects(&mut ledger, &passed(6, 3)), [12]);
    assert_eq!(suspects(&mut ledger, &passed(6, 4)), [11, 12]);
    ledger.created(&vehicle(14), (0, 9));
    ledger.list(&vehicle(14), ALLOWED + 100_000);
    assert_eq!(suspects(&mut ledger, &passed(6, 4)), [11, 12]);
    assert_eq!(suspects(&mut ledger, &passed(10, 4)), [11, 12, 13]);
    ledger.lost(&vehicle(12));
    let counts = ledger.summary();
    assert_eq!((counts.lost, counts.on_their_way), (1, 3));
    // An audit publishes it again.
    ledger.created(&vehicle(12), (0, 20));
    assert_eq!(ledger.summary().lost, 0);
    assert_eq!(suspects(&mut ledger, &passed(10, 4)), [11, 13]);
}

#[test]
fn a_vehicle_in_a_dead_letter_is_neither_lost_nor_on_its_way() {
    let mut ledger = ledger();
    ledger.list(&vehicle(11), 0);
    ledger.created(&vehicle(11), (0, 1));
    ledger.dead(&vehicle(11), true);
    assert!(suspects(&mut ledger, &passed(9, 9)).is_empty());
    let counts = ledger.summary();
    assert_eq!((counts.dead, counts.lost, counts.on_their_way), (1, 0, 0));
    ledger.dead(&vehicle(11), false);
    assert_eq!(suspects(&mut ledger, &passed(9, 9)), [11]);
}

#[test]
fn a_dead_letter_is_known_in_whichever_order_the_records_are_read() {
    let mut ledger = ledger();
    // The letters are read before the list, and before the record of the priced vehicle.
    ledger.created(&vehicle(11), (0, 1));
    ledger.dead(&vehicle(11), true);
    ledger.list(&vehicle(11), 0);
    ledger.list(&vehicle(12), 0);
    ledger.created(&vehicle(12), (0, 2));
    ledger.dead(&vehicle(12), true);
    ledger.processed(&vehicle(12), (0, 1));
    assert!(suspects(&mut ledger, &passed(9, 9)).is_empty());
    assert_eq!(ledger.summary().dead, 2);
    // A letter that was put back before the list is read.
    ledger.created(&vehicle(13), (0, 3));
    ledger.dead(&vehicle(13), true);
    ledger.created(&vehicle(13), (0, 4));
    ledger.list(&vehicle(13), 0);
    ledger.processed(&vehicle(12), (0, 2));
    assert_eq!(ledger.summary().dead, 1);
}

#[test]
fn above_the_bound_the_totals_stay_right_without_details() {
    let mut ledger = ledger();
    let count = i64::try_from(MAX_OPEN).unwrap() + 7;
    for id in 11..11 + count {
        assert!(ledger.list(&vehicle(id), 0).is_some());
    }
    assert_eq!(ledger.open.len(), MAX_OPEN);
    assert_eq!(ledger.summary().unfollowed, 7);
    for id in 11..11 + count {
        ledger.ad(&vehicle(id), &format!("ad-{id}"), 1);
    }
    let counts = ledger.summary();
    assert_eq!((counts.accepted, counts.ads), (count.unsigned_abs(), count.unsigned_abs()));
    assert_eq!((counts.on_their_way, counts.doubled), (0, 0));
    assert!(ledger.done.len() <= MAX_DONE);
    // Further ads of a vehicle whose ad is forgotten, and of one that was not followed.
    assert_eq!(ledger.ad(&vehicle(11), "second", 2), AdOutcome::Doubtful);
    assert_eq!(ledger.ad(&vehicle(10 + count), "second", 2), AdOutcome::Doubtful);
    assert_eq!(ledger.summary().ads, count.unsigned_abs());
}

#[test]
fn vehicles_of_a_topic_that_was_created_again_are_suspected() {
    let mut ledger = ledger();
    ledger.list(&vehicle(11), 0);
    ledger.list(&vehicle(12), 40_000);
    ledger.created(&vehicle(11), (0, 1_000));
    ledger.created(&vehicle(12), (0, 1_001));
    assert!(suspects(&mut ledger, &passed(9, 9)).is_empty());
    ledger.forget_positions(true);
    assert_eq!(suspects(&mut ledger, &passed(9, 9)), [11]);
}

/// Returns a ledger that has not read the event of its first vehicle, but that of the second one.
fn ledger_that_missed_an_event() -> Ledger {
    let mut ledger = ledger();
    ledger.list(&vehicle(11), 0);
    ledger.list(&vehicle(12), ALLOWED + 100_000);
    ledger.created(&vehicle(1), (1, 6));
    ledger.created(&vehicle(12), (0, 4));
    ledger.processed(&vehicle(2), (0, 2));
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
    ledger.lost(&vehicle(11));
    ledger.created(&vehicle(11), (1, 20));
    assert_eq!(ledger.summary().lost, 0);
    assert!(suspects(&mut ledger, &passed(9, 9)).is_empty());
}

#[test]
fn events_of_strangers_do_not_displace_those_of_the_next_vehicles() {
    let mut ledger = ledger();
    for id in 1_000..1_000 + i64::try_from(MAX_EARLY).unwrap() {
        ledger.created(&vehicle(id), (0, id));
    }
    ledger.created(&vehicle(11), (0, 1));
    assert_eq!(ledger.early.len(), MAX_EARLY);
    ledger.list(&vehicle(11), 0);
    assert_eq!(suspects(&mut ledger, &passed(2, 0)), [11], "its event is known");
}

#[test]
fn events_of_strangers_take_bounded_room() {
    let mut ledger = ledger();
    for id in 1_000..1_000 + 2 * i64::try_from(MAX_EARLY).unwrap() {
        ledger.created(&vehicle(id), (0, id));
    }
    assert_eq!(ledger.early.len(), MAX_EARLY);
    assert_eq!(ledger.summary().accepted, 0);
}

#[test]
fn what_is_known_of_a_vehicle_of_another_database_does_not_count_for_the_one_with_its_id() {
    let other = |id| VehicleKey::new(id, "other");
    let mut ledger = ledger();
    // Before stock's list shows the vehicle.
    ledger.created(&other(11), (0, 1));
    ledger.processed(&other(11), (0, 1));
    ledger.dead(&other(11), true);
    assert_eq!(ledger.ad(&other(11), "ad", 0), AdOutcome::Known);
    for id in 11..=13 {
        assert_eq!(ledger.list(&vehicle(id), 0), Some(AdOutcome::Known));
    }
    assert_eq!(ledger.early.len(), 0);
    // After the list shows the vehicle.
    ledger.created(&other(13), (0, 3));
    ledger.processed(&other(12), (0, 2));
    ledger.dead(&other(12), true);
    assert_eq!(ledger.ad(&other(12), "ad", 0), AdOutcome::Known);
    let counts = ledger.summary();
    assert_eq!((counts.ads, counts.dead, counts.on_their_way), (0, 0, 3));
    assert!(suspects(&mut ledger, &passed(9, 9)).is_empty(), "stock has published none of them");
    // After the vehicle has an ad.
    ledger.ad(&vehicle(11), "ad-11", 1);
    ledger.processed(&other(11), (0, 5));
    assert_eq!(ledger.ad(&other(11), "ad", 0), AdOutcome::Known);
    let counts = ledger.summary();
    assert_eq!((counts.ads, counts.repeated, counts.doubled), (1, 0, 0));
}
