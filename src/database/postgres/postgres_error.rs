//! Converts errors of PostgreSQL to [`DatabaseError`].

use std::error::Error;

use diesel::result::{DatabaseErrorInformation, DatabaseErrorKind, Error as DieselError};

use super::sqlstate::{SqlState, Verdict};
use super::tap::{ServerReport, ServerReports, printable};
use crate::database::DatabaseError;

/// An error of PostgreSQL, or of the connection to it.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct PostgresError {
    code: Option<SqlState>,
    verdict: Verdict,
    text: String,
}

impl PostgresError {
    /// Returns the SQLSTATE, if the server reported the error.
    pub fn code(&self) -> Option<SqlState> {
        self.code
    }

    /// Creates a transient error that the server did not report.
    pub(super) fn unavailable(text: String) -> Self {
        Self { code: None, verdict: Verdict::Unavailable, text }
    }

    pub(super) fn read_only(text: String) -> Self {
        Self { code: None, verdict: Verdict::ReadOnly, text }
    }

    fn internal(error: &dyn Error) -> Self {
        Self { code: None, verdict: Verdict::Internal, text: printable(&chain(error)) }
    }

    /// Creates an error that the server reported.
    fn reported(code: SqlState, message: &str, detail: Option<&str>, hint: Option<&str>) -> Self {
        let mut text = format!("SQLSTATE {code}: {}", printable(message));
        for part in [detail, hint, code.advice()].into_iter().flatten() {
            text.push_str(&format!(" ({})", printable(part)));
        }
        Self { code: Some(code), verdict: code.verdict(), text }
    }

    /// Creates the error of a closed connection: the server's last FATAL report, or else `reason`.
    pub(super) fn closed(fatal: Option<&ServerReport>, reason: &str) -> Self {
        match fatal {
            Some(ServerReport { code, message, .. }) => Self::reported(*code, message, None, None),
            None => Self::unavailable(format!("the connection is lost: {}", printable(reason))),
        }
    }

    /// Converts an error of tokio-postgres, which retains the code.
    pub(super) fn from_driver(error: &tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(reported) => match SqlState::parse(reported.code().code().as_bytes()) {
                Some(code) => Self::reported(code, reported.message(), reported.detail(), reported.hint()),
                None => Self::internal(error),
            },
            None => Self::unavailable(printable(&chain(error))),
        }
    }

    /// Converts an error of diesel. The code comes from diesel's kind or from `reports`.
    pub(super) fn from_diesel(error: &DieselError, reports: &ServerReports, end: Option<&str>) -> Self {
        match error {
            DieselError::DatabaseError(kind, information) => {
                match code_of(kind).or_else(|| reports.last().map(|report| report.code)) {
                    _ if is_closed(kind) => {
                        Self::closed(reports.fatal().as_ref(), end.unwrap_or(information.message()))
                    }
                    Some(code) => Self::from_information(code, information.as_ref()),
                    None => Self::internal(error),
                }
            }
            DieselError::RollbackErrorOnCommit { commit_error, .. } => {
                Self::from_diesel(commit_error, reports, end)
            }
            DieselError::BrokenTransactionManager => Self::unavailable(error.to_string()),
            _ => Self::internal(error),
        }
    }

    fn from_information(code: SqlState, information: &dyn DatabaseErrorInformation) -> Self {
        Self::reported(code, information.message(), information.details(), information.hint())
    }

    /// Converts an error that occurred before a session could be used. What the server refuses then, an operator can
    /// permit while the process waits, whatever its code.
    pub(super) fn while_connecting(self) -> Self {
        match self.verdict {
            Verdict::Unavailable | Verdict::ReadOnly => self,
            Verdict::Conflict | Verdict::Refused | Verdict::Internal => {
                Self { verdict: Verdict::Unavailable, ..self }
            }
        }
    }

    /// Prepends `context` to the text.
    pub(super) fn context(mut self, context: &str) -> Self {
        self.text = format!("{context}: {}", self.text);
        self
    }

    /// Appends `advice` to the text.
    pub(super) fn advise(mut self, advice: &str) -> Self {
        self.text = format!("{} ({advice})", self.text);
        self
    }

    /// Joins the errors of several attempts. A server's response takes precedence over a missing one.
    pub(super) fn join(attempts: Vec<Self>) -> Self {
        let text = attempts.iter().map(|error| error.text.as_str()).collect::<Vec<_>>().join("; ");
        let rank = |error: &Self| match error.verdict {
            Verdict::ReadOnly => 0,
            Verdict::Unavailable if error.code.is_some() => 1,
            Verdict::Unavailable => 2,
            Verdict::Conflict | Verdict::Refused | Verdict::Internal => 3,
        };
        let foremost = attempts.into_iter().min_by_key(rank);
        foremost.map_or_else(
            || Self::unavailable("there is no server to connect to".to_owned()),
            |error| Self { text, ..error },
        )
    }

    pub(super) fn ends_session(&self) -> bool {
        self.code.is_none_or(SqlState::ends_session)
    }
}

impl From<PostgresError> for DatabaseError {
    fn from(error: PostgresError) -> Self {
        match error.verdict {
            Verdict::Unavailable => Self::Unavailable(error.into()),
            Verdict::ReadOnly => Self::ReadOnly(error.into()),
            Verdict::Conflict => Self::Conflict(error.into()),
            Verdict::Refused => Self::Refused(error.into()),
            Verdict::Internal => Self::Internal(error.into()),
        }
    }
}

/// Returns the code that diesel-async turned into `kind`.
fn code_of(kind: &DatabaseErrorKind) -> Option<SqlState> {
    let code = match kind {
        DatabaseErrorKind::UniqueViolation => "23505",
        DatabaseErrorKind::ForeignKeyViolation => "23503",
        DatabaseErrorKind::RestrictViolation => "23001",
        DatabaseErrorKind::ExclusionViolation => "23P01",
        DatabaseErrorKind::NotNullViolation => "23502",
        DatabaseErrorKind::CheckViolation => "23514",
        DatabaseErrorKind::SerializationFailure => "40001",
        DatabaseErrorKind::ReadOnlyTransaction => "25006",
        _ => return None,
    };
    SqlState::parse(code.as_bytes())
}

fn is_closed(kind: &DatabaseErrorKind) -> bool {
    matches!(kind, DatabaseErrorKind::UnableToSendCommand | DatabaseErrorKind::ClosedConnection)
}

/// Returns the texts of `error` and its sources, each only once.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_refuses_to_a_new_connection_is_unavailable_unless_it_is_read_only() {
        for code in ["55000", "42501", "0A000", "22023", "40001", "42704", "XX000", "28P01", "3D000", "57P03"]
        {
            let code = SqlState::parse(code.as_bytes()).unwrap();
            let error = PostgresError::reported(code, "refused", None, None).while_connecting();
            assert!(matches!(DatabaseError::from(error), DatabaseError::Unavailable(_)), "{code}");
        }
        let read_only = PostgresError::reported(SqlState::READ_ONLY_TRANSACTION, "", None, None);
        let read_only = DatabaseError::from(read_only.while_connecting());
        assert!(matches!(read_only, DatabaseError::ReadOnly(_)));
    }
}
