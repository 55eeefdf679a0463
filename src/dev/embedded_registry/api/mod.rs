//! Serves the HTTP API of the embedded schema registry.

mod compatibility;
mod schemas;
mod settings;
mod subjects;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use actix_web::guard;
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpResponse, Resource, Route};
use serde::Serialize;
use serde_json::{Value, json};

use super::api_error::{ApiError, CONTENT_TYPE};
use super::candidate::Candidate;
use super::state::State;
use super::stored::Version;
use crate::registry::SchemaText;

/// The maximum size of a request's body: that of the records in which Confluent's registry stores schemas.
const MAX_BODY_BYTES: usize = 1 << 20;

type Shared = web::Data<Mutex<State>>;
type Query = web::Query<HashMap<String, String>>;
type Body = Result<web::Bytes, actix_web::Error>;
type Answer = Result<HttpResponse, ApiError>;

pub(super) fn routes(config: &mut ServiceConfig) {
    let api = web::scope("")
        .app_data(web::PayloadConfig::new(MAX_BODY_BYTES))
        .configure(subjects::routes)
        .configure(schemas::routes)
        .configure(settings::routes)
        .configure(compatibility::routes)
        .service(resource("/", "GET, HEAD").route(reading().to(async || reply(&json!({})))))
        .service(resource("/contexts", "GET, HEAD").route(reading().to(async || reply(&["."]))))
        .service(resource("/v1/metadata/id", "GET, HEAD").route(reading().to(async || {
            let clusters =
                json!({ "kafka-cluster": "embedded", "schema-registry-cluster": "schema-registry" });
            reply(&json!({ "scope": { "path": [], "clusters": clusters } }))
        })))
        .service(resource("/v1/metadata/version", "GET, HEAD").route(
            reading().to(async || reply(&json!({ "version": env!("CARGO_PKG_VERSION"), "commitId": "" }))),
        ))
        .default_service(web::to(async || Err::<String, _>(ApiError::path())));
    config.service(api);
}

/// Returns a resource without methods, which responds to others than `allow` with an error.
fn resource(path: &str, allow: &'static str) -> Resource {
    web::resource(path)
        .default_service(web::to(move || async move { Err::<String, _>(ApiError::method(allow)) }))
}

/// Returns a route for GET and HEAD. The server leaves out the body of a response to HEAD (RFC 9110, section 9.3.2).
fn reading() -> Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

fn lock(state: &Shared) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn reply(value: &(impl Serialize + ?Sized)) -> HttpResponse {
    match serde_json::to_string(value) {
        Ok(text) => raw(text),
        Err(error) => actix_web::ResponseError::error_response(&ApiError::new(500, error.to_string())),
    }
}

fn raw(text: String) -> HttpResponse {
    HttpResponse::Ok().content_type(CONTENT_TYPE).body(text)
}

fn flag(query: &Query, name: &str) -> bool {
    query.get(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

/// Returns the part of a list that the parameters `offset` and `limit` select. A negative limit selects all.
fn page<T>(query: &Query, list: impl IntoIterator<Item = T>) -> Result<Vec<T>, ApiError> {
    let number = |name: &str, default: i64| match query.get(name) {
        None => Ok(default),
        // As an unknown path, as in Confluent's registry.
        Some(text) => text.parse().map_err(|_| ApiError::path()),
    };
    let offset = usize::try_from(number("offset", 0)?).unwrap_or(0);
    let limit = usize::try_from(number("limit", -1)?).unwrap_or(usize::MAX);
    Ok(list.into_iter().skip(offset).take(limit).collect())
}

/// Parses a request body. Ignores the content type, because clients send different ones or none.
fn read<T: serde::de::DeserializeOwned>(body: Body, code: u32) -> Result<T, ApiError> {
    let body = body.map_err(|error| ApiError::body(&error))?;
    serde_json::from_slice(&body)
        .map_err(|error| ApiError::new(code, format!("cannot read the request: {error}")))
}

/// Parses the schema in a request. An id or a version may be given only when a registry is copied, which this one does
/// not support.
fn read_schema(body: Body, query: &Query, state: &State) -> Result<Candidate, ApiError> {
    let body: Value = read(body, 42201)?;
    if ["id", "version"]
        .iter()
        .any(|name| body.get(*name).and_then(Value::as_i64).is_some_and(|given| given > 0))
    {
        return Err(ApiError::not_permitted(
            "this registry assigns ids and versions: it is not in import mode",
        ));
    }
    let body: SchemaText = serde_json::from_value(body).map_err(ApiError::invalid_schema)?;
    Candidate::new(body, flag(query, "normalize"), state)
}

/// Returns the version `wanted` of a subject: a number, or `latest` or `-1` for the latest one that is not deleted.
fn find_version(state: &State, subject: &str, wanted: &str, deleted: bool) -> Result<Version, ApiError> {
    let wanted = wanted.trim();
    let number = match wanted.parse::<i32>() {
        _ if wanted.eq_ignore_ascii_case("latest") => None,
        Ok(-1) => None,
        Ok(number) if number > 0 => u32::try_from(number).ok(),
        _ => {
            let message = format!(
                "The specified version '{wanted}' is not a valid version id. Allowed values are between [1, 2^31-1] \
                 and the string \"latest\""
            );
            return Err(ApiError::new(42202, message));
        }
    };
    let versions = state.versions(subject, deleted);
    if versions.is_empty() {
        return Err(ApiError::subject(subject));
    }
    let found = match number {
        None => versions.iter().rfind(|version| !version.deleted),
        Some(number) => versions.iter().find(|version| version.number == number),
    };
    found.copied().ok_or_else(|| ApiError::version(wanted))
}

/// A version as the API describes it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Description<'a> {
    subject: &'a str,
    version: u32,
    id: u32,
    schema_type: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    references: &'a [crate::registry::Reference],
    schema: &'a str,
}

fn describe<'a>(state: &'a State, subject: &'a str, version: Version) -> Result<Description<'a>, ApiError> {
    let Version { number, id, .. } = version;
    let stored = state.schema(id).ok_or_else(|| ApiError::schema_id(id))?;
    let (references, schema) = (&stored.references[..], stored.schema.as_str());
    Ok(Description { subject, version: number, id, schema_type: "JSON", references, schema })
}
