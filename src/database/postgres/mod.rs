//! Opens PostgreSQL connections and classifies their errors by SQLSTATE.
//!
//! [`PostgresAddress`] parses the URL once and opens connections: it dials, negotiates TLS and applies the session
//! settings. [`PostgresConnection`] bounds each call by time and classifies its error; [`PostgresPool`] shares a
//! bounded number of them. [`refuse_shared_sessions`] finds poolers that break what the product relies on.

mod address;
mod connection;
mod connection_string;
mod connector;
mod driver;
mod pool;
mod pooler;
mod postgres_error;
mod session;
mod socket;
mod sqlstate;
mod tap;
mod tls;

pub use address::PostgresAddress;
pub use connection::PostgresConnection;
pub use pool::PostgresPool;
pub use pooler::refuse_shared_sessions;
pub use postgres_error::PostgresError;
pub use sqlstate::SqlState;
