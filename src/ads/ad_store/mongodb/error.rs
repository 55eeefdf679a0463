//! Classifies the errors of MongoDB.
//!
//! The codes and names are those of MongoDB's list:
//! <https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml>.

use mongodb::error::{Error, ErrorKind};

use crate::database::DatabaseError;

const BSON_OBJECT_TOO_LARGE: i32 = 10_334;

/// Classifies the error of a whole call.
pub(super) fn database_error(error: Error) -> DatabaseError {
    match error.kind.as_ref() {
        // The only error of a whole command that a document is certain to have caused is its size.
        ErrorKind::Command(failure) if failure.code == BSON_OBJECT_TOO_LARGE => {
            DatabaseError::Refused(error.into())
        }
        ErrorKind::Command(failure) if is_transient(failure.code) => DatabaseError::unavailable(error),
        ErrorKind::Command(_) => DatabaseError::internal(error),
        // The driver refuses a document that exceeds the server's limit or cannot be serialized as BSON.
        ErrorKind::InvalidArgument { .. } | ErrorKind::BsonSerialization(_) | ErrorKind::Bson(_) => {
            DatabaseError::Refused(error.into())
        }
        // Connection, server selection and protocol errors are never caused by an ad.
        _ => DatabaseError::unavailable(error),
    }
}

/// Classifies the error of one document by its code.
pub(super) fn by_code(code: i32, error: impl Into<anyhow::Error>) -> DatabaseError {
    if is_transient(code) {
        DatabaseError::unavailable(error)
    } else if is_refusal(code) {
        DatabaseError::Refused(error.into())
    } else {
        DatabaseError::internal(error)
    }
}

/// Returns whether the code concerns the document, which the server would refuse again.
fn is_refusal(code: i32) -> bool {
    matches!(
        code,
        2 // BadValue
        | 9 // FailedToParse
        | 14 // TypeMismatch
        | 15 // Overflow
        | 16 // InvalidLength
        | 22 // InvalidBSON
        | 52 // DollarPrefixedFieldName
        | 53 // InvalidIdField
        | 54 // NotSingleValueField
        | 55 // InvalidDBRef
        | 56 // EmptyFieldName
        | 57 // DottedFieldName
        | 111 // NotExactValueField
        | 116 // DocTooLargeForCapped
        | 121 // DocumentValidationFailure
        | 171 // CannotIndexParallelArrays
        | 201 // CannotBuildIndexKeys
        | BSON_OBJECT_TOO_LARGE
        | 17_280 // KeyTooLong
    )
}

/// Returns whether the code concerns the server, the cluster or this program's permissions rather than the document.
fn is_transient(code: i32) -> bool {
    matches!(
        code,
        // Network errors and timeouts.
        6 // HostUnreachable
        | 7 // HostNotFound
        | 89 // NetworkTimeout
        | 145 // PooledConnectionsDropped
        | 172 // TransportSessionClosed
        | 202 // NetworkInterfaceExceededTimeLimit
        | 9_001 // SocketException
        | 50 // MaxTimeMSExpired
        | 262 // ExceededTimeLimit
        // A server that is starting, stopping or no longer the primary.
        | 91 // ShutdownInProgress
        | 94 // NotYetInitialized
        | 95 // NotSecondary
        | 133 // FailedToSatisfyReadPreference
        | 134 // ReadConcernMajorityNotAvailableYet
        | 189 // PrimarySteppedDown
        | 216 // ElectionInProgress
        | 10_058 // LegacyNotPrimary
        | 10_107 // NotWritablePrimary
        | 11_600 // InterruptedAtShutdown
        | 11_601 // Interrupted
        | 11_602 // InterruptedDueToReplStateChange
        | 13_435 // NotPrimaryNoSecondaryOk
        | 13_436 // NotPrimaryOrSecondary
        // Replicas that do not acknowledge.
        | 64 // WriteConcernTimeout
        | 79 // UnknownReplWriteConcern
        | 100 // UnsatisfiableWriteConcern
        // Locks and administrative operations.
        | 24 // LockTimeout
        | 46 // LockBusy
        | 107 // LockFailed
        | 112 // WriteConflict
        | 117 // ConflictingOperationInProgress
        | 215 // DatabaseDropPending
        // Sharding.
        | 63 // StaleShardVersion
        | 70 // ShardNotFound
        | 150 // StaleEpoch
        | 13_388 // StaleConfig
        // Memory and disk space.
        | 146 // ExceededMemoryLimit
        | 14_031 // OutOfDiskSpace
        // Permissions.
        | 11 // UserNotFound
        | 13 // Unauthorized
        | 18 // AuthenticationFailed
        | 31 // RoleNotFound
        | 33 // PrivilegeNotFound
        | 8_000 // AtlasError
    )
}
