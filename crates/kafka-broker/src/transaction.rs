//! Keeps the state of one transactional id, and decides how it changes.
//!
//! Follows `TransactionCoordinator` and `TransactionMetadata` of Apache Kafka 3.9 (KIP-98, KIP-360).
//! The end of a transaction is one journal entry. So the intermediate states (`PrepareCommit`, `PrepareAbort`) do not
//! exist, and no request is refused with CONCURRENT_TRANSACTIONS.

use std::collections::BTreeSet;

use kafka_protocol::ResponseError;

use crate::entry::ProducerIdAndEpoch;

/// `transaction.max.timeout.ms`
pub const MAX_TIMEOUT_MS: i32 = 15 * 60 * 1000;

#[derive(Debug)]
pub struct Transaction {
    pub producer: ProducerIdAndEpoch,
    /// Producer before the last bump, if the client asked for the bump by its epoch: it may repeat the request.
    pub last_producer: ProducerIdAndEpoch,
    pub timeout_ms: i32,
    pub status: Status,
}

#[derive(Debug)]
pub enum Status {
    Empty,
    Ongoing(Ongoing),
    CompleteCommit,
    CompleteAbort,
}

impl Status {
    /// Returns the name that Apache Kafka gives the state.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing(_) => "Ongoing",
            Self::CompleteCommit => "CompleteCommit",
            Self::CompleteAbort => "CompleteAbort",
        }
    }
}

#[derive(Debug)]
pub struct Ongoing {
    pub started_ms: i64,
    pub partitions: BTreeSet<(String, i32)>,
    pub groups: BTreeSet<String>,
}

/// Describes the effect of InitProducerId on a transactional id.
#[derive(Debug, PartialEq, Eq)]
pub enum Initialized {
    /// The client repeats a bump whose response it did not receive.
    Unchanged,
    Bumped {
        producer: ProducerIdAndEpoch,
        last_producer: ProducerIdAndEpoch,
    },
}

impl Transaction {
    pub fn ongoing(&self) -> Option<&Ongoing> {
        match &self.status {
            Status::Ongoing(ongoing) => Some(ongoing),
            _ => None,
        }
    }

    /// Returns the open transaction. Begins one at `now_ms` when none is open.
    pub fn open_or_begin(&mut self, now_ms: i64) -> Option<&mut Ongoing> {
        if self.ongoing().is_none() {
            self.status = Status::Ongoing(Ongoing {
                started_ms: now_ms,
                partitions: BTreeSet::new(),
                groups: BTreeSet::new(),
            });
        }
        match &mut self.status {
            Status::Ongoing(ongoing) => Some(ongoing),
            _ => None,
        }
    }

    /// Returns when the coordinator aborts the open transaction.
    pub fn expires_ms(&self) -> Option<i64> {
        let ongoing = self.ongoing()?;
        Some(ongoing.started_ms.saturating_add(i64::from(self.timeout_ms)))
    }

    pub fn check_producer(&self, producer: ProducerIdAndEpoch) -> Result<(), ResponseError> {
        if self.producer.id != producer.id {
            Err(ResponseError::InvalidProducerIdMapping)
        } else if self.producer.epoch != producer.epoch {
            Err(ResponseError::ProducerFenced)
        } else {
            Ok(())
        }
    }

    /// Returns whether EndTxn has an effect. Repeated with the same result it has none.
    pub fn check_end(&self, producer: ProducerIdAndEpoch, commit: bool) -> Result<bool, ResponseError> {
        self.check_producer(producer)?;
        match (&self.status, commit) {
            (Status::Ongoing(_), _) => Ok(true),
            (Status::CompleteCommit, true) | (Status::CompleteAbort, false) => Ok(false),
            _ => Err(ResponseError::InvalidTxnState),
        }
    }

    /// Returns the epoch that fences the producer whose transaction the coordinator aborts. No client ever receives it,
    /// so it may be the largest one (`prepareFenceProducerEpoch`).
    pub fn fencing_epoch(&self) -> i16 {
        self.producer.epoch.saturating_add(1)
    }

    /// Refuses a client that names `expected` as its producer when it is not the current one (`isValidProducerId` in
    /// `prepareInitProducerIdTransit`).
    pub fn check_expected(&self, expected: Option<ProducerIdAndEpoch>) -> Result<(), ResponseError> {
        match expected {
            Some(expected)
                if expected.id != self.producer.id
                    && !(expected.id == self.last_producer.id && is_exhausted(expected.epoch)) =>
            {
                Err(ResponseError::ProducerFenced)
            }
            _ => Ok(()),
        }
    }

