//! Lets a relay make one call at a time.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::Notify;
use vehicle_platform::database::DatabaseError;
use vehicle_platform::stock::vehicle_store::{
    ClaimedEvents, EventLog, LastPublished, Lease, LogEntry, LogRead, PositionKey,
};

#[derive(Default)]
struct State {
    permits: usize,
    /// Whether the relay is blocked before a call for lack of a permit.
    waits: bool,
    ended: bool,
    /// The number of consecutive reads that found nothing to publish.
    idle_reads: usize,
}

/// Controls the calls of one relay from the test.
#[derive(Clone, Default)]
pub struct Gate {
    state: Arc<Mutex<State>>,
    granted: Arc<Notify>,
    stopped: Arc<Notify>,
}

impl Gate {
    /// Blocks the relay before each call until it has a permit.
    pub async fn pass(&self) {
        loop {
            let granted = self.granted.notified();
            {
                let mut state = self.state.lock().unwrap();
                if state.permits > 0 {
                    state.permits -= 1;
                    state.waits = false;
                    return;
                }
                state.waits = true;
            }
            self.stopped.notify_waiters();
            granted.await;
        }
    }

    /// Records that the relay's session is over.
    pub fn end(&self) {
        self.state.lock().unwrap().ended = true;
        self.stopped.notify_waiters();
    }

    /// Permits the relay `calls` calls, and returns when it has made them or has ended.
    pub async fn let_pass(&self, calls: usize) {
        self.state.lock().unwrap().permits += calls;
        self.granted.notify_waiters();
        loop {
            let stopped = self.stopped.notified();
            {
                let state = self.state.lock().unwrap();
                if state.ended || (state.waits && state.permits == 0) {
                    return;
                }
            }
            stopped.await;
        }
    }

    pub fn has_ended(&self) -> bool {
        self.state.lock().unwrap().ended
    }

    /// Returns whether the relay has nothing to do.
    pub fn is_idle(&self) -> bool {
        self.state.lock().unwrap().idle_reads > 1
    }

    fn note_read(&self, read: &LogRead) {
        let mut state = self.state.lock().unwrap();
        let idle = matches!(read, LogRead::Entries(entries) if entries.is_empty());
        state.idle_reads = if idle { state.idle_reads + 1 } else { 0 };
    }
}

/// A log whose calls pass a gate.
pub struct GatedLog {
    pub inner: Box<dyn EventLog>,
    pub gate: Gate,
    /// Whether beats of this session write the position after the initial one.
    pub writes_position: bool,
    pub has_written: bool,
}

#[async_trait]
impl EventLog for GatedLog {
    async fn prove_order(&mut self) -> Result<(), DatabaseError> {
        self.gate.pass().await;
        self.inner.prove_order().await
    }

    async fn lease(&mut self) -> Result<Lease, DatabaseError> {
        self.gate.pass().await;
        self.inner.lease().await
    }

    async fn take(&mut self, seen: &Lease, holder: &str) -> Result<Option<Lease>, DatabaseError> {
        self.gate.pass().await;
        self.inner.take(seen, holder).await
    }

    async fn renew(
        &mut self,
        lease: &Lease,
        position: Option<(&PositionKey, &LastPublished)>,
    ) -> Result<bool, DatabaseError> {
        self.gate.pass().await;
        let writes = self.writes_position || !self.has_written;
        self.has_written |= position.is_some();
        self.inner.renew(lease, position.filter(|_| writes)).await
    }

    async fn release(&mut self, lease: &Lease) -> Result<(), DatabaseError> {
        self.gate.pass().await;
        self.inner.release(lease).await
    }

    async fn replace_identity(&mut self, lease: &Lease) -> Result<bool, DatabaseError> {
        self.gate.pass().await;
        self.inner.replace_identity(lease).await
    }

    async fn position(&mut self, key: &PositionKey) -> Result<LastPublished, DatabaseError> {
        self.gate.pass().await;
        self.inner.position(key).await
    }

    async fn holds(&mut self, last: &LastPublished) -> Result<bool, DatabaseError> {
        self.gate.pass().await;
        self.inner.holds(last).await
    }

    async fn read(
        &mut self,
        lease: &Lease,
        last: &LastPublished,
        limit: i64,
        max_bytes: i64,
    ) -> Result<LogRead, DatabaseError> {
        self.gate.pass().await;
        let read = self.inner.read(lease, last, limit, max_bytes).await?;
        self.gate.note_read(&read);
        Ok(read)
    }

    async fn record_failures(
        &mut self,
        lease: &Lease,
        key: &PositionKey,
        last: &LastPublished,
        failures: &[(i64, String)],
    ) -> Result<Option<String>, DatabaseError> {
        self.gate.pass().await;
        self.inner.record_failures(lease, key, last, failures).await
    }

    async fn forget_failures_after(
        &mut self,
        lease: &Lease,
        key: &PositionKey,
        last: i64,
    ) -> Result<(), DatabaseError> {
        self.gate.pass().await;
        self.inner.forget_failures_after(lease, key, last).await
    }

    async fn failures(
        &mut self,
        key: &PositionKey,
        after: i64,
        limit: i64,
    ) -> Result<Vec<LogEntry>, DatabaseError> {
        self.gate.pass().await;
        self.inner.failures(key, after, limit).await
    }

    async fn retry_failures(&mut self, lease: &Lease, ids: &[i64]) -> Result<usize, DatabaseError> {
        self.gate.pass().await;
        self.inner.retry_failures(lease, ids).await
    }

    async fn prune(
        &mut self,
        lease: &Lease,
        after: i64,
        last: &LastPublished,
        seconds: f64,
        limit: i64,
    ) -> Result<Vec<i64>, DatabaseError> {
        self.gate.pass().await;
        self.inner.prune(lease, after, last, seconds, limit).await
    }

    async fn claimed(&mut self) -> Result<Option<ClaimedEvents>, DatabaseError> {
        self.gate.pass().await;
        self.inner.claimed().await
    }

    async fn resolve_claimed(
        &mut self,
        lease: &Lease,
        key: &PositionKey,
        published: i64,
    ) -> Result<bool, DatabaseError> {
        self.gate.pass().await;
        self.inner.resolve_claimed(lease, key, published).await
    }
}
