//! Classifies SQLSTATE codes.

use std::fmt;

/// A five-character error code (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SqlState([u8; 5]);

/// The advice to an operator whose pooler shares sessions.
pub(super) const POOLER_ADVICE: &str = "a pooler between this process and PostgreSQL shares server sessions between its \
    clients; set pool_mode = session for this database in PgBouncer, or give a database URL that leads to PostgreSQL \
    itself";

/// What a caller can do about an error: the variants of [`DatabaseError`](crate::database::DatabaseError).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Unavailable,
    ReadOnly,
    Conflict,
    Refused,
    Internal,
}

impl SqlState {
    pub const READ_ONLY_TRANSACTION: Self = Self(*b"25006");
    pub const LOCK_NOT_AVAILABLE: Self = Self(*b"55P03");
    pub const UNIQUE_VIOLATION: Self = Self(*b"23505");
    pub const INVALID_AUTHORIZATION: Self = Self(*b"28000");

    /// Returns the code in `bytes`: exactly five upper-case letters or digits.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let code: [u8; 5] = bytes.try_into().ok()?;
        code.iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit()).then_some(Self(code))
    }

    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Returns the first two characters.
    fn class(&self) -> &str {
        self.as_str().get(..2).unwrap_or_default()
    }

    /// Classifies the error, first by code and then by class.
    pub(super) fn verdict(self) -> Verdict {
        match self.as_str() {
            // serialization_failure, deadlock_detected
            "40001" | "40P01" => Verdict::Conflict,
            "25006" => Verdict::ReadOnly,
            // idle_in_transaction_session_timeout, transaction_timeout, lock_not_available
            "25P03" | "25P04" | "55P03" => Verdict::Unavailable,
            // invalid_catalog_name: an operator can create the database while the process waits.
            "3D000" => Verdict::Unavailable,
            // A prepared statement is unknown or exists already: a pooler shares sessions (see `advice`).
            "26000" | "42P05" => Verdict::Unavailable,
            _ => match self.class() {
                // Connection exception, insufficient resources, operator intervention, system error.
                "08" | "53" | "57" | "58" => Verdict::Unavailable,
                // Invalid authorization: an operator can correct the password or pg_hba.conf while the process waits.
                "28" => Verdict::Unavailable,
                // Data exception, integrity constraint violation.
                "22" | "23" => Verdict::Refused,
                _ => Verdict::Internal,
            },
        }
    }

    /// Returns whether the session is unfit for further calls although the connection may still be open.
    pub(super) fn ends_session(self) -> bool {
        match self.verdict() {
            Verdict::ReadOnly | Verdict::Internal => true,
            Verdict::Conflict | Verdict::Refused => false,
            // A cancelled statement, an unavailable lock and a full disk leave the session intact.
            Verdict::Unavailable => self.class() != "53" && !matches!(self.as_str(), "57014" | "55P03"),
        }
    }

    /// Returns advice for an operator, for errors whose message does not contain it.
    pub(super) fn advice(self) -> Option<&'static str> {
        match self.as_str() {
            "26000" | "42P05" => Some(POOLER_ADVICE),
            "53300" => Some("raise max_connections of the server, or start fewer instances"),
            "25006" => Some("the server is a standby, or default_transaction_read_only is set"),
            "28P01" => Some("check the user name and the password of the database URL"),
            _ => None,
        }
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::Verdict::{Conflict, Internal, ReadOnly, Refused, Unavailable};
    use super::*;

    fn state(code: &str) -> SqlState {
        SqlState::parse(code.as_bytes()).unwrap()
    }

    /// Checks every class of PostgreSQL 17 and the codes that differ from their class.
    #[test]
    fn every_class_has_its_verdict() {
        let expected: &[(Verdict, &[&str])] = &[
            (Conflict, &["40001", "40P01"]),
            (ReadOnly, &["25006"]),
            (Refused, &["22000", "22001", "22003", "22012", "22021", "22P02", "22P05"]),
            (Refused, &["23000", "23001", "23502", "23503", "23505", "23514", "23P01"]),
            (Unavailable, &["08000", "08003", "08006", "08P01"]),
            (Unavailable, &["53000", "53100", "53200", "53300", "53400"]),
            (Unavailable, &["57000", "57014", "57P01", "57P02", "57P03", "57P04", "57P05"]),
            (Unavailable, &["58000", "58030", "58P01", "58P02", "55P03", "25P03", "25P04"]),
            (Unavailable, &["28000", "28P01", "3D000", "26000", "42P05"]),
            (Internal, &["00000", "01000", "02000", "03000", "09000", "0A000", "0B000", "0F000", "0L000"]),
            (Internal, &["0P000", "0Z000", "20000", "21000", "24000", "25000", "25001", "25P01", "25P02"]),
            (Internal, &["27000", "2B000", "2BP01", "2D000", "2F000", "34000", "38000", "39000", "3B000"]),
            (Internal, &["3F000", "40000", "40002", "40003", "42000", "42501", "42601", "42703", "42P01"]),
            (Internal, &["44000", "54000", "54001", "55000", "55006", "72000", "F0000", "HV000", "P0000"]),
            (Internal, &["P0001", "XX000", "XX001", "XX002", "ZZZZZ"]),
        ];
        for (verdict, codes) in expected {
            for code in *codes {
                assert_eq!(state(code).verdict(), *verdict, "{code}");
            }
        }
    }

    #[test]
    fn only_harmless_errors_preserve_the_session() {
        for code in ["23505", "22012", "40001", "57014", "55P03", "53100"] {
            assert!(!state(code).ends_session(), "{code}");
        }
        for code in ["25006", "57P01", "08006", "26000", "42P05", "0A000", "25P02", "XX000"] {
            assert!(state(code).ends_session(), "{code}");
        }
    }

    #[test]
    fn a_code_has_five_characters() {
        for wrong in ["", "2350", "235055", "2350é", "2350\n", "abcde"] {
            assert_eq!(SqlState::parse(wrong.as_bytes()), None, "{wrong:?}");
        }
    }
}
