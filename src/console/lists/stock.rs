//! Follows the list of stock.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::PAGES;
use crate::console::ledger::AdOutcome;
use crate::console::role_client::RoleClient;
use crate::console::state::Console;
use crate::console::vehicle_key::VehicleKey;

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StockedVehicle {
    id: i64,
    vin: String,
    created_at: DateTime<Utc>,
}

/// The list of stock, and how far it was read.
pub(super) struct StockList {
    console: Arc<Console>,
    stock: RoleClient,
    /// The last vehicle that was read, by which a database is recognized: another one may have its id as well.
    newest: Option<StockedVehicle>,
}

impl StockList {
    pub(super) fn new(console: Arc<Console>, stock: RoleClient) -> Self {
        Self { console, stock, newest: None }
    }

    /// Reads the vehicles that were added to the list.
    pub(super) async fn read(&mut self) -> anyhow::Result<()> {
        let (has_begun, listed) = {
            let state = self.console.lock();
            (state.ledger.has_begun(), state.ledger.listed())
        };
        if !has_begun {
            return self.begin().await;
        }
        let mut newest = self.newest.clone();
        let after = newest.as_ref().map_or(listed, |newest| newest.id - 1);
        let mut path = Some(format!("/stock?limit=1000&after={after}"));
        for _ in 0..PAGES {
            let Some(page) = path.take() else { break };
            let (vehicles, next) = self.stock.page::<StockedVehicle>(&page).await?;
            path = next;
            if newest.take().is_some_and(|newest| vehicles.first() != Some(&newest)) {
                tracing::warn!(
                    "stock has another database or an earlier state of it, will count from its end"
                );
                return self.begin().await;
            }
            self.list(vehicles);
        }
        Ok(())
    }

    fn list(&mut self, vehicles: Vec<StockedVehicle>) {
        let mut state = self.console.lock();
        let now = Utc::now().timestamp_millis();
        for vehicle in vehicles {
            let (id, vin) = (vehicle.id, &vehicle.vin);
            let accepted = vehicle.created_at.timestamp_millis();
            let Some(outcome) = state.ledger.list(&VehicleKey::new(id, vin), accepted) else { continue };
            state.totals.accepted += 1;
            if let AdOutcome::First(millis) = outcome {
                state.history.path(now, millis);
            }
            state.ways.step(vin, |way| {
                way.id = Some(id);
                way.accepted = Some(accepted);
            });
            self.newest = Some(vehicle);
        }
    }

    /// Begins to count after the last vehicle.
    async fn begin(&mut self) -> anyhow::Result<()> {
        let last = self.last_id().await?;
        let vehicles = if last > 0 { self.page_of_one(last - 1).await?.0 } else { Vec::new() };
        // The last vehicle may be unreadable.
        self.newest = vehicles.into_iter().find(|vehicle| vehicle.id == last);
        self.console.lock().ledger.begin(last, Utc::now().timestamp_millis());
        Ok(())
    }

    /// Returns the highest id in stock. The list begins with the oldest vehicle, so the id is searched for: the number
    /// of requests grows with the logarithm of the id.
    async fn last_id(&self) -> anyhow::Result<i64> {
        let mut low = 0;
        let mut high = 1;
        while self.has_vehicles_after(high).await? {
            low = high;
            high *= 2;
        }
        if low == 0 && !self.has_vehicles_after(0).await? {
            return Ok(0);
        }
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.has_vehicles_after(middle).await? {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok(high)
    }

    async fn has_vehicles_after(&self, id: i64) -> anyhow::Result<bool> {
        let (vehicles, next) = self.page_of_one(id).await?;
        // A page of unreadable vehicles is empty.
        Ok(!vehicles.is_empty() || next.is_some())
    }

    async fn page_of_one(&self, after: i64) -> anyhow::Result<(Vec<StockedVehicle>, Option<String>)> {
        self.stock.page(&format!("/stock?limit=1&after={after}")).await
    }
}
