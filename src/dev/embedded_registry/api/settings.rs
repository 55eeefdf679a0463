//! Serves `/config` and `/mode`, for all subjects and for each.

use actix_web::web::{self, ServiceConfig};
use json_schema_compatibility::Level;
use serde_json::{Value, json};

use super::{Answer, Body, Query, Shared, flag, lock, read, reading, reply, resource};
use crate::dev::embedded_registry::api_error::ApiError;
use crate::dev::embedded_registry::stored::Mode;

const METHODS: &str = "GET, HEAD, PUT, DELETE";

pub(super) fn routes(config: &mut ServiceConfig) {
    config
        .service(
            resource("/config", METHODS)
                .route(reading().to(level))
                .route(web::put().to(set_level))
                .route(web::delete().to(delete_level)),
        )
        .service(
            resource("/config/{subject}", METHODS)
                .route(reading().to(level_of))
                .route(web::put().to(set_level_of))
                .route(web::delete().to(delete_level_of)),
        )
        .service(
            resource("/mode", METHODS)
                .route(reading().to(mode))
                .route(web::put().to(set_mode))
                .route(web::delete().to(delete_mode)),
        )
        .service(
            resource("/mode/{subject}", METHODS)
                .route(reading().to(mode_of))
                .route(web::put().to(set_mode_of))
                .route(web::delete().to(delete_mode_of)),
        );
}

fn shown_level(level: Level) -> Value {
    json!({ "compatibilityLevel": level })
}

fn requested_level(body: Body) -> Result<Level, ApiError> {
    let body: Value = read(body, 42203)?;
    let level = body.get("compatibility").and_then(Value::as_str).and_then(|name| name.parse().ok());
    level.ok_or_else(|| {
        let names = Level::ALL.map(Level::name).join(", ");
        ApiError::new(42203, format!("Invalid compatibility level. Valid values are {names}"))
    })
}

async fn level(state: Shared) -> Answer {
    Ok(reply(&shown_level(lock(&state).stored().levels.global())))
}

async fn level_of(state: Shared, subject: web::Path<String>, query: Query) -> Answer {
    let state = lock(&state);
    let levels = &state.stored().levels;
    let own = levels.subjects.get(subject.as_str()).copied();
    let level = own.or_else(|| flag(&query, "defaultToGlobal").then(|| levels.global()));
    let missing = format!("Subject '{subject}' does not have subject-level compatibility configured");
    Ok(reply(&shown_level(level.ok_or_else(|| ApiError::new(40408, missing))?)))
}

async fn set_level(state: Shared, body: Body) -> Answer {
    let level = requested_level(body)?;
    lock(&state).set_level(None, Some(level))?;
    Ok(reply(&json!({ "compatibility": level })))
}

async fn set_level_of(state: Shared, subject: web::Path<String>, body: Body) -> Answer {
    let level = requested_level(body)?;
    lock(&state).set_level(Some(&subject), Some(level))?;
    Ok(reply(&json!({ "compatibility": level })))
}

async fn delete_level(state: Shared) -> Answer {
    let previous = lock(&state).set_level(None, None)?;
    Ok(reply(&shown_level(previous.unwrap_or_default())))
}

async fn delete_level_of(state: Shared, subject: web::Path<String>) -> Answer {
    let previous = lock(&state).set_level(Some(&subject), None)?;
    Ok(reply(&shown_level(previous.ok_or_else(|| ApiError::subject(&subject))?)))
}

fn requested_mode(body: Body) -> Result<Mode, ApiError> {
    let body: Value = read(body, 42204)?;
    let name = body.get("mode").and_then(Value::as_str).unwrap_or_default().to_ascii_uppercase();
    let invalid = |_| ApiError::new(42204, "Invalid mode. Valid values are READWRITE, READONLY");
    serde_json::from_value(Value::String(name)).map_err(invalid)
}

async fn mode(state: Shared) -> Answer {
    Ok(reply(&json!({ "mode": lock(&state).stored().modes.global() })))
}

async fn mode_of(state: Shared, subject: web::Path<String>, query: Query) -> Answer {
    let state = lock(&state);
    let modes = &state.stored().modes;
    let own = modes.subjects.get(subject.as_str()).copied();
    let mode = own.or_else(|| flag(&query, "defaultToGlobal").then(|| modes.global()));
    let missing = format!("Subject '{subject}' does not have subject-level mode configured");
    Ok(reply(&json!({ "mode": mode.ok_or_else(|| ApiError::new(40409, missing))? })))
}

async fn set_mode(state: Shared, body: Body) -> Answer {
    let mode = requested_mode(body)?;
    lock(&state).set_mode(None, Some(mode))?;
    Ok(reply(&json!({ "mode": mode })))
}

async fn set_mode_of(state: Shared, subject: web::Path<String>, body: Body) -> Answer {
    let mode = requested_mode(body)?;
    lock(&state).set_mode(Some(&subject), Some(mode))?;
    Ok(reply(&json!({ "mode": mode })))
}

async fn delete_mode(state: Shared) -> Answer {
    let previous = lock(&state).set_mode(None, None)?;
    Ok(reply(&json!({ "mode": previous.unwrap_or_default() })))
}

async fn delete_mode_of(state: Shared, subject: web::Path<String>) -> Answer {
    let previous = lock(&state).set_mode(Some(&subject), None)?;
    Ok(reply(&json!({ "mode": previous.ok_or_else(|| ApiError::subject(&subject))? })))
}
