//! The parts that all HTTP servers of the platform share: problems, paging, conditional requests, health,
//! metrics, graceful shutdown.

mod api_key;
mod args;
mod body;
mod client_key;
mod client_stream;
mod conditional;
mod connections;
mod cors;
mod docs;
mod event_stream;
mod health;
mod host;
mod listener;
mod metrics;
mod openapi;
mod own_page;
mod page;
mod paging;
mod problem;
mod problem_type;
mod resource_json;
mod room;
mod routes;
mod server;
mod skipped_rows;
mod upgrade;

pub use api_key::{ApiKeys, Authorized};
pub use args::{HttpArgs, Port};
pub use body::JsonDocument;
pub use client_key::ClientKeys;
pub use conditional::respond_unless_known;
pub use cors::CorsOrigins;
pub use docs::{Docs, problem_pages};
pub use event_stream::event_stream;
pub use health::{Health, Need};
pub use host::parse_host;
pub use openapi::Problems;
pub use own_page::{AllowedHosts, OwnPage};
pub use page::PageFile;
pub use paging::{Page, QueryParams};
pub use problem::Problem;
pub use problem_type::ProblemType;
pub use routes::{changing, collection, readable};
pub use server::HttpServer;
pub use skipped_rows::SkippedRows;
