//! Serves `/schemas`.

use std::collections::BTreeSet;

use actix_web::web::{self, ServiceConfig};
use serde::Serialize;
use serde_json::{Value, json};

use super::subjects::selected;
use super::{Answer, Query, Shared, describe, flag, lock, page, raw, reading, reply, resource};
use crate::dev::embedded_registry::api_error::ApiError;
use crate::dev::embedded_registry::state::State;
use crate::dev::embedded_registry::stored::StoredSchema;
use crate::registry::Reference;

pub(super) fn routes(config: &mut ServiceConfig) {
    config
        .service(resource("/schemas", "GET, HEAD").route(reading().to(list)))
        .service(resource("/schemas/types", "GET, HEAD").route(reading().to(async || reply(&["JSON"]))))
        .service(resource("/schemas/ids/{id}", "GET, HEAD").route(reading().to(by_id)))
        .service(resource("/schemas/ids/{id}/schema", "GET, HEAD").route(reading().to(text_by_id)))
        .service(resource("/schemas/ids/{id}/subjects", "GET, HEAD").route(reading().to(subjects_by_id)))
        .service(resource("/schemas/ids/{id}/versions", "GET, HEAD").route(reading().to(versions_by_id)));
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SchemaById<'a> {
    schema_type: &'a str,
    schema: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    references: &'a [Reference],
    #[serde(skip_serializing_if = "Option::is_none")]
    max_id: Option<u32>,
}

async fn list(state: Shared, query: Query) -> Answer {
    let state = lock(&state);
    let subjects = selected(&state, &query);
    let mut found = Vec::new();
    for subject in &subjects {
        let versions = state.versions(subject, flag(&query, "deleted"));
        let count = if flag(&query, "latestOnly") { 1 } else { versions.len() };
        for version in versions.iter().skip(versions.len().saturating_sub(count)) {
            found.push(describe(&state, subject, *version)?);
        }
    }
    Ok(reply(&page(&query, found)?))
}

fn find<'a>(state: &'a State, id: &str) -> Result<(u32, &'a StoredSchema), ApiError> {
    // Other text is an unknown path, as in Confluent's registry.
    let id: u32 = id.parse().map_err(|_| ApiError::path())?;
    Ok((id, state.schema(id).ok_or_else(|| ApiError::schema_id(id))?))
}

async fn by_id(state: Shared, id: web::Path<String>, query: Query) -> Answer {
    let state = lock(&state);
    let (_, StoredSchema { schema, references }) = find(&state, &id)?;
    let max_id = flag(&query, "fetchMaxId").then_some(state.stored().last_id);
    Ok(reply(&SchemaById { schema_type: "JSON", schema, references, max_id }))
}

async fn text_by_id(state: Shared, id: web::Path<String>) -> Answer {
    Ok(raw(find(&lock(&state), &id)?.1.schema.clone()))
}

/// Returns the subjects and versions that have a schema.
fn places(state: &State, id: u32, deleted: bool) -> Vec<(&String, u32)> {
    let subjects = state.stored().subjects.keys();
    let places = subjects.flat_map(|subject| {
        let versions = state.versions(subject, deleted).into_iter();
        versions.filter(|version| version.id == id).map(move |version| (subject, version.number))
    });
    places.collect()
}

async fn subjects_by_id(state: Shared, id: web::Path<String>, query: Query) -> Answer {
    let state = lock(&state);
    let (id, _) = find(&state, &id)?;
    let subjects: BTreeSet<_> =
        places(&state, id, flag(&query, "deleted")).into_iter().map(|(subject, _)| subject).collect();
    Ok(reply(&page(&query, subjects)?))
}

async fn versions_by_id(state: Shared, id: web::Path<String>, query: Query) -> Answer {
    let state = lock(&state);
    let (id, _) = find(&state, &id)?;
    let places = places(&state, id, flag(&query, "deleted")).into_iter();
    let described = places.map(|(subject, version)| json!({ "subject": subject, "version": version }));
    Ok(reply(&page::<Value>(&query, described)?))
}
