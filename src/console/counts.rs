//! Defines the reconciliation as the page gets it.

use serde::Serialize;

/// The reconciliation since the console began to count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Since when vehicles count, in milliseconds since the Unix epoch.
    pub since: Option<i64>,
    pub accepted: u64,
    /// Vehicles without an ad that are neither in a dead letter nor lost.
    pub on_their_way: u64,
    /// Vehicles on their way that have taken longer than expected.
    pub late: u64,
    /// Vehicles with at least one ad.
    pub ads: u64,
    /// Vehicles whose record is an unresolved dead letter.
    pub dead: u64,
    pub lost: u64,
    /// Vehicles with more than one ad.
    pub doubled: u64,
    /// Records about a vehicle that was priced before; ads makes one ad of all.
    pub repeated: u64,
    /// Vehicles that are counted but not followed, because too many were on their way at the same time.
    pub unfollowed: u64,
}
