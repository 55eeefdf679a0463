//! Holds what all connections and tasks of a broker share.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::call::{FETCH_MEMORY, RESPONSE_MEMORY};
use crate::connection::REQUEST_MEMORY;
use crate::core::Core;
use crate::limits::Limits;
use crate::memory::Memory;
use crate::unserved::Unserved;

/// Number of batches that are decompressed or compressed at the same time.
const COMPRESSIONS: usize = 4;

/// Holds the state behind its lock, and the signals between tasks.
pub struct Shared {
    core: Mutex<Core>,
    /// Notified when a deadline may have come nearer.
    pub deadlines: Notify,
    pub shutdown: CancellationToken,
    /// The advertised address.
    pub address: SocketAddr,
    pub unserved: Unserved,
    pub limits: Limits,
    /// Limits the requests that are read or handled.
    pub requests: Memory,
    /// Limits the responses to fetches that are not written yet.
    pub fetches: Memory,
    /// Limits the other responses that are not written yet.
    pub responses: Memory,
    /// Permits to decompress or compress a batch, which may take much memory.
    pub compressions: Semaphore,
}

impl Shared {
    pub fn new(core: Core, address: SocketAddr, limits: Limits) -> Self {
        Self {
            core: Mutex::new(core),
            deadlines: Notify::new(),
            shutdown: CancellationToken::new(),
            address,
            unserved: Unserved::default(),
            limits,
            requests: Memory::new(REQUEST_MEMORY),
            fetches: Memory::new(FETCH_MEMORY),
            responses: Memory::new(RESPONSE_MEMORY),
            compressions: Semaphore::new(COMPRESSIONS),
        }
    }

    /// Locks the state. The guard must not be held across an await.
    pub fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
