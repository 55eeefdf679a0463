//! The parts that all HTTP servers of the platform share: problems, paging, conditional requests, health,
//! metrics, graceful shutdown.

mod canonical;
mod conditional;
mod health;
mod metrics;
mod paging;
mod problem;
mod server;
mod skipped_rows;

pub use canonical::canonical;
pub use conditional::respond_unless_known;
pub use health::Health;
pub use paging::{Page, PageRequest, QueryParams};
pub use problem::Problem;
pub use server::{HttpArgs, HttpServer, Port, json_document};
pub use skipped_rows::SkippedRows;
