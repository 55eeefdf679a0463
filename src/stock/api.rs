//! Serves `/stock` over HTTP.

use std::sync::Arc;

use actix_web::http::header::{self, HeaderMap, HeaderValue};
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, ResponseError as _};
use chrono::{DateTime, Datelike, SecondsFormat, Utc};
use serde::Serialize;
use utoipa::openapi::HttpMethod;
use utoipa::{OpenApi, ToSchema};

use super::IdempotencyKey;
use super::submission::{Insertion, SubmitError, Submitter};
use super::vehicle_store::{NewVehicle, VehicleStore};
use crate::canonical::canonical;
use crate::database::DatabaseError;
use crate::event::VehicleCreated;
use crate::http::{
    ApiKeys, Authorized, Docs, JsonDocument, Page, Problem, ProblemType, Problems, QueryParams, SkippedRows,
    collection, readable, respond_unless_known,
};
use crate::kafka::asyncapi;
use crate::registry::{Codec, CodecError};
use crate::trace::{Description, Span, SpanKind, TraceContext, TraceHeaders};
use crate::vehicle::{PlainVehicle, StockedVehicle, Vehicle, VehicleId, parse_vehicle};

/// The state that the routes share.
pub struct StockApi {
    pub(super) store: Arc<dyn VehicleStore>,
    pub(super) submitter: Submitter,
    pub(super) skipped: SkippedRows,
    pub(super) keys: ApiKeys,
    pub(super) codec: Arc<Codec>,
    /// The topic of the events about vehicles.
    pub(super) topic: String,
}

impl StockApi {
    /// Checks that the event about a vehicle can be published.
    fn check_event(&self, vehicle: &Vehicle) -> Result<(), Problem> {
        // The id is assigned later.
        let event = VehicleCreated { id: Some(1), ..VehicleCreated::from(vehicle) };
        self.codec.accepts(&self.topic, &event).map_err(|error| match error {
            CodecError::Rejected(reason) => {
                let detail = format!("the registered schema of the event refuses the vehicle: {reason}");
                Problem::new(&ProblemType::REFUSED_VALUES, detail)
            }
            CodecError::UnknownSchema(_) | CodecError::Unavailable(_) => {
                Problem::new(&ProblemType::UNAVAILABLE, "the schema of events is not known yet, retry later")
            }
        })
    }

    pub fn routes(self: Arc<Self>) -> impl Fn(&mut ServiceConfig) + Clone + Send + 'static {
        let api = web::Data::from(self);
        move |config| {
            config
                .app_data(api.clone())
                .app_data(api.keys.clone())
                .configure(|config| DOCS.configure(config))
                .service(collection("/stock", list, create))
                .service(readable("/stock/{id}", show));
        }
    }
}

/// The description of the API.
#[derive(OpenApi)]
#[openapi(paths(create, list, show), components(schemas(Vehicle, VehicleBody)))]
struct StockDoc;

const DOCS: Docs = Docs { openapi: StockDoc::openapi, problems: PROBLEMS, asyncapi: asyncapi::document };

const PROBLEMS: &[Problems] = &[
    Problems {
        path: "/stock",
        method: HttpMethod::Post,
        types: &[
            ProblemType::MALFORMED_REQUEST,
            ProblemType::INVALID_FIELDS,
            ProblemType::REFUSED_VALUES,
            ProblemType::UNAUTHORIZED,
            ProblemType::BODY_TIMEOUT,
            ProblemType::VEHICLE_EXISTS,
            ProblemType::REQUEST_UNDER_WAY,
            ProblemType::BODY_TOO_LARGE,
            ProblemType::UNSUPPORTED_MEDIA_TYPE,
            ProblemType::KEY_REUSED,
            ProblemType::INTERNAL,
            ProblemType::UNAVAILABLE,
            ProblemType::OVERLOADED,
        ],
    },
    Problems::of_list("/stock"),
    Problems::of_item("/stock/{id}"),
];

/// A vehicle in stock
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = StockedVehicle)]
struct VehicleBody {
    id: i64,
    #[serde(flatten)]
    vehicle: PlainVehicle,
    /// When stock accepted the vehicle
    #[schema(format = DateTime)]
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
                &ProblemType::OVERLOADED,
                "too many requests are waiting for the database, retry later",
            ),
            SubmitError::UnderWay => Self::request_under_way(),
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

