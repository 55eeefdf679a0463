//! What all HTTP servers of the platform share: problems, paging, health, metrics, an orderly end.

mod health;
mod metrics;
mod paging;
mod problem;
mod server;

pub use health::Health;
pub use paging::{Page, PageRequest, QueryParams};
pub use problem::Problem;
pub use server::{HttpArgs, HttpServer, json_document};
