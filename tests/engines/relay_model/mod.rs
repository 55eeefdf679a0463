//! Tests the relay's logic with the real stores under random interleavings of events.
//!
//! A relay's session runs call by call. Before each call to its log or its cluster it waits for a permit from the
//! test, so that it can crash, be suspended or be overtaken at any relevant line. At the end, every event in a log
//! must have been published on the cluster of its relay, and exactly once if no history diverged.

mod cluster;
mod database;
mod gate;
mod world;

use crate::support::engines::address;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use world::{Action, Verdict, World};

/// Generates actions that preserve a single history of database and cluster.
fn ordinary() -> impl Strategy<Value = Action> {
    prop_oneof![
        10 => any::<bool>().prop_map(|encodable| Action::Insert { database: 0, encodable }),
        4 => Just(Action::Start { database: 0 }),
        20 => (any::<usize>(), 1..12_usize).prop_map(|(relay, calls)| Action::Step { relay, calls }),
        3 => any::<usize>().prop_map(|relay| Action::Crash { relay }),
        1 => Just(Action::LoseAnswer { cluster: 0 }),
        1 => Just(Action::FailPublish { cluster: 0 }),
        1 => Just(Action::FailEncode { cluster: 0 }),
        1 => any::<bool>().prop_map(|encodes_all| Action::Release { encodes_all }),
    ]
}

/// Generates actions that make histories diverge or erase the state of a cluster.
fn parting() -> impl Strategy<Value = Action> {
    let database = any::<usize>();
    prop_oneof![
        8 => (any::<usize>(), any::<bool>())
            .prop_map(|(database, encodable)| Action::Insert { database, encodable }),
        4 => any::<usize>().prop_map(|database| Action::Start { database }),
        1 => database.prop_map(|database| Action::Copy { database }),
        1 => any::<usize>().prop_map(|database| Action::Backup { database }),
        1 => any::<usize>().prop_map(|backup| Action::Restore { backup }),
        1 => (any::<usize>(), any::<usize>(), any::<bool>())
            .prop_map(|(database, kept, lease)| Action::Failover { database, kept, lease }),
        1 => any::<usize>().prop_map(|database| Action::ExpireMark { database }),
        1 => (any::<usize>(), -3..4_i64).prop_map(|(database, by)| Action::MoveMark { database, by }),
        1 => any::<usize>().prop_map(|database| Action::ChangeCluster { database }),
        1 => (0..2_usize).prop_map(|cluster| Action::RecreateTopic { cluster }),
        1 => (0..2_usize).prop_map(|cluster| Action::LoseAnswer { cluster }),
    ]
}

fn run(engine: &str, cases: u32, actions: impl Strategy<Value = Vec<Action>>, exactly_once: bool) {
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 300,
        ..ProptestConfig::default()
    };
    let run = |actions: Vec<Action>| {
        let verdict = judge(engine, actions);
        prop_assert_eq!(&verdict.lost, &Vec::<String>::new());
        if exactly_once {
            prop_assert_eq!(&verdict.doubled, &Vec::<String>::new());
        }
        Ok(())
    };
    TestRunner::new(config).run(&actions, run).unwrap();
}

/// Performs the actions and returns what was lost or doubled in the end.
fn judge(engine: &str, actions: Vec<Action>) -> Verdict {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(engine).await;
        for action in actions {
            world.perform(action).await;
        }
        world.finish().await
    })
}

fn cases(default: u32) -> u32 {
    std::env::var("MODEL_CASES").ok().map_or(default, |cases| cases.parse().unwrap())
}

#[test]
fn with_one_history_every_event_is_published_exactly_once() {
    run("sqlite", cases(150), vec(ordinary(), 20..120), true);
}

/// The clusters refuse some of the events, after which a producer takes over its identity again.
#[test]
fn a_relay_that_is_overtaken_at_any_call_publishes_nothing_twice() {
    let inserts = [true, false, true, true, true, true, true]
        .map(|encodable| Action::Insert { database: 0, encodable });
    for calls in 1..60 {
        let overtaking = [
            Action::Start { database: 0 },
            Action::Step { relay: 0, calls },
            Action::Start { database: 0 },
            Action::Step { relay: 1, calls: 60 },
            Action::Step { relay: 0, calls: 60 },
        ];
        let release = [Action::Release { encodes_all: false }];
        let actions = release.into_iter().chain(inserts.clone()).chain(overtaking).collect();
        let Verdict { lost, doubled } = judge("sqlite", actions);
        assert!(
            lost.is_empty() && doubled.is_empty(),
            "after {calls} calls: lost {lost:?}, doubled {doubled:?}"
        );
    }
}

#[test]
fn a_failover_at_any_call_that_loses_records_of_failures_loses_no_event() {
    let inserts =
        [false, false, false, true, false].map(|encodable| Action::Insert { database: 0, encodable });
    for calls in 1..50 {
        let failover = [
            Action::Start { database: 0 },
            Action::Step { relay: 0, calls },
            Action::Failover { database: 0, kept: inserts.len(), lease: false },
            Action::Step { relay: 0, calls: 60 },
        ];
        let release = [Action::Release { encodes_all: false }];
        let actions = release.into_iter().chain(inserts.clone()).chain(failover).collect();
        let Verdict { lost, .. } = judge("sqlite", actions);
        assert!(lost.is_empty(), "after {calls} calls: {lost:?}");
    }
}

#[test]
fn with_diverged_histories_no_event_is_lost() {
    let actions = vec(prop_oneof![3 => ordinary(), 1 => parting()], 20..150);
    run("sqlite", cases(150), actions, false);
}

#[test]
fn with_one_history_every_event_is_published_exactly_once_on_postgresql() {
    if let Some(server) = address("PostgreSQL", "TEST_POSTGRES_URL") {
        run(&server, cases(150) / 10, vec(ordinary(), 20..80), true);
    }
}

#[test]
fn with_diverged_histories_no_event_is_lost_on_postgresql() {
    if let Some(server) = address("PostgreSQL", "TEST_POSTGRES_URL") {
        let actions = vec(prop_oneof![3 => ordinary(), 1 => parting()], 20..100);
        run(&server, cases(150) / 10, actions, false);
    }
}