/// Stock a vehicle
#[utoipa::path(
    post, path = "/stock", operation_id = "createVehicle", tag = "stock",
    params((
        "Idempotency-Key" = Option<String>, Header,
        description = "A key of the client's choice, in double quotes or as a token. The same key with the same vehicle \
                       gets the first response again.",
        pattern = r#"^([!#$%&'*+.^_`|~0-9A-Za-z:/-]{1,255}|"([!#-\[\]-~]|\\["\\]){1,255}")$"#,
        example = "8e03978e-40d5-43dd-bc93-6894a57f9324"
    )),
    request_body(
        content = Vehicle,
        description = "Text is trimmed and must contain a visible character and no control character. Unknown fields \
                       are ignored."
    ),
    responses((
        status = 201, description = "The vehicle is stored, and exactly one ad for it will be published",
        body = VehicleBody,
        headers(("Location" = String, description = "The path of the vehicle")),
        links(("show" = (
            operation_id = "showVehicle",
            parameters(("id" = "$response.body#/id")),
            description = "The vehicle"
        )))
    ))
)]
async fn create(
    _: Authorized,
    api: web::Data<StockApi>,
    request: HttpRequest,
    document: Result<JsonDocument, Problem>,
) -> Result<HttpResponse, Problem> {
    let span = Span::follow(&trace_headers(request.headers()));
    let answer = take(&api, &request, document, span.context()).await;
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
    document: Result<JsonDocument, Problem>,
    trace: &TraceContext,
) -> Result<HttpResponse, Problem> {
    let idempotency_key = idempotency_key(request)?;
    let JsonDocument(document) = document?;
    let vehicle = parse_vehicle(&document, Utc::now().year()).map_err(Problem::invalid_fields)?;
    let vin = vehicle.vin.clone();
    if let Err(problem) = api.check_event(&vehicle) {
        match api.store.find(vin.as_str()).await {
            Ok(None) => return Err(problem),
            // A vehicle that is in stock is not stored again, readable or not: a repeated request gets its answer.
            Ok(Some(_)) | Err(DatabaseError::Unreadable(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let new = NewVehicle::new(vehicle, trace).map_err(DatabaseError::internal)?;
    let new = NewVehicle { idempotency_key, ..new };
    match api.submitter.submit(new).await? {
        Insertion::Stocked(stocked) => {
            let location = (header::LOCATION, path_of(stocked.id));
            Ok(HttpResponse::Created().insert_header(location).json(VehicleBody::from(stocked)))
        }
        Insertion::Exists(id) => {
            Err(Problem::vehicle_exists(format!("a vehicle with the vin {vin} already exists"), path_of(id)))
        }
        Insertion::KeyReused => Err(Problem::new(&ProblemType::KEY_REUSED, "")),
    }
}

fn trace_headers(headers: &HeaderMap) -> TraceHeaders<'_> {
    let mut parents = headers.get_all(TraceHeaders::PARENT);
    // Two parents are malformed, and several states are one list (RFC 9110, section 5.3).
    let parent = parents.next().filter(|_| parents.next().is_none());
    let states: Vec<_> = headers.get_all(TraceHeaders::STATE).map(HeaderValue::as_bytes).collect();
    let mut read = TraceHeaders::read(parent.map(HeaderValue::as_bytes), states.first().copied());
    if states.len() > 1 {
        read.state = String::from_utf8(states.join(&b',')).unwrap_or_default().into();
    }
    read
}

fn idempotency_key(request: &HttpRequest) -> Result<Option<IdempotencyKey>, Problem> {
    let mut values = request.headers().get_all(IdempotencyKey::HEADER);
    let key = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => IdempotencyKey::parse(value.as_bytes()),
        (Some(_), Some(_)) => Err("must be sent once".to_owned()),
    };
    let invalid =
        |error| Problem::new(&ProblemType::MALFORMED_REQUEST, format!("the Idempotency-Key {error}"));
    key.map(Some).map_err(invalid)
}

/// List vehicles, oldest first
#[utoipa::path(
    get, path = "/stock", operation_id = "listVehicles", tag = "stock",
    params(
        QueryParams,
        ("after" = Option<i64>, Query, description = "Cursor, from the Link header of the page before")
    ),
    responses((
        status = 200,
        description = "A page of vehicles. It may have fewer than requested: only a page without a Link is the last",
        body = [VehicleBody],
        headers(("Link" = Option<String>, description = "The next page, if there is one, as rel=\"next\" (RFC 8288)"))
    ))
)]
async fn list(
    api: web::Data<StockApi>,
    request: HttpRequest,
    query: web::Query<QueryParams>,
) -> Result<HttpResponse, Problem> {
    let wanted = query.parse(|cursor| canonical(cursor).map(VehicleId))?;
    let rows = api.store.page(&wanted).await?;
    Page::new(&wanted, rows, |stocked| stocked.id, &api.skipped).respond(
        &request,
        "/stock",
        VehicleBody::from,
    )
}

/// Show a vehicle
#[utoipa::path(
    get, path = "/stock/{id}", operation_id = "showVehicle", tag = "stock",
    params(
        ("id" = i64, Path, minimum = 1, description = "The id of the vehicle", example = 1),
        ("If-None-Match" = Option<String>, Header, description = "The ETag that the client has")
    ),
    responses(
        (
            status = 200, description = "The vehicle", body = VehicleBody,
            headers(("ETag" = String, description = "A hash of the representation, which never changes"))
        ),
        (status = 304, description = "The client has the vehicle")
    )
)]
async fn show(
    api: web::Data<StockApi>,
    request: HttpRequest,
    id: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let id = canonical(&id).map(VehicleId).ok_or_else(Problem::not_found)?;
    let stocked = api.store.get(id).await?.ok_or_else(Problem::not_found)?;
    respond_unless_known(&request, &VehicleBody::from(stocked))
}
