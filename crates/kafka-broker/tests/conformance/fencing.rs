//! Checks producers that were replaced or exceeded their timeout.

use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::{FutureProducer, Producer};

use crate::harness::*;

fn is_fenced(result: KafkaResult<()>, producer: &FutureProducer) -> bool {
    let fenced = |code| {
        matches!(
            code,
            RDKafkaErrorCode::Fenced
                | RDKafkaErrorCode::ProducerFenced
                | RDKafkaErrorCode::InvalidProducerEpoch
        )
    };
    let fatally = producer.client().fatal_error();
    match result {
        Ok(()) => false,
        Err(KafkaError::Transaction(error)) if fenced(error.code()) => true,
        Err(_) => fatally.is_some_and(|(code, _)| fenced(code)),
    }
}

#[test]
fn a_newer_producer_with_the_same_transactional_id_fences_the_older() {
    let topic = topic(1);
    let id = unique("txn");
    let older = transactional(&id);
    older.begin_transaction().unwrap();
    send(&older, &topic, 0, "of the older").unwrap();

    let newer = transactional(&id);
    newer.begin_transaction().unwrap();
    send(&newer, &topic, 0, "of the newer").unwrap();

    let ended = older.commit_transaction(PATIENCE);
    assert!(is_fenced(ended, &older));
    newer.commit_transaction(PATIENCE).unwrap();
    expect_values(&topic, "read_committed", &["of the newer"]);
}

#[test]
fn a_fenced_producer_cannot_write() {
    let topic = topic(1);
    let id = unique("txn");
    let older = transactional(&id);
    older.begin_transaction().unwrap();
    send(&older, &topic, 0, "open").unwrap();
    let _newer = transactional(&id);
    let refused = send(&older, &topic, 0, "too late");
    assert!(refused.is_err());
    expect_values(&topic, "read_committed", &[]);
    assert_eq!(values(&topic, "read_uncommitted"), ["open"]);
}

#[test]
fn a_transaction_past_its_timeout_is_aborted_and_its_producer_fenced() {
    let topic = topic(1);
    let settings = [
        ("transactional.id", unique("txn")),
        ("transaction.timeout.ms", "2000".to_owned()),
        ("message.timeout.ms", "2000".to_owned()),
    ];
    let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
    let slow = producer(&settings);
    slow.init_transactions(PATIENCE).unwrap();
    slow.begin_transaction().unwrap();
    send(&slow, &topic, 0, "abandoned").unwrap();
    send(&producer(&[]), &topic, 0, "behind it").unwrap();
    expect_values(&topic, "read_committed", &["behind it"]);
    let ended = slow.commit_transaction(PATIENCE);
    assert!(is_fenced(ended, &slow));
}

#[test]
fn a_transaction_timeout_above_the_limit_is_refused() {
    let settings = [("transactional.id", unique("txn")), ("transaction.timeout.ms", "900001".to_owned())];
    let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
    let refused = producer(&settings).init_transactions(PATIENCE);
    assert_eq!(error_code(refused), Some(RDKafkaErrorCode::InvalidTransactionTimeout));
}
