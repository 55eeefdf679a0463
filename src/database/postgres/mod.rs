//! Opens PostgreSQL connections and classifies their errors by SQLSTATE.
//!
//! [`PostgresAddress`] parses the URL once and opens connections: it connects, negotiates TLS and applies the session
//! settings. [`PostgresConnection`] bounds each call by time and classifies its error. [`PostgresPool`] shares a
//! bounded number of connections. [`refuse_shared_sessions`] detects poolers that break session state.

mod address;
mod connection;
mod connection_string;
mod connector;
mod driver;
mod link;
mod pool;
mod pooler;
mod postgres_error;
mod route;
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
