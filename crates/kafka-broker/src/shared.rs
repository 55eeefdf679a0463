//! Holds what all connections and tasks of a broker share.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::connection::REQUEST_MEMORY;
use crate::core::Core;
use crate::limits::Limits;
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
    /// Room for the large requests of all connections, in bytes.
    pub request_memory: Arc<Semaphore>,
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
            request_memory: Arc::new(Semaphore::new(REQUEST_MEMORY)),
            compressions: Semaphore::new(COMPRESSIONS),
        }
    }

    /// Locks the state. The guard must not be held across an await.
    pub fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
