//! Maps ads to MongoDB documents.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use mongodb::bson::{self, RawDocument};
use serde::{Deserialize, Serialize};

use crate::ads::ad::{Ad, Offer};
use crate::ads::ad_store::AdKey;
use crate::canonical::canonical;
use crate::database::{Readable, Unreadable};
use crate::vehicle::{PlainVehicle, Price};

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AdDocument<'a> {
    #[serde(rename = "_id")]
    id: Cow<'a, str>,
    published_at: bson::DateTime,
    vehicle_id: Option<i64>,
    vin: Cow<'a, str>,
    model: Cow<'a, str>,
    manufacturer: Cow<'a, str>,
    year: i32,
    odometer: f64,
    odometer_unit: Cow<'a, str>,
    price: f64,
    price_unit: Cow<'a, str>,
}

impl<'a> From<&'a Ad> for AdDocument<'a> {
    fn from(ad: &'a Ad) -> Self {
        let Offer { vehicle_id, vehicle, price, price_unit } = &ad.offer;
        Self {
            id: ad.id.to_string().into(),
            published_at: bson::DateTime::from_millis(ad.published_at.timestamp_millis()),
            vehicle_id: *vehicle_id,
            vin: vehicle.vin.as_str().into(),
            model: vehicle.model.as_str().into(),
            manufacturer: vehicle.manufacturer.as_str().into(),
            year: vehicle.year,
            odometer: vehicle.odometer,
            odometer_unit: vehicle.odometer_unit.as_str().into(),
            price: price.amount(),
            price_unit: price_unit.as_str().into(),
        }
    }
}

impl TryFrom<AdDocument<'_>> for Ad {
    type Error = String;

    fn try_from(document: AdDocument<'_>) -> Result<Self, Self::Error> {
        let published_at = DateTime::<Utc>::from_timestamp_millis(document.published_at.timestamp_millis());
        let vehicle = PlainVehicle {
            vin: document.vin.into_owned(),
            model: document.model.into_owned(),
            manufacturer: document.manufacturer.into_owned(),
            year: document.year,
            odometer: document.odometer,
            odometer_unit: document.odometer_unit.into_owned(),
        };
        let offer = Offer {
            vehicle_id: document.vehicle_id,
            vehicle: vehicle.checked()?,
            price: Price::parse(document.price).map_err(|error| format!("price {error}"))?,
            price_unit: document.price_unit.into_owned(),
        };
        Ok(Self {
            id: canonical(&document.id).ok_or("its _id is not a canonical UUID")?,
            published_at: published_at.ok_or("publishedAt is out of range")?,
            offer,
        })
    }
}

/// Reads a single document. The result identifies the document whatever it contains.
pub(super) fn read(document: &RawDocument) -> Readable<Ad, AdKey> {
    let unreadable = |reason| Unreadable { id: key_of(document), reason };
    let read: Result<AdDocument<'_>, _> = bson::deserialize_from_slice(document.as_bytes());
    read.map_err(|error| unreadable(error.to_string()))?.try_into().map_err(unreadable)
}

/// Identifies a document that no page shows.
pub(super) fn stray(document: &RawDocument) -> Unreadable<AdKey> {
    let vin = document.get_str("vin").map_or_else(|_| "no vin".to_owned(), |vin| format!("the vin {vin:?}"));
    Unreadable { id: key_of(document), reason: format!("its _id is not a text, and it has {vin}") }
}

fn key_of(document: &RawDocument) -> AdKey {
    match document.get("_id") {
        Ok(Some(id)) => match id.as_str() {
            Some(text) => text.to_owned(),
            None => format!("{id:?}"),
        },
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use mongodb::bson::{Bson, Document, doc};

    use super::*;

    fn document() -> Document {
        doc! {
            "_id": "01900000-0000-7000-8000-000000000000", "publishedAt": bson::DateTime::from_millis(0), "vehicleId": 1i64,
            "vin": "v", "model": "m", "manufacturer": "f", "year": 2020, "odometer": 1.0, "odometerUnit": "km",
            "price": 1.5, "priceUnit": "USD",
        }
    }

    fn read_document(document: &Document) -> Readable<Ad, AdKey> {
        read(&mongodb::bson::RawDocumentBuf::try_from(document).unwrap())
    }

    #[test]
    fn a_foreign_document_is_unreadable_and_identified() {
        assert!(read_document(&document()).is_ok());
        for (field, value) in [
            ("price", Bson::from("12")),
            ("price", Bson::from(-1.0)),
            ("odometer", Bson::from(f64::NAN)),
            ("year", Bson::from(i64::MAX)),
            ("publishedAt", Bson::from(bson::DateTime::from_millis(i64::MAX))),
            ("vin", Bson::Null),
            ("model", Bson::from(vec!["list"])),
        ] {
            let mut foreign = document();
            foreign.insert(field, value);
            let unreadable = read_document(&foreign).unwrap_err();
            assert_eq!(unreadable.id, "01900000-0000-7000-8000-000000000000", "{field}");
            foreign.remove(field);
            assert!(read_document(&foreign).is_err(), "{field}");
        }
        let upper_case = Bson::from("0190ABCD-0000-7000-8000-000000000000");
        for id in [Bson::ObjectId(bson::oid::ObjectId::new()), Bson::from("text"), Bson::from(7), upper_case]
        {
            let mut foreign = document();
            foreign.insert("_id", id);
            assert!(!read_document(&foreign).unwrap_err().id.is_empty());
        }
        assert!(read_document(&doc! {}).is_err());
    }
}
