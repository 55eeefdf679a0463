//! Checks what is read of journals of earlier versions.

use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::*;

const SEGMENT: u64 = 1 << 20;

/// Writes a journal of a version that did not write topic ids.
fn write_old_journal(dir: &Path, entries: &[Entry]) {
    let mut journal = Journal::open(dir, SEGMENT).unwrap();
    journal.replay(0, |_, _| Ok(())).unwrap();
    for entry in entries {
        journal.append(&entry.encode()).unwrap();
    }
}

fn created(topic: &'static str) -> Entry {
    let topic = StrBytes::from_static_str(topic);
    Entry::TopicCreated { topic, partitions: 1, configs: Vec::new(), topic_id: None }
}

fn id_in(dir: &Path, topic: &str) -> Uuid {
    let core = Core::open(dir, SEGMENT).unwrap();
    let id = core.state().topics[topic].id;
    assert_eq!(core.state().topic_name(id), Some(topic));
    id
}

#[test]
fn topics_of_an_old_journal_have_ids_that_stay_the_same() {
    let dir = tempfile::tempdir().unwrap();
    write_old_journal(dir.path(), &[created("one"), created("another")]);
    let ids = || [id_in(dir.path(), "one"), id_in(dir.path(), "another")];
    let first = ids();
    assert!(!first[0].is_nil() && !first[1].is_nil());
    assert_ne!(first[0], first[1]);
    assert_eq!(ids(), first);
}

#[test]
fn a_topic_that_an_old_journal_creates_again_has_another_id() {
    let dir = tempfile::tempdir().unwrap();
    write_old_journal(dir.path(), &[created("topic")]);
    let first = id_in(dir.path(), "topic");
    let topic = StrBytes::from_static_str("topic");
    write_old_journal(dir.path(), &[Entry::TopicDeleted { topic }, created("topic")]);
    assert_ne!(id_in(dir.path(), "topic"), first);
    assert_eq!(Core::open(dir.path(), SEGMENT).unwrap().state().topic_name(first), None);
}
