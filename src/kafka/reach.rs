//! Detects a client that lost the brokers and does not find them again.

use std::time::{Duration, Instant};

/// The time without an answer after which a client is replaced. A client that connects needs less, and during an outage a
/// new client does no harm.
pub(super) const CUT_OFF: Duration = Duration::from_secs(10);
/// The pause between two questions to the brokers.
const PAUSE: Duration = Duration::from_secs(1);

/// What a client knows about its connections.
///
/// After a broker that has just started named no brokers, a client of librdkafka may know none for ever
/// (<https://github.com/confluentinc/librdkafka/issues/5301>). It reports only, once, that all connections are down.
/// Afterwards, a client therefore has to prove that a broker answers it.
#[derive(Debug, Default)]
pub(super) struct Reach(Option<Lost>);

#[derive(Debug)]
struct Lost {
    since: Instant,
    asked: Instant,
}

impl Reach {
    /// Records that the client reported that all connections are down.
    pub(super) fn lost(&mut self, now: Instant) {
        self.0.get_or_insert(Lost { since: now, asked: now });
    }

    /// Returns whether to ask a broker now.
    pub(super) fn is_in_doubt(&self, now: Instant) -> bool {
        self.0.as_ref().is_some_and(|lost| now.saturating_duration_since(lost.asked) >= PAUSE)
    }

    /// Records whether a broker answered. Returns whether the client is cut off.
    pub(super) fn asked(&mut self, is_answered: bool, now: Instant) -> bool {
        if is_answered {
            self.0 = None;
        }
        let Some(lost) = &mut self.0 else { return false };
        lost.asked = now;
        now.saturating_duration_since(lost.since) >= CUT_OFF
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_lost_all_brokers_is_cut_off_when_none_answers_for_long() {
        let (mut reach, began) = (Reach::default(), Instant::now());
        assert!(!reach.is_in_doubt(began + CUT_OFF), "it lost no connection");
        reach.lost(began);
        assert!(!reach.is_in_doubt(began));
        assert!(reach.is_in_doubt(began + PAUSE));
        assert!(!reach.asked(false, began + PAUSE));
        assert!(!reach.is_in_doubt(began + PAUSE), "it was just asked");
        // Another report does not restart the time.
        reach.lost(began + CUT_OFF);
        assert!(reach.asked(false, began + CUT_OFF));
    }

    #[test]
    fn an_answer_ends_the_doubt() {
        let (mut reach, began) = (Reach::default(), Instant::now());
        reach.lost(began);
        assert!(!reach.asked(true, began + CUT_OFF));
        assert!(!reach.is_in_doubt(began + 2 * CUT_OFF));
        reach.lost(began + 2 * CUT_OFF);
        assert!(!reach.asked(false, began + 2 * CUT_OFF + PAUSE));
    }
}
