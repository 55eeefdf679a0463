//! Finds poolers that share server sessions between clients.

use super::address::PostgresAddress;
use super::postgres_error::PostgresError;
use super::session::{Session, SessionKind};
use crate::database::{DATABASE_TIMEOUT, DatabaseError};

/// What an operator can do about a pooler that shares sessions.
pub(super) const ADVICE: &str = "a pooler between this process and PostgreSQL shares server sessions between its \
    clients; set pool_mode = session for this database in PgBouncer, or give a database URL that leads to PostgreSQL \
    itself";

/// How often the two sessions are compared.
const ROUNDS: usize = 5;

/// Refuses a pooler that shares server sessions between clients (transaction or statement pooling): prepared
/// statements, settings and advisory locks belong to a session, and would be another client's.
///
/// Leaves no setting behind in the sessions that it looks at.
///
/// # Errors
/// [`DatabaseError::Unavailable`] with what to set when sessions are shared, and those of
/// [`PostgresAddress::connect`].
pub async fn refuse_shared_sessions(address: &PostgresAddress) -> Result<(), DatabaseError> {
    let one = address.open(SessionKind::Probe).await?;
    if !one.pooled {
        return Ok(());
    }
    let other = address.open(SessionKind::Probe).await?;
    match tokio::time::timeout(DATABASE_TIMEOUT, shares(&one, &other)).await {
        Ok(Ok(false)) => Ok(()),
        Ok(Ok(true)) => Err(PostgresError::unavailable(ADVICE.to_owned()).into()),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(PostgresError::unavailable(format!("no answer within {DATABASE_TIMEOUT:?}")).into()),
    }
}

/// Whether the statements of two connections ever run in the same server process, or those of one in several. Each
/// asks twice in a row, so that a pooler that takes its server sessions in turn is found as well.
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
