//! Limits how often a repeated failure is logged.

use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// Decides which repetitions of a message are logged: the first one, and then some at intervals that double from 10 s
/// to 10 minutes. A different message starts over.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    last: Option<(String, Instant, Duration)>,
}

impl Repeats {
    /// Returns whether `message` should be logged now.
    pub(super) fn is_due(&mut self, message: &str) -> bool {
        self.is_due_at(message, Instant::now())
    }

    fn is_due_at(&mut self, message: &str, now: Instant) -> bool {
        let pause = match &self.last {
            Some((last, since, pause)) if last == message && now.duration_since(*since) < *pause => {
                return false;
            }
            Some((last, _, pause)) if last == message => (*pause * 2).min(LONGEST_PAUSE),
            _ => FIRST_PAUSE,
        };
        self.last = Some((message.to_owned(), now, pause));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_repeats_every_second_is_due_at_growing_intervals() {
        let (mut repeats, began) = (Repeats::default(), Instant::now());
        let due =
            |repeats: &mut Repeats, second| repeats.is_due_at("same", began + Duration::from_secs(second));
        let seconds: Vec<_> = (0..100).filter(|second| due(&mut repeats, *second)).collect();
        assert_eq!(seconds, [0, 10, 30, 70]);
        assert!(repeats.is_due_at("other", began + Duration::from_secs(100)));
    }
}
