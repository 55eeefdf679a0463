//! `/ads` over HTTP.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::web::{self, ServiceConfig};
use chrono::SecondsFormat;
use serde::Serialize;
use uuid::Uuid;

use super::ad::Ad;
use super::store::AdStore;
use crate::http::{Page, PageRequest, Problem, QueryParams};
use crate::vehicle::{Price, whole_as_integer};

pub(super) fn routes(store: Arc<dyn AdStore>) -> impl Fn(&mut ServiceConfig) + Clone + Send + 'static {
    let store = web::Data::from(store);
    move |config| {
        let get_only = || web::to(async || Err::<String, _>(Problem::method_not_allowed("GET")));
        config
            .app_data(store.clone())
            .service(web::resource("/ads").route(web::get().to(list)).default_service(get_only()))
            .service(web::resource("/ads/{id}").route(web::get().to(show)).default_service(get_only()));
    }
}

/// An ad as it is shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AdBody {
    id: Uuid,
    published_at: String,
    vehicle_id: Option<i64>,
    vin: String,
    model: String,
    manufacturer: String,
    year: i32,
    #[serde(serialize_with = "whole_as_integer")]
    odometer: f64,
    odometer_unit: String,
    price: Price,
    price_unit: String,
}

impl From<Ad> for AdBody {
    fn from(ad: Ad) -> Self {
        let offer = ad.offer;
        Self {
            id: ad.id,
            published_at: ad.published_at.to_rfc3339_opts(SecondsFormat::Millis, true),
            vehicle_id: offer.vehicle_id,
            vin: offer.vin.into(),
            model: offer.model,
            manufacturer: offer.manufacturer,
            year: offer.year,
            odometer: offer.odometer.get(),
            odometer_unit: offer.odometer_unit,
            price: offer.price,
            price_unit: offer.price_unit,
        }
    }
}

async fn list(
    store: web::Data<dyn AdStore>,
    query: web::Query<QueryParams>,
) -> Result<HttpResponse, Problem> {
    let request = PageRequest::parse(&query, |cursor| Uuid::parse_str(cursor).ok())?;
    let ads = store.page(&request).await?.into_iter().map(AdBody::from).collect();
    Ok(Page::new(&request, ads).respond("/ads", |ad| ad.id))
}

async fn show(store: web::Data<dyn AdStore>, id: web::Path<String>) -> Result<HttpResponse, Problem> {
    let id = Uuid::parse_str(&id).map_err(|_| Problem::not_found())?;
    let ad = store.get(id).await?.ok_or_else(Problem::not_found)?;
    Ok(HttpResponse::Ok().json(AdBody::from(ad)))
}
