//! Serves `/ads` over HTTP.

use std::sync::Arc;

use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use chrono::SecondsFormat;
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};
use uuid::Uuid;

use super::ad::{Ad, Offer};
use super::ad_store::{AdKey, AdStore};
use crate::canonical::canonical;
use crate::database::Unreadable;
use crate::http::{Docs, Page, Problem, Problems, QueryParams, SkippedRows, readable, respond_unless_known};
use crate::kafka::asyncapi;
use crate::page::Rows;
use crate::vehicle::{PlainVehicle, Price};

pub(super) fn routes(
    store: Arc<dyn AdStore>,
    skipped: Arc<SkippedRows>,
) -> impl Fn(&mut ServiceConfig) + Clone + Send + 'static {
    let store = web::Data::from(store);
    let skipped = web::Data::from(skipped);
    move |config| {
        config
            .app_data(store.clone())
            .app_data(skipped.clone())
            .configure(|config| DOCS.configure(config))
            .service(readable("/ads", list))
            .service(readable("/ads/{id}", show));
    }
}

/// Describes the id of an ad: a UUID in its canonical form.
#[derive(ToSchema)]
#[schema(value_type = String, format = "uuid", pattern = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
struct AdId(#[expect(dead_code, reason = "describes the type only")] String);

/// The description of the API.
#[derive(OpenApi)]
#[openapi(paths(list, show), components(schemas(AdBody)))]
struct AdsDoc;

const DOCS: Docs = Docs {
    openapi: AdsDoc::openapi,
    problems: &[Problems::of_list("/ads"), Problems::of_item("/ads/{id}")],
    asyncapi: asyncapi::document,
};

/// An ad for a vehicle
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Ad)]
struct AdBody {
    #[schema(value_type = String, format = "uuid")]
    id: Uuid,
    /// When the ad became visible
    #[schema(format = DateTime)]
    published_at: String,
    /// The id of the vehicle in stock; null for vehicles of the original services
    vehicle_id: Option<i64>,
    #[serde(flatten)]
    vehicle: PlainVehicle,
    /// The estimated price, with two decimals
    #[schema(value_type = f64, exclusive_minimum = 0, example = 12345.67)]
    price: Price,
    /// The currency (ISO 4217)
    #[schema(example = "USD")]
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

/// List ads, oldest first
#[utoipa::path(
    get, path = "/ads", operation_id = "listAds", tag = "ads",
    params(
        QueryParams,
        ("after" = inline(Option<AdId>), Query, description = "Cursor, from the Link header of the page before")
    ),
    responses((
        status = 200, description = "A page of ads",
        body = [AdBody],
        headers(("Link" = Option<String>, description = "The next page, if there is one, as rel=\"next\" (RFC 8288)"))
    ))
)]
async fn list(
    store: web::Data<dyn AdStore>,
    skipped: web::Data<SkippedRows>,
    request: HttpRequest,
    query: web::Query<QueryParams>,
) -> Result<HttpResponse, Problem> {
    let wanted = query.parse(parse_cursor)?;
    let Rows { rows, more } = store.page(&wanted).await?;
    let rows = rows
        .into_iter()
        .map(|row| row.map_err(|row| Unreadable { id: format!("{UNREADABLE}{}", row.id), ..row }))
        .collect();
    Page::new(&wanted, Rows { rows, more }, |ad| ad.id.to_string(), &skipped).respond(
        &request,
        "/ads",
        AdBody::from,
    )
}

/// Show an ad
#[utoipa::path(
    get, path = "/ads/{id}", operation_id = "showAd", tag = "ads",
    params(
        ("id" = inline(AdId), Path, description = "The id of the ad"),
        ("If-None-Match" = Option<String>, Header, description = "The ETag that the client has")
    ),
    responses(
        (
            status = 200, description = "The ad", body = AdBody,
            headers(("ETag" = String, description = "A hash of the representation, which never changes"))
        ),
        (status = 304, description = "The client has the ad")
    )
)]
async fn show(
    store: web::Data<dyn AdStore>,
    request: HttpRequest,
    id: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let id = canonical(&id).ok_or_else(Problem::not_found)?;
    let ad = store.get(id).await?.ok_or_else(Problem::not_found)?;
    respond_unless_known(&request, &AdBody::from(ad))
}