    /// Returns the producer after InitProducerId, when no transaction is open. It gets `next_id` when the epochs of the
    /// current id are exhausted.
    pub fn initialize(
        &self,
        expected: Option<ProducerIdAndEpoch>,
        next_id: i64,
    ) -> Result<Initialized, ResponseError> {
        let current = self.producer;
        let matches = expected.is_none_or(|expected| expected.epoch == current.epoch);
        // Kept only for a client that named its epoch. Any other client fences all before it.
        let last_producer = match expected {
            Some(_) => current,
            None => ProducerIdAndEpoch::NONE,
        };
        if is_exhausted(current.epoch) && matches {
            Ok(Initialized::Bumped { producer: ProducerIdAndEpoch { id: next_id, epoch: 0 }, last_producer })
        } else if matches {
            Ok(Initialized::Bumped {
                producer: ProducerIdAndEpoch { id: current.id, epoch: current.epoch.saturating_add(1) },
                last_producer,
            })
        } else if expected == Some(self.last_producer) {
            Ok(Initialized::Unchanged)
        } else {
            Err(ResponseError::ProducerFenced)
        }
    }
}

/// Returns whether only the last epoch is left, which is reserved for fencing (`TransactionMetadata.isEpochExhausted`).
fn is_exhausted(epoch: i16) -> bool {
    epoch >= i16::MAX - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn producer(id: i64, epoch: i16) -> ProducerIdAndEpoch {
        ProducerIdAndEpoch { id, epoch }
    }

    fn transaction(id: i64, epoch: i16, last: ProducerIdAndEpoch) -> Transaction {
        Transaction {
            producer: producer(id, epoch),
            last_producer: last,
            timeout_ms: 1000,
            status: Status::Empty,
        }
    }

    #[test]
    fn a_client_that_names_nothing_gets_the_next_epoch_and_fences_all_before() {
        let txn = transaction(7, 3, producer(7, 2));
        let bumped = txn.initialize(None, 8);
        assert_eq!(
            bumped,
            Ok(Initialized::Bumped { producer: producer(7, 4), last_producer: ProducerIdAndEpoch::NONE })
        );
    }

    #[test]
    fn a_client_that_names_its_epoch_is_bumped_once_however_often_it_asks() {
        let mut txn = transaction(7, 3, ProducerIdAndEpoch::NONE);
        let own = producer(7, 3);
        let bumped = txn.initialize(Some(own), 8);
        let expected = Initialized::Bumped { producer: producer(7, 4), last_producer: own };
        assert_eq!(bumped, Ok(expected));
        txn.producer = producer(7, 4);
        txn.last_producer = own;
        assert_eq!(txn.initialize(Some(own), 8), Ok(Initialized::Unchanged));
        assert_eq!(txn.initialize(Some(producer(7, 2)), 8), Err(ResponseError::ProducerFenced));
    }

    #[test]
    fn a_new_producer_id_follows_the_last_epoch() {
        let txn = transaction(7, i16::MAX - 1, ProducerIdAndEpoch::NONE);
        let expected =
            Initialized::Bumped { producer: producer(8, 0), last_producer: ProducerIdAndEpoch::NONE };
        assert_eq!(txn.initialize(None, 8), Ok(expected));
    }

    #[test]
    fn another_producer_id_is_fenced_unless_its_epochs_were_just_exhausted() {
        let txn = transaction(8, 0, producer(7, i16::MAX - 1));
        let stranger = txn.check_expected(Some(producer(6, 0)));
        assert_eq!(stranger, Err(ResponseError::ProducerFenced));
        let before = Some(producer(7, i16::MAX - 1));
        assert_eq!(txn.check_expected(before), Ok(()));
        assert_eq!(txn.initialize(before, 9), Ok(Initialized::Unchanged));
    }

    #[test]
    fn ending_twice_is_allowed_with_the_same_result_only() {
        let mut txn = transaction(7, 0, ProducerIdAndEpoch::NONE);
        let own = producer(7, 0);
        let refused = Err(ResponseError::InvalidTxnState);
        assert_eq!(txn.check_end(own, true), refused);
        txn.open_or_begin(5);
        assert_eq!(txn.check_end(own, true), Ok(true));
        txn.status = Status::CompleteCommit;
        assert_eq!(txn.check_end(own, true), Ok(false));
        assert_eq!(txn.check_end(own, false), refused);
        assert_eq!(txn.check_end(producer(7, 1), true), Err(ResponseError::ProducerFenced));
    }
}
