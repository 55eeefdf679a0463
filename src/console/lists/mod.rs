//! Follows the lists of stock and ads.

mod ads;
mod stock;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use super::role_client::RoleClient;
use super::state::Console;
use ads::AdList;
use stock::StockList;

const INTERVAL: Duration = Duration::from_secs(1);
/// The maximum number of pages that are read at a time.
const PAGES: usize = 20;

/// The lists of stock and ads, and how far they were read.
pub struct Lists {
    stock: StockList,
    ads: AdList,
}

impl Lists {
    pub fn new(console: Arc<Console>, stock: RoleClient, ads: RoleClient) -> Self {
        Self { stock: StockList::new(Arc::clone(&console), stock), ads: AdList::new(console, ads) }
    }

    /// Follows the lists until the future is dropped. An unavailable role is reported by its readiness, and does not
    /// delay the other list.
    pub async fn follow(&mut self) {
        let stock = async {
            loop {
                if let Err(error) = self.stock.read().await {
                    tracing::debug!(
                        error = format!("{error:#}"),
                        "cannot read the list of stock, will retry"
                    );
                }
                tokio::time::sleep(INTERVAL).await;
            }
        };
        let ads = async {
            loop {
                if let Err(error) = self.ads.read().await {
                    tracing::debug!(error = format!("{error:#}"), "cannot read the list of ads, will retry");
                }
                if let Err(error) = self.ads.look_up().await {
                    tracing::debug!(error = format!("{error:#}"), "cannot look up ads, will retry");
                }
                tokio::time::sleep(INTERVAL).await;
            }
        };
        tokio::join!(stock, ads);
    }
}
