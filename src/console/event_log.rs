//! Keeps the latest events of the page, so that a client which was disconnected gets what it missed.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use actix_web::web::Bytes;
use tokio::sync::watch;

/// The maximum size of the retained events.
const MAX_BYTES: usize = 2 << 20;

/// The events of this process in order, each with an id. The oldest ones are dropped when they exceed 2 MiB together.
pub struct EventLog {
    /// Distinguishes the ids of this process from those of an earlier one.
    epoch: String,
    ring: Mutex<Ring>,
    latest: watch::Sender<u64>,
}

#[derive(Default)]
struct Ring {
    /// The number of the oldest retained event.
    first: u64,
    events: VecDeque<Bytes>,
    bytes: usize,
}

/// What follows an event.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    Event(Bytes),
    /// No later event exists yet.
    Nothing,
    /// The log does not contain what follows, so the client needs a snapshot.
    Unknown,
}

impl EventLog {
    pub fn new() -> Self {
        Self {
            epoch: format!("{:08x}", rand::random::<u32>()),
            ring: Mutex::new(Ring { first: 1, ..Ring::default() }),
            latest: watch::channel(0).0,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends an event with these JSON `data`.
    pub fn append(&self, data: &str) {
        let mut ring = self.lock();
        let number = ring.first + ring.events.len() as u64;
        let event = Bytes::from(self.serialized("delta", number, data));
        ring.bytes += event.len();
        ring.events.push_back(event);
        while ring.bytes > MAX_BYTES
            && let Some(oldest) = ring.events.pop_front()
        {
            ring.bytes -= oldest.len();
            ring.first += 1;
        }
        self.latest.send_replace(number);
    }

    /// Returns the number of the latest event, and 0 before the first one.
    pub fn latest(&self) -> u64 {
        *self.latest.borrow()
    }

    /// Returns a receiver that is notified of each event.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.latest.subscribe()
    }

    /// Returns what follows the event with this number.
    pub fn after(&self, number: u64) -> Next {
        let ring = self.lock();
        let end = ring.first + ring.events.len() as u64;
        if number + 1 == end {
            return Next::Nothing;
        }
        let index = (number + 1).checked_sub(ring.first).and_then(|index| usize::try_from(index).ok());
        index.and_then(|index| ring.events.get(index)).cloned().map_or(Next::Unknown, Next::Event)
    }

    /// Returns a snapshot that stands for all events up to `number`.
    pub fn snapshot(&self, number: u64, data: &str) -> Bytes {
        self.serialized("snapshot", number, data).into()
    }

    /// Returns the number in the `Last-Event-ID` of a client, unless it comes from another process.
    pub fn number_of(&self, id: &str) -> Option<u64> {
        let (epoch, number) = id.split_once('-')?;
        number.parse().ok().filter(|_| epoch == self.epoch)
    }

    /// JSON contains no line break, so the data are one line.
    fn serialized(&self, kind: &str, number: u64, data: &str) -> String {
        format!("id: {}-{number}\nevent: {kind}\ndata: {data}\n\n", self.epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(next: Next) -> String {
        let Next::Event(event) = next else { panic!("{next:?}") };
        String::from_utf8(event.to_vec()).unwrap()
    }

    #[test]
    fn a_client_gets_each_event_after_the_one_that_it_names() {
        let log = EventLog::new();
        assert_eq!(log.after(0), Next::Nothing);
        for data in ["1", "2", "3"] {
            log.append(data);
        }
        assert_eq!(log.latest(), 3);
        let second = text(log.after(1));
        assert!(second.contains("event: delta\ndata: 2\n\n"), "{second}");
        let id = second.strip_prefix("id: ").unwrap().lines().next().unwrap();
        assert_eq!(log.number_of(id), Some(2));
        assert!(text(log.after(2)).contains("data: 3"));
        assert_eq!(log.after(3), Next::Nothing);
    }

    #[test]
    fn ids_of_another_process_and_of_the_future_need_a_snapshot() {
        let log = EventLog::new();
        for id in ["", "x", "00000000-1-", "0-1", "-1", "zzzzzzzz-1"] {
            assert_eq!(log.number_of(id), None, "{id}");
        }
        assert_eq!(log.after(7), Next::Unknown);
        assert_eq!(log.after(u64::MAX - 1), Next::Unknown);
    }

    #[test]
    fn the_log_is_bounded_and_a_client_that_is_too_far_behind_needs_a_snapshot() {
        let log = EventLog::new();
        let data = "x".repeat(MAX_BYTES / 4);
        for _ in 0..10 {
            log.append(&data);
        }
        assert!(log.lock().bytes <= MAX_BYTES);
        assert_eq!(log.after(0), Next::Unknown);
        assert!(matches!(log.after(9), Next::Event(_)));
    }
}
