//! Counts the work of a worker and judges whether it makes progress.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The time beyond its work for which a record may be in flight. It covers retries and commits, a change of the
/// coordinator or of a leader, and a rebalance.
pub const MARGIN: Duration = Duration::from_secs(30);
/// The number of consecutive failed sessions after which a worker is not ready.
const MAX_FAILURES: u32 = 3;
/// The time for which an error of the group must repeat until a worker without a partition is not ready.
const GROUP_ERROR_LIMIT: Duration = Duration::from_secs(10);
/// The time after which an error that did not repeat no longer counts.
const GROUP_ERROR_MEMORY: Duration = Duration::from_secs(30);

/// The metrics of a worker.
#[derive(Clone, Debug, Default)]
pub(super) struct WorkerMetrics {
    pub(super) read: Counter,
    pub(super) committed: Counter,
    pub(super) dead_letters: Counter,
    pub(super) session_failures: Counter,
    pub(super) log_went_back: Counter,
    pub(super) expired: Counter,
    pub(super) in_flight: Gauge,
    pub(super) oldest: Gauge<f64, AtomicU64>,
    pub(super) partitions: Gauge,
}

impl WorkerMetrics {
    fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let counters = [
            (
                "records_read",
                "Records read, including repetitions after a partition was lost before the commit",
                &metrics.read,
            ),
            ("records_committed", "Records read, processed and committed", &metrics.committed),
            ("dead_letters", "Records sent to the dead-letter topic", &metrics.dead_letters),
            (
                "session_failures",
                "Consumer sessions that failed and were restarted",
                &metrics.session_failures,
            ),
            (
                "log_went_back",
                "Times that a partition had other records than those consumed",
                &metrics.log_went_back,
            ),
            (
                "records_expired",
                "Offsets that the brokers deleted before the group read them",
                &metrics.expired,
            ),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        registry.register(
            "records_in_flight",
            "Records read and not yet committed",
            metrics.in_flight.clone(),
        );
        registry.register(
            "oldest_in_flight_seconds",
            "Age of the oldest record that is not yet committed",
            metrics.oldest.clone(),
        );
        registry.register(
            "partitions_assigned",
            "Partitions that this instance reads",
            metrics.partitions.clone(),
        );
        metrics
    }
}

/// The status of a worker: whether it makes progress, or why not.
#[derive(Clone)]
pub struct WorkerStatus {
    pub(super) metrics: WorkerMetrics,
    /// The time for which a record that did not wait for its turn may be in flight.
    patience: Duration,
    state: Arc<Mutex<State>>,
}

struct State {
    session_began: Instant,
    /// The number of consecutive failed sessions, and the last reason.
    failures: (u32, String),
    reading: Reading,
    oldest: Option<Instant>,
    /// How long work waited for its turn, and when this was recorded.
    queue: Option<(Duration, Instant)>,
    /// Why work or its commit was last retried, and when.
    retrying: Option<(String, Instant)>,
    group_error: Option<GroupError>,
    /// Why a batch cannot be read, and when this last occurred.
    unreadable: Option<(String, Instant)>,
    stall: Option<String>,
    /// A partition that only a new client can read.
    silent: Option<i32>,
}

/// The partitions that a member reads.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading {
    pub(super) assigned: Vec<i32>,
    /// The assigned partitions that have nothing in flight.
    pub(super) idle: Vec<i32>,
    /// Whether fetched records are waiting, perhaps those of an idle partition.
    pub(super) is_saturated: bool,
}

impl Reading {
    pub(super) fn is_working_on(&self, partition: i32) -> bool {
        self.assigned.contains(&partition) && !self.idle.contains(&partition)
    }

    /// Returns whether the member is waiting for the next record of `partition`.
    pub(super) fn is_waiting_for(&self, partition: i32) -> bool {
        !self.is_saturated && self.idle.contains(&partition)
    }
}

struct GroupError {
    reason: String,
    first: Instant,
    last: Instant,
}

