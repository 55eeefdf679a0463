//! The parts that all HTTP servers of the platform share: problems, paging, health, metrics, graceful shutdown.

mod health;
mod metrics;
mod paging;
mod problem;
mod server;
mod skipped_rows;

pub use health::Health;
pub use paging::{Page, PageRequest, QueryParams};
pub use problem::Problem;
pub use server::{HttpArgs, HttpServer, Port, json_document};
pub use skipped_rows::SkippedRows;
