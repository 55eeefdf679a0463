//! The parts that all HTTP servers of the platform share: problems, paging, health, metrics, graceful shutdown.

mod health;
mod host;
mod metrics;
mod paging;
mod problem;
mod server;
mod skipped_rows;

pub use health::Health;
pub use host::parse_host;
pub use paging::{Page, PageRequest, QueryParams};
pub use problem::Problem;
pub use server::{HttpArgs, HttpServer, Port, json_document};
pub use skipped_rows::SkippedRows;
