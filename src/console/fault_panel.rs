//! The faults that `dev` offers on the page. The console passes them on and knows nothing about them.

use std::sync::Arc;

use actix_web::web::ServiceConfig;
use serde_json::Value;

/// What `dev` adds to the console.
#[derive(Clone)]
pub struct FaultPanel {
    /// Adds the routes below `/faults`.
    pub routes: Arc<dyn Fn(&mut ServiceConfig) + Send + Sync>,
    /// Describes the faults to the page.
    pub view: Arc<dyn Fn() -> Value + Send + Sync>,
}
