//! Identifies a vehicle across stock's list, the records and the ads.

use std::sync::Arc;

/// The id and the vin of a vehicle. The id alone does not identify it: a database of stock that was restored or
/// emptied assigns ids again, of which records and ads of other vehicles exist.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VehicleKey {
    pub id: i64,
    pub vin: Arc<str>,
}

impl VehicleKey {
    /// `vin` is one that stock accepts, so it is short.
    pub fn new(id: i64, vin: &str) -> Self {
        Self { id, vin: vin.into() }
    }
}