impl WorkerStatus {
    /// Creates the status of a worker whose work on a record takes `work_time`, and registers its metrics.
    pub fn register(registry: &mut Registry, work_time: Duration) -> Self {
        let state = State {
            session_began: Instant::now(),
            failures: (0, String::new()),
            reading: Reading::default(),
            oldest: None,
            queue: None,
            retrying: None,
            group_error: None,
            unreadable: None,
            stall: None,
            silent: None,
        };
        Self {
            metrics: WorkerMetrics::register(registry),
            patience: work_time.saturating_add(MARGIN),
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Returns the time for which a record may be in flight or a group with waiting records may make no progress.
    pub(super) fn patience(&self) -> Duration {
        self.patience_with(self.lock().queue)
    }

    fn patience_with(&self, queue: Option<(Duration, Instant)>) -> Duration {
        let queue = queue.filter(|(_, at)| at.elapsed() <= self.patience.saturating_mul(2));
        queue.map_or(self.patience, |(wait, _)| self.patience.saturating_add(wait))
    }

    pub(super) fn session_begins(&self) {
        self.lock().session_began = Instant::now();
    }

    /// Records that a session failed. Restarts the count of failures when the session worked for a long time.
    pub(super) fn session_failed(&self, reason: String) {
        self.metrics.session_failures.inc();
        let mut state = self.lock();
        let worked = state.session_began.elapsed() > self.patience;
        let before = if worked { 0 } else { state.failures.0 };
        state.failures = (before + 1, reason);
        state.reading = Reading::default();
        state.oldest = None;
        state.silent = None;
        drop(state);
        self.show(0, 0, None);
    }

    /// Records why work is retried.
    pub(super) fn retrying(&self, reason: &str) {
        self.lock().retrying = Some((reason.to_owned(), Instant::now()));
    }

    /// Records that work succeeded after it waited this long for its turn. A record in flight may wait as long.
    pub fn waited(&self, wait: Duration) {
        let mut state = self.lock();
        // The records that waited longest are still in flight for some time after the queue became shorter.
        let outlived = |(longest, at): (Duration, Instant)| wait >= longest || at.elapsed() > self.patience;
        if state.queue.is_none_or(outlived) {
            state.queue = Some((wait, Instant::now()));
        }
    }

    /// Records why the group assigns no partition to this member.
    pub(super) fn group_failed(&self, reason: &str) {
        let now = Instant::now();
        let mut state = self.lock();
        let first = match &state.group_error {
            Some(error) if error.last.elapsed() < GROUP_ERROR_MEMORY => error.first,
            _ => now,
        };
        state.group_error = Some(GroupError { reason: reason.to_owned(), first, last: now });
    }

    /// Records why a batch cannot be read, which the client retries indefinitely.
    pub(super) fn found_unreadable(&self, reason: &str) {
        self.lock().unreadable = Some((reason.to_owned(), Instant::now()));
    }

    /// Records that the group works.
    pub(super) fn group_recovered(&self) {
        self.lock().group_error = None;
    }

    /// Records why the group makes no progress in a partition, or `None` when it does.
    pub(super) fn stalled(&self, reason: Option<String>) {
        self.lock().stall = reason;
    }

    /// Records that this member reads nothing from a partition although records wait there.
    pub(super) fn found_silent(&self, partition: i32) {
        self.lock().silent = Some(partition);
    }

    /// Returns a partition that was found to be silent, and resets it.
    pub(super) fn take_silent(&self) -> Option<i32> {
        self.lock().silent.take()
    }

    pub(super) fn reading(&self) -> Reading {
        self.lock().reading.clone()
    }

    pub(super) fn observe(&self, reading: Reading, in_flight: usize, oldest: Option<Instant>) {
        let partitions = reading.assigned.len();
        let mut state = self.lock();
        state.reading = reading;
        state.oldest = oldest;
        drop(state);
        self.show(partitions, in_flight, oldest);
    }

    fn show(&self, partitions: usize, in_flight: usize, oldest: Option<Instant>) {
        self.metrics.in_flight.set(in_flight as i64);
        self.metrics.partitions.set(partitions as i64);
        self.show_oldest(oldest);
    }

    fn show_oldest(&self, oldest: Option<Instant>) {
        self.metrics.oldest.set(oldest.map_or(0.0, |oldest| oldest.elapsed().as_secs_f64()));
    }

    pub(super) fn describe_assignment(&self) -> String {
        let state = self.lock();
        let error = state.group_error.as_ref().filter(|error| error.last.elapsed() < GROUP_ERROR_MEMORY);
        let error = error.map(|error| format!("; the group fails: {}", error.reason)).unwrap_or_default();
        format!("{} partitions assigned to this member{error}", state.reading.assigned.len())
    }

    /// Judges whether the worker makes progress.
    ///
    /// # Errors
    /// Returns the reason when it makes no progress.
    pub fn judge(&self) -> anyhow::Result<()> {
        let state = self.lock();
        self.show_oldest(state.oldest);
        let caused_by = |cause: &str, summary: String| Err(anyhow!("{cause}").context(summary));
        if let Some((reason, at)) = &state.unreadable
            && at.elapsed() < GROUP_ERROR_MEMORY
        {
            return caused_by(reason, "a partition contains a batch that cannot be read".to_owned());
        }
        let (failures, reason) = &state.failures;
        if *failures >= MAX_FAILURES && state.session_began.elapsed() < self.patience {
            return caused_by(reason, format!("{failures} consumer sessions failed in a row"));
        }
        if state.reading.assigned.is_empty()
            && let Some(error) = &state.group_error
            && error.last.elapsed() < GROUP_ERROR_MEMORY
            && error.last.duration_since(error.first) >= GROUP_ERROR_LIMIT
        {
            let seconds = error.first.elapsed().as_secs();
            let summary = format!("no partition is assigned, and the group has failed for {seconds} s");
            return caused_by(&error.reason, summary);
        }
        let patience = self.patience_with(state.queue);
        if let Some(oldest) = state.oldest.filter(|oldest| oldest.elapsed() > patience) {
            let seconds = oldest.elapsed().as_secs();
            let retrying = state.retrying.as_ref().filter(|(_, at)| at.elapsed() < self.patience);
            let reason = retrying.map_or("no failure is known", |(reason, _)| reason);
            return caused_by(reason, format!("the oldest record in flight has waited for {seconds} s"));
        }
        state.stall.as_ref().map_or(Ok(()), |reason| bail!("{reason}"))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(work_time: Duration) -> WorkerStatus {
        WorkerStatus::register(&mut Registry::default(), work_time)
    }

    fn reading(partitions: i32) -> Reading {
        Reading { assigned: (0..partitions).collect(), ..Reading::default() }
    }

    fn reason(status: &WorkerStatus) -> String {
        format!("{:#}", status.judge().unwrap_err())
    }

    #[test]
    fn single_failures_are_tolerated_and_consecutive_failures_are_not() {
        let status = status(Duration::ZERO);
        for _ in 1..MAX_FAILURES {
            status.session_failed("the cause".to_owned());
            status.session_begins();
            status.judge().unwrap();
        }
        status.session_failed("the cause".to_owned());
        status.session_begins();
        assert!(reason(&status).ends_with("the cause"));
        let long_ago = Instant::now().checked_sub(MARGIN * 2).unwrap();
        status.lock().session_began = long_ago;
        status.judge().unwrap();
    }

    #[test]
    fn a_record_may_be_in_flight_for_its_work_and_a_margin() {
        let status = status(Duration::from_secs(60));
        let ago = |seconds| Instant::now().checked_sub(Duration::from_secs(seconds));
        status.observe(reading(1), 1, ago(80));
        status.judge().unwrap();
        status.retrying("the database is unavailable");
        status.observe(reading(1), 1, ago(100));
        assert!(reason(&status).ends_with("the database is unavailable"));
        status.observe(reading(1), 0, None);
        status.judge().unwrap();
    }

    #[test]
    fn a_record_may_wait_for_its_turn_while_other_work_succeeds() {
        let status = status(Duration::from_secs(10));
        let ago = |seconds| Instant::now().checked_sub(Duration::from_secs(seconds));
        status.observe(reading(1), 1, ago(130));
        assert!(reason(&status).contains("has waited for 130 s"));
        status.waited(Duration::from_secs(100));
        status.judge().unwrap();
        status.waited(Duration::from_secs(5));
        status.judge().unwrap();
        status.lock().queue.as_mut().unwrap().1 = ago(41).unwrap();
        status.waited(Duration::from_secs(95));
        status.judge().unwrap();
        status.lock().queue.as_mut().unwrap().1 = ago(81).unwrap();
        assert!(reason(&status).contains("has waited for 130 s"), "no work succeeds any more");
    }

    #[test]
    fn an_error_of_the_group_counts_when_it_repeats_and_nothing_is_assigned() {
        let status = status(Duration::ZERO);
        status.group_failed("inconsistent");
        status.judge().unwrap();
        let first = Instant::now().checked_sub(GROUP_ERROR_LIMIT).unwrap();
        status.lock().group_error.as_mut().unwrap().first = first;
        status.group_failed("inconsistent");
        assert!(reason(&status).ends_with("inconsistent"));
        status.observe(reading(1), 0, None);
        status.judge().unwrap();
        status.observe(reading(0), 0, None);
        status.group_recovered();
        status.judge().unwrap();
    }

    #[test]
    fn an_unreadable_batch_counts_immediately_and_while_it_is_retried() {
        let status = status(Duration::ZERO);
        status.observe(reading(1), 0, None);
        status.found_unreadable("bad compression");
        assert!(reason(&status).ends_with("bad compression"));
        let long_ago = Instant::now().checked_sub(GROUP_ERROR_MEMORY).unwrap();
        status.lock().unreadable.as_mut().unwrap().1 = long_ago;
        status.judge().unwrap();
    }
}
