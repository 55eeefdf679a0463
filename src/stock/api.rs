//! Serves `/stock` over HTTP.

use std::sync::Arc;

use actix_web::http::{StatusCode, header};
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, ResponseError as _};
use chrono::{DateTime, Datelike, SecondsFormat, Utc};
use serde::Serialize;

use super::IdempotencyKey;
use super::committer::{Insertion, SubmitError, Submitter};
use super::store::{NewVehicle, VehicleStore};
use crate::database::DatabaseError;
use crate::http::{
    Page, PageRequest, Problem, QueryParams, SkippedRows, canonical, json_document, respond_unless_known,
};
use crate::trace::{Description, Span, SpanKind, TraceContext};
use crate::vehicle::{PlainVehicle, StockedVehicle, VehicleId, parse_vehicle};

/// The state that the routes share.
pub struct StockApi {
    store: Arc<dyn VehicleStore>,
    submitter: Submitter,
    skipped: SkippedRows,
}

impl StockApi {
    pub fn new(store: Arc<dyn VehicleStore>, submitter: Submitter, skipped: SkippedRows) -> Self {
        Self { store, submitter, skipped }
    }

    pub fn routes(self: Arc<Self>) -> impl Fn(&mut ServiceConfig) + Clone + Send + 'static {
        let api = web::Data::from(self);
        move |config| {
            config
                .app_data(api.clone())
                .service(
                    web::resource("/stock")
                        .route(web::post().to(create))
                        .route(web::get().to(list))
                        .default_service(web::to(async || {
                            Err::<String, _>(Problem::method_not_allowed("GET, POST"))
                        })),
                )
                .service(
                    web::resource("/stock/{id}").route(web::get().to(show)).default_service(web::to(
                        async || Err::<String, _>(Problem::method_not_allowed("GET")),
                    )),
                );
        }
    }
}

/// The JSON representation of a vehicle.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct VehicleBody {
    id: i64,
    #[serde(flatten)]
    vehicle: PlainVehicle,
    created_at: String,
}

impl From<StockedVehicle> for VehicleBody {
    fn from(stocked: StockedVehicle) -> Self {
        let StockedVehicle { id, created_at, vehicle } = stocked;
        Self { id: id.0, vehicle: (&vehicle).into(), created_at: rfc3339(created_at) }
    }
}

impl From<SubmitError> for Problem {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Overloaded => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many requests are waiting for the database, retry later",
            ),
            SubmitError::UnderWay => Self::new(
                StatusCode::CONFLICT,
                "a request with this Idempotency-Key is still under way, retry later",
            )
            .retry_later(),
            SubmitError::Database(error) => error.as_ref().into(),
        }
    }
}

fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn path_of(id: VehicleId) -> String {
    format!("/stock/{}", id.0)
}

async fn create(
    api: web::Data<StockApi>,
    request: HttpRequest,
    body: Result<web::Bytes, actix_web::Error>,
) -> Result<HttpResponse, Problem> {
    let traceparent = request.headers().get(TraceContext::HEADER).map(header::HeaderValue::as_bytes);
    let span = Span::follow(traceparent);
    let answer = take(&api, &request, body, *span.context()).await;
    span.end(|| {
        let status = answer.as_ref().map_or_else(Problem::status_code, HttpResponse::status);
        let description = Description::new(SpanKind::Server, "POST /stock".to_owned())
            .with("http.request.method", "POST")
            .with("http.route", "/stock")
            .with("http.response.status_code", i64::from(status.as_u16()));
        if status.is_server_error() { description.failed(status.as_str()) } else { description }
    });
    answer
}

async fn take(
    api: &StockApi,
    request: &HttpRequest,
    body: Result<web::Bytes, actix_web::Error>,
    trace: TraceContext,
) -> Result<HttpResponse, Problem> {
    let idempotency_key = idempotency_key(request)?;
    let document = json_document(request, body)?;
    let vehicle = parse_vehicle(&document, Utc::now().year()).map_err(Problem::invalid_fields)?;
    let vin = vehicle.vin.clone();
    let new = NewVehicle::new(vehicle, trace).map_err(DatabaseError::internal)?;
    let new = NewVehicle { idempotency_key, ..new };
    match api.submitter.submit(new).await? {
        Insertion::Stocked(stocked) => {
            let location = (header::LOCATION, path_of(stocked.id));
            Ok(HttpResponse::Created().insert_header(location).json(VehicleBody::from(stocked)))
        }
        Insertion::Exists(id) => {
            Err(Problem::conflict(format!("a vehicle with the vin {vin} already exists"), path_of(id)))
        }
        Insertion::KeyReused => Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "this Idempotency-Key belongs to a request with another vehicle",
        )),
    }
}

fn idempotency_key(request: &HttpRequest) -> Result<Option<IdempotencyKey>, Problem> {
    let mut values = request.headers().get_all(IdempotencyKey::HEADER);
    let key = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => IdempotencyKey::parse(value.as_bytes()),
        (Some(_), Some(_)) => Err("must be sent once".to_owned()),
    };
    let invalid = |error| Problem::new(StatusCode::BAD_REQUEST, format!("the Idempotency-Key {error}"));
    key.map(Some).map_err(invalid)
}

async fn list(api: web::Data<StockApi>, query: web::Query<QueryParams>) -> Result<HttpResponse, Problem> {
    let request = PageRequest::parse(&query, |cursor| canonical(cursor).map(VehicleId))?;
    let rows = api.store.page(&request).await?;
    Ok(Page::new(&request, rows, |stocked| stocked.id, &api.skipped).respond("/stock", VehicleBody::from))
}

async fn show(
    api: web::Data<StockApi>,
    request: HttpRequest,
    id: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let id = canonical(&id).map(VehicleId).ok_or_else(Problem::not_found)?;
    let stocked = api.store.get(id).await?.ok_or_else(Problem::not_found)?;
    respond_unless_known(&request, &VehicleBody::from(stocked))
}
