//! Defines a connection that is authenticated and has no settings of a session yet.

use std::sync::Arc;

use tokio_postgres::Client;

use super::driver::Driver;
use super::route::Route;
use super::tap::ServerReports;

/// An authenticated connection without session settings.
pub(super) struct Link {
    // Dropped before the driver, which then knows that no further message will be sent.
    pub client: Client,
    pub driver: Driver,
    pub reports: Arc<ServerReports>,
    pub route: Route,
}
