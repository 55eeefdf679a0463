//! Shares memory among the messages of all connections.
//!
//! There is one [`Memory`] for requests and one for responses. A message has [`Room`] in it from before its bytes are
//! allocated until they are freed.

use std::pin::pin;
use std::sync::Arc;

use anyhow::Result;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Duration, timeout};

/// A message up to this size needs no room, so that no client can delay the heartbeats of another. All of them take at
/// most this size times the number of connections.
pub const SMALL: usize = 64 * 1024;
/// Time after which a wait for room is logged.
const LONG_WAIT: Duration = Duration::from_secs(1);

/// Limits the bytes of messages that exist at the same time.
#[derive(Debug, Clone)]
pub struct Memory {
    free: Arc<Semaphore>,
    bytes: usize,
}

/// Holds a part of a memory until it is dropped.
#[derive(Debug, Default)]
pub struct Room(Option<OwnedSemaphorePermit>);

impl Memory {
    pub fn new(bytes: usize) -> Self {
        let bytes = bytes.min(Semaphore::MAX_PERMITS).min(u32::MAX as usize);
        Self { free: Arc::new(Semaphore::new(bytes)), bytes }
    }

    /// Waits until there is room for all of a message, in the order of the calls. `what` names the messages in the log.
    pub async fn room_for(&self, bytes: usize, what: &'static str) -> Result<Room> {
        if bytes <= SMALL {
            return Ok(Room::default());
        }
        let mut room = pin!(Arc::clone(&self.free).acquire_many_owned(bytes.min(self.bytes) as u32));
        if let Ok(room) = timeout(LONG_WAIT, &mut room).await {
            return Ok(Room(Some(room?)));
        }
        tracing::warn!(bytes, "other large {what} take all memory for {what}, waiting");
        Ok(Room(Some(room.await?)))
    }

    /// Extends `room` for a message of this size. Returns whether that was possible without a wait.
    pub fn extend(&self, room: &mut Room, bytes: usize) -> bool {
        let missing = bytes.min(self.bytes).saturating_sub(room.bytes());
        if missing <= SMALL {
            return true;
        }
        match Arc::clone(&self.free).try_acquire_many_owned(missing as u32) {
            Ok(more) => match &mut room.0 {
                Some(held) => held.merge(more),
                None => room.0 = Some(more),
            },
            Err(_) => return false,
        }
        true
    }
}

impl Room {
    pub fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_have_room_up_to_the_limit_and_small_ones_need_none() {
        let memory = Memory::new(10 * SMALL);
        let mut room = memory.room_for(6 * SMALL, "messages").await.unwrap();
        assert_eq!(room.bytes(), 6 * SMALL);
        let mut other = Room::default();
        assert!(!memory.extend(&mut other, 5 * SMALL));
        assert!(memory.extend(&mut other, SMALL));
        assert_eq!(other.bytes(), 0);
        assert!(memory.extend(&mut room, 9 * SMALL));
        assert_eq!(room.bytes(), 9 * SMALL);
        drop(room);
        assert_eq!(memory.room_for(20 * SMALL, "messages").await.unwrap().bytes(), 10 * SMALL);
        assert!(memory.extend(&mut other, 10 * SMALL));
    }
}
