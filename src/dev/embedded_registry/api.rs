//! Serves the HTTP API of the embedded schema registry.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use actix_web::http::StatusCode;
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpResponse, ResponseError};
use serde::Deserialize;
use serde_json::{Value, json};

use super::state::{State, Version};

const CONTENT_TYPE: &str = "application/vnd.schemaregistry.v1+json";

pub(super) fn routes(config: &mut ServiceConfig) {
    config
        .route("/", web::get().to(async || reply(json!({}))))
        .route("/schemas/types", web::get().to(async || reply(json!(["JSON"]))))
        .route("/schemas/ids/{id}", web::get().to(schema_by_id))
        .route("/schemas/ids/{id}/versions", web::get().to(versions_by_id))
        .route("/subjects", web::get().to(subjects))
        .route("/subjects/{subject}", web::post().to(look_up))
        .route("/subjects/{subject}/versions", web::get().to(versions))
        .route("/subjects/{subject}/versions", web::post().to(register))
        .route("/subjects/{subject}/versions/{version}", web::get().to(version))
        .route("/subjects/{subject}/versions/{version}/schema", web::get().to(version_schema))
        .route("/config", web::get().to(async || reply(json!({ "compatibilityLevel": "NONE" }))))
        .route("/config", web::put().to(set_config))
        .route("/config/{subject}", web::get().to(async || reply(json!({ "compatibilityLevel": "NONE" }))))
        .route("/config/{subject}", web::put().to(set_config))
        .route("/mode", web::get().to(async || reply(json!({ "mode": "READWRITE" }))));
}

/// An error in the format of the API.
#[derive(Debug)]
struct ApiError {
    code: u32,
    message: String,
}

