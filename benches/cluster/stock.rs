//! Runs the stock role.

use crate::events::Events;
use crate::role::Role;
use crate::sql::Sql;
use crate::workspace::{Site, Workspace};

/// Starts stock on the database and topics of `site`, without waiting until it is ready.
pub fn start(workspace: &Workspace, site: &Site) -> Role {
    Role::start(workspace, site, "stock", &["--database-url", site.url()])
}

/// Starts stock and waits until it is ready.
pub async fn start_ready(workspace: &Workspace, site: &Site) -> Role {
    let mut stock = start(workspace, site);
    stock.await_ready().await;
    stock
}

/// Runs stock once on the empty database of `site` to create the tables.
pub async fn create_tables(workspace: &Workspace, site: &Site) -> Events {
    let stock = start_ready(workspace, site).await;
    let events = Events::detect(&mut Sql::connect(site.url()).await).await;
    events.await_position(site.url()).await;
    stock.stop().await;
    events
}
