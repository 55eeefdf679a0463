//! Serves `/ads` over HTTP.

use std::sync::Arc;

use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use chrono::SecondsFormat;
use serde::Serialize;
use uuid::Uuid;

use super::ad::{Ad, Offer};
use super::store::{AdKey, AdStore};
use crate::database::Unreadable;
use crate::http::{Page, PageRequest, Problem, QueryParams, SkippedRows, canonical, respond_unless_known};
use crate::vehicle::{PlainVehicle, Price};

pub(super) fn routes(
    store: Arc<dyn AdStore>,
    skipped: Arc<SkippedRows>,
) -> impl Fn(&mut ServiceConfig) + Clone + Send + 'static {
    let store = web::Data::from(store);
    let skipped = web::Data::from(skipped);
    move |config| {
        let get_only = || web::to(async || Err::<String, _>(Problem::method_not_allowed("GET")));
        config
            .app_data(store.clone())
            .app_data(skipped.clone())
            .service(web::resource("/ads").route(web::get().to(list)).default_service(get_only()))
            .service(web::resource("/ads/{id}").route(web::get().to(show)).default_service(get_only()));
    }
}

/// The JSON representation of an ad.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AdBody {
    id: Uuid,
    published_at: String,
    vehicle_id: Option<i64>,
    #[serde(flatten)]
    vehicle: PlainVehicle,
    price: Price,
    price_unit: String,
}

impl From<Ad> for AdBody {
    fn from(ad: Ad) -> Self {
        let Offer { vehicle_id, vehicle, price, price_unit } = ad.offer;
        let published_at = ad.published_at.to_rfc3339_opts(SecondsFormat::Millis, true);
        Self { id: ad.id, published_at, vehicle_id, vehicle, price, price_unit }
    }
}

/// The prefix of the cursor of an unreadable ad, whose id may not be a UUID.
const UNREADABLE: &str = "unreadable:";

fn parse_cursor(text: &str) -> Option<AdKey> {
    match text.strip_prefix(UNREADABLE) {
        Some(key) => Some(key.to_owned()).filter(|key| !key.is_empty()),
        None => canonical::<Uuid>(text).map(|id| id.to_string()),
    }
}

async fn list(
    store: web::Data<dyn AdStore>,
    skipped: web::Data<SkippedRows>,
    query: web::Query<QueryParams>,
) -> Result<HttpResponse, Problem> {
    let request = PageRequest::parse(&query, parse_cursor)?;
    let rows = store.page(&request).await?.into_iter();
    let rows = rows.map(|row| row.map_err(|row| Unreadable { id: format!("{UNREADABLE}{}", row.id), ..row }));
    Ok(Page::new(&request, rows.collect(), |ad| ad.id.to_string(), &skipped).respond("/ads", AdBody::from))
}

async fn show(
    store: web::Data<dyn AdStore>,
    request: HttpRequest,
    id: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let id = canonical(&id).ok_or_else(Problem::not_found)?;
    let ad = store.get(id).await?.ok_or_else(Problem::not_found)?;
    respond_unless_known(&request, &AdBody::from(ad))
}
