//! Remembers why connections to the brokers fail.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::args::KafkaArgs;
use super::client::LoggingContext;

/// The context of a client that queries the brokers. The error of a query is only that no broker answered in time; the
/// reason is an event of the client.
#[derive(Debug)]
pub(super) struct ConnectionWatch {
    servers: String,
    /// The latest failure since a broker answered.
    failure: Mutex<Option<ConnectionFailure>>,
    /// Whether all connections were down since a broker answered.
    lost_all_brokers: AtomicBool,
    /// When a broker last answered, or when the client was created.
    answered: Mutex<Instant>,
}

#[derive(Clone, Debug)]
struct ConnectionFailure {
    code: Option<RDKafkaErrorCode>,
    /// The description of librdkafka, which names the broker.
    reason: String,
}

impl ConnectionWatch {
    pub(super) fn new(kafka: &KafkaArgs) -> Self {
        Self {
            servers: kafka.bootstrap_servers().to_owned(),
            failure: Mutex::default(),
            lost_all_brokers: AtomicBool::new(false),
            answered: Mutex::new(Instant::now()),
        }
    }

    /// Returns the context of the client that replaces this one. It knows the reason until a broker answers.
    pub(super) fn successor(&self) -> Self {
        Self {
            servers: self.servers.clone(),
            failure: Mutex::new(self.failure().clone()),
            lost_all_brokers: AtomicBool::new(false),
            answered: Mutex::new(Instant::now()),
        }
    }

    fn failure(&self) -> MutexGuard<'_, Option<ConnectionFailure>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the failures before an answer.
    pub(super) fn answered(&self) {
        *self.failure() = None;
        self.lost_all_brokers.store(false, Ordering::Relaxed);
        *self.answered.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Returns whether all connections were down since a broker answered.
    pub(super) fn lost_all_brokers(&self) -> bool {
        self.lost_all_brokers.load(Ordering::Relaxed)
    }

    /// Returns how long ago a broker answered, or the client was created.
    pub(super) fn unanswered_for(&self) -> Duration {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// Adds the reason to the error of a query. The outermost message contains no text of librdkafka.
    pub(super) fn explain(&self, error: impl Into<anyhow::Error>) -> anyhow::Error {
        let failure = self.failure();
        let code = failure.as_ref().and_then(|failure| failure.code);
        let mut error = error.into();
        if let Some(ConnectionFailure { reason, .. }) = &*failure {
            error = error.context(reason.clone());
        }
        error.context(self.servers.clone()).context(match code {
            Some(RDKafkaErrorCode::Authentication) => "the brokers refuse the user or the password",
            Some(RDKafkaErrorCode::SSL) => "the TLS handshake with a broker failed",
            _ => "no broker answers",
        })
    }
}

impl ClientContext for ConnectionWatch {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        LoggingContext.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        // Follows the failures of the individual brokers, which say more.
        if code == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.lost_all_brokers.store(true, Ordering::Relaxed);
        } else {
            *self.failure() = Some(ConnectionFailure { code, reason: reason.to_owned() });
        }
        LoggingContext.error(error, reason);
    }
}

impl ConsumerContext for ConnectionWatch {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_explained_by_the_latest_failure_of_a_connection() {
        let watch = ConnectionWatch::new(&KafkaArgs::default());
        let query = || KafkaError::MetadataFetch(RDKafkaErrorCode::OperationTimedOut);
        let refused = KafkaError::Global(RDKafkaErrorCode::Authentication);
        watch.error(refused, "sasl_ssl://broker: invalid credentials");
        watch.error(KafkaError::Global(RDKafkaErrorCode::AllBrokersDown), "1/1 brokers are down");
        let explained = watch.explain(query());
        assert_eq!(explained.to_string(), "the brokers refuse the user or the password");
        let whole = format!("{explained:#}");
        assert!(
            whole.contains("127.0.0.1:9092: sasl_ssl://broker: invalid credentials: Meta data"),
            "{whole}"
        );
        watch.answered();
        assert!(
            format!("{:#}", watch.explain(query()))
                .starts_with("no broker answers: 127.0.0.1:9092: Meta data")
        );
    }
}
