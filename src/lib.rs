//! The vehicle platform: see README.md for what it does, and the modules for how.

pub mod backoff;
pub mod event;
pub mod http;
pub mod kafka;
pub mod registry;
pub mod store;
pub mod vehicle;
