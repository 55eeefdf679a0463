//! Detects a client that lost the brokers and does not find them again.

use std::time::{Duration, Instant};

use rdkafka::metadata::Metadata;

/// The time after which a client that lost all connections, and that no broker answers, is replaced.
pub(super) const CUT_OFF: Duration = Duration::from_secs(10);
/// The pause between two questions to the brokers.
const PAUSE: Duration = Duration::from_secs(1);

/// Returns whether a client can go on after this answer. An answer without brokers makes it forget those that it knew.
pub(super) fn names_brokers(metadata: &Metadata) -> bool {
    !metadata.brokers().is_empty()
}

/// What a consumer knows about its connections.
///
/// After a broker that has just started named no brokers, a client of librdkafka may know none for ever
/// (<https://github.com/confluentinc/librdkafka/issues/5301>). It reports that all connections are down, and may report
/// nothing afterwards. It therefore has to prove after such a report that a broker answers it.
#[derive(Debug, Default)]
pub(super) struct Reach(Option<Lost>);

#[derive(Debug)]
struct Lost {
    asked: Instant,
    /// When the first question since the report remained unanswered.
    unanswered_since: Option<Instant>,
}

impl Reach {
    /// Records that the client reported that all connections are down.
    pub(super) fn lost(&mut self, now: Instant) {
        self.0.get_or_insert(Lost { asked: now, unanswered_since: None });
    }

    /// Returns whether to ask a broker now.
    pub(super) fn is_in_doubt(&self, now: Instant) -> bool {
        self.0.as_ref().is_some_and(|lost| now.saturating_duration_since(lost.asked) >= PAUSE)
    }

    /// Records that a broker answered.
    pub(super) fn answered(&mut self) {
        self.0 = None;
    }

    /// Records that no broker answered. Returns whether the client is cut off.
    pub(super) fn unanswered(&mut self, now: Instant) -> bool {
        let Some(lost) = &mut self.0 else { return false };
        lost.asked = now;
        let since = *lost.unanswered_since.get_or_insert(now);
        now.saturating_duration_since(since) >= CUT_OFF
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_lost_all_connections_is_cut_off_when_no_broker_answers_for_long() {
        let (mut reach, began) = (Reach::default(), Instant::now());
        assert!(!reach.is_in_doubt(began + CUT_OFF), "it lost no connection");
        reach.lost(began);
        assert!(!reach.is_in_doubt(began));
        let first = began + 2 * CUT_OFF;
        assert!(reach.is_in_doubt(first));
        assert!(!reach.unanswered(first), "it was not asked before");
        assert!(!reach.is_in_doubt(first), "it was just asked");
        // Another report does not restart the time.
        reach.lost(first + PAUSE);
        assert!(!reach.unanswered(first + PAUSE));
        assert!(reach.unanswered(first + CUT_OFF));
    }

    #[test]
    fn an_answer_ends_the_doubt() {
        let (mut reach, began) = (Reach::default(), Instant::now());
        reach.lost(began);
        assert!(!reach.unanswered(began + PAUSE));
        reach.answered();
        assert!(!reach.is_in_doubt(began + CUT_OFF));
        assert!(!reach.unanswered(began + 2 * CUT_OFF));
    }
}
