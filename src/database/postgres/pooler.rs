//! Detects poolers that share server sessions between clients.

use super::address::PostgresAddress;
use super::postgres_error::PostgresError;
use super::session::{Session, SessionKind};
use super::sqlstate::POOLER_ADVICE;
use crate::database::{DATABASE_TIMEOUT, DatabaseError};

/// The number of comparisons of the two sessions.
const ROUNDS: usize = 5;

/// Refuses a pooler that shares server sessions between clients (transaction or statement pooling). Prepared
/// statements, settings and advisory locks belong to a session, which would then be another client's.
///
/// Changes no setting of the sessions that it probes.
///
/// # Errors
/// Returns [`DatabaseError::Unavailable`] with advice when sessions are shared, and the errors of
/// [`PostgresAddress::connect`].
pub async fn refuse_shared_sessions(address: &PostgresAddress) -> Result<(), DatabaseError> {
    let one = address.open(SessionKind::Probe).await?;
    if !one.pooled {
        return Ok(());
    }
    let other = address.open(SessionKind::Probe).await?;
    match tokio::time::timeout(DATABASE_TIMEOUT, shares(&one, &other)).await {
        Ok(Ok(false)) => Ok(()),
        Ok(Ok(true)) => Err(PostgresError::unavailable(POOLER_ADVICE.to_owned()).into()),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(PostgresError::unavailable(format!("no answer within {DATABASE_TIMEOUT:?}")).into()),
    }
}

/// Returns whether statements of two connections ran in the same server process, or those of one connection in
/// several. Each connection is probed twice in a row to detect a pooler that rotates its server sessions.
async fn shares(one: &Session, other: &Session) -> Result<bool, PostgresError> {
    let mut seen: [Option<String>; 2] = [None, None];
    for _ in 0..ROUNDS {
        for (session, own) in [one, one, other, other].iter().zip([0, 0, 1, 1]) {
            let process_id = session.process_id().await?;
            let known = seen.iter().position(|known| known.as_ref() == Some(&process_id));
            let changed =
                seen.get(own).is_some_and(|known| known.is_some() && known.as_ref() != Some(&process_id));
            if changed || known.is_some_and(|known| known != own) {
                return Ok(true);
            }
            if let Some(known) = seen.get_mut(own) {
                *known = Some(process_id);
            }
        }
    }
    Ok(false)
}