impl ApiError {
    fn new(code: u32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    fn subject(name: &str) -> Self {
        Self::new(40401, format!("Subject '{name}' not found."))
    }

    fn invalid_schema(reason: impl fmt::Display) -> Self {
        Self::new(42201, format!("Invalid schema: {reason}"))
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl ResponseError for ApiError {
    /// Returns the status, which is the first three digits of the code.
    fn status_code(&self) -> StatusCode {
        u16::try_from(self.code / 100)
            .ok()
            .and_then(|status| StatusCode::from_u16(status).ok())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        HttpResponse::build(self.status_code())
            .content_type(CONTENT_TYPE)
            .body(json!({ "error_code": self.code, "message": self.message }).to_string())
    }
}

type Shared = web::Data<Mutex<State>>;

fn lock(state: &Shared) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn reply(value: Value) -> HttpResponse {
    HttpResponse::Ok().content_type(CONTENT_TYPE).body(value.to_string())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SchemaBody {
    schema: String,
    #[serde(default = "avro")]
    schema_type: String,
    #[serde(default)]
    references: Vec<Value>,
}

/// Returns the default schema type of the API.
fn avro() -> String {
    "AVRO".to_owned()
}

/// Parses a request body. Ignores the content type, because clients send different ones or none.
fn parse_schema(body: &[u8]) -> Result<SchemaBody, ApiError> {
    let body: SchemaBody = serde_json::from_slice(body)
        .map_err(|error| ApiError::new(42201, format!("cannot read the request: {error}")))?;
    if body.schema_type != "JSON" {
        return Err(ApiError::invalid_schema(format!(
            "this registry supports JSON schemas only, not {}",
            body.schema_type
        )));
    }
    if !body.references.is_empty() {
        return Err(ApiError::invalid_schema("this registry does not resolve references"));
    }
    let schema: Value = serde_json::from_str(&body.schema).map_err(ApiError::invalid_schema)?;
    jsonschema::validator_for(&schema).map_err(ApiError::invalid_schema)?;
    Ok(body)
}

fn describe(subject: &str, version: &Version<'_>) -> Value {
    json!({
        "subject": subject, "version": version.number, "id": version.id,
        "schemaType": "JSON", "schema": version.schema
    })
}

async fn register(
    state: Shared,
    subject: web::Path<String>,
    body: web::Bytes,
) -> Result<HttpResponse, ApiError> {
    let body = parse_schema(&body)?;
    let registered = lock(&state).register(&subject, &body.schema);
    let id = registered.map_err(|error| ApiError::new(50001, format!("cannot store the schema: {error}")))?;
    Ok(reply(json!({ "id": id })))
}

async fn look_up(
    state: Shared,
    subject: web::Path<String>,
    body: web::Bytes,
) -> Result<HttpResponse, ApiError> {
    let body = parse_schema(&body)?;
    let state = lock(&state);
    let versions = state.versions(&subject).ok_or_else(|| ApiError::subject(&subject))?;
    let found = versions.iter().find(|version| State::same(version.schema, &body.schema));
    let version = found.ok_or_else(|| ApiError::new(40403, "Schema not found"))?;
    Ok(reply(describe(&subject, version)))
}

async fn subjects(state: Shared) -> HttpResponse {
    reply(json!(lock(&state).subjects()))
}

async fn versions(state: Shared, subject: web::Path<String>) -> Result<HttpResponse, ApiError> {
    let state = lock(&state);
    let versions = state.versions(&subject).ok_or_else(|| ApiError::subject(&subject))?;
    Ok(reply(versions.iter().map(|version| version.number).collect()))
}

async fn version(state: Shared, path: web::Path<(String, String)>) -> Result<HttpResponse, ApiError> {
    let (subject, wanted) = path.into_inner();
    let state = lock(&state);
    Ok(reply(describe(&subject, &find_version(&state, &subject, &wanted)?)))
}

async fn version_schema(state: Shared, path: web::Path<(String, String)>) -> Result<HttpResponse, ApiError> {
    let (subject, wanted) = path.into_inner();
    let state = lock(&state);
    let version = find_version(&state, &subject, &wanted)?;
    Ok(HttpResponse::Ok().content_type(CONTENT_TYPE).body(version.schema.to_owned()))
}

/// Returns the version `wanted`: a number, or `latest` or `-1` for the latest one.
fn find_version<'a>(state: &'a State, subject: &str, wanted: &str) -> Result<Version<'a>, ApiError> {
    let versions = state.versions(subject).ok_or_else(|| ApiError::subject(subject))?;
    let number = match wanted {
        "latest" | "-1" => versions.len(),
        number => number.parse().map_err(|_| {
            ApiError::new(42202, format!("The specified version '{number}' is not a valid version id."))
        })?,
    };
    let missing = || ApiError::new(40402, format!("Version {wanted} not found."));
    versions.into_iter().find(|version| version.number == number).ok_or_else(missing)
}

async fn schema_by_id(state: Shared, id: web::Path<String>) -> Result<HttpResponse, ApiError> {
    let missing = || ApiError::new(40403, format!("Schema {id} not found"));
    let state = lock(&state);
    let schema = id.parse().ok().and_then(|id| state.schema(id)).ok_or_else(missing)?;
    Ok(reply(json!({ "schemaType": "JSON", "schema": schema })))
}

async fn versions_by_id(state: Shared, id: web::Path<String>) -> Result<HttpResponse, ApiError> {
    let missing = || ApiError::new(40403, format!("Schema {id} not found"));
    let state = lock(&state);
    let id: u32 = id.parse().map_err(|_| missing())?;
    state.schema(id).ok_or_else(missing)?;
    let mut found = Vec::new();
    for subject in state.subjects() {
        for version in state.versions(subject).unwrap_or_default() {
            if version.id == id {
                found.push(json!({ "subject": subject, "version": version.number }));
            }
        }
    }
    Ok(reply(Value::Array(found)))
}

/// Refuses every compatibility level that this registry does not enforce.
async fn set_config(body: web::Bytes) -> Result<HttpResponse, ApiError> {
    let wanted: Value = serde_json::from_slice(&body).unwrap_or_default();
    match wanted.get("compatibility").and_then(Value::as_str) {
        Some("NONE") => Ok(reply(json!({ "compatibility": "NONE" }))),
        _ => Err(ApiError::new(42203, "this registry does not check compatibility: only NONE can be set")),
    }
}
