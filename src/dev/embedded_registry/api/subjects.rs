//! Serves `/subjects`.

use actix_web::web::{self, ServiceConfig};
use serde_json::json;

use super::{
    Answer, Body, Query, Shared, describe, find_version, flag, lock, page, raw, read_schema, reading, reply,
    resource,
};
use crate::dev::embedded_registry::api_error::ApiError;
use crate::dev::embedded_registry::state::State;

/// The prefix that selects the subjects of all contexts.
const ALL_CONTEXTS: &str = ":*:";

pub(super) fn routes(config: &mut ServiceConfig) {
    config
        .service(resource("/subjects", "GET, HEAD").route(reading().to(list)))
        .service(
            resource("/subjects/{subject}", "POST, DELETE")
                .route(web::post().to(look_up))
                .route(web::delete().to(delete)),
        )
        .service(
            resource("/subjects/{subject}/versions", "GET, HEAD, POST")
                .route(reading().to(versions))
                .route(web::post().to(register)),
        )
        .service(
            resource("/subjects/{subject}/versions/{version}", "GET, HEAD, DELETE")
                .route(reading().to(version))
                .route(web::delete().to(delete_version)),
        )
        .service(
            resource("/subjects/{subject}/versions/{version}/schema", "GET, HEAD")
                .route(reading().to(version_schema)),
        )
        .service(
            resource("/subjects/{subject}/versions/{version}/referencedby", "GET, HEAD")
                .route(reading().to(referenced_by)),
        );
}

/// Returns the subjects that have versions which the parameters `deleted` and `deletedOnly` select, and begin with
/// `subjectPrefix`.
pub(super) fn selected(state: &State, query: &Query) -> Vec<String> {
    let prefix = query.get("subjectPrefix").map(String::as_str).unwrap_or_default();
    let prefix = prefix.strip_prefix(ALL_CONTEXTS).unwrap_or(prefix);
    let is_selected = |subject: &&String| {
        let active = !state.versions(subject, false).is_empty();
        let is_shown = match (flag(query, "deletedOnly"), flag(query, "deleted")) {
            (true, _) => !active,
            (false, deleted) => active || deleted,
        };
        is_shown && subject.starts_with(prefix)
    };
    state.stored().subjects.keys().filter(is_selected).cloned().collect()
}

async fn list(state: Shared, query: Query) -> Answer {
    Ok(reply(&page(&query, selected(&lock(&state), &query))?))
}

async fn register(state: Shared, subject: web::Path<String>, query: Query, body: Body) -> Answer {
    let mut state = lock(&state);
    let candidate = read_schema(body, &query, &state)?;
    Ok(reply(&json!({ "id": state.register(&subject, &candidate)? })))
}

async fn look_up(state: Shared, subject: web::Path<String>, query: Query, body: Body) -> Answer {
    let state = lock(&state);
    let candidate = read_schema(body, &query, &state)?;
    let deleted = flag(&query, "deleted");
    if state.versions(&subject, deleted).is_empty() {
        return Err(ApiError::subject(&subject));
    }
    let found = state.find(&subject, &candidate, deleted);
    let version = found.ok_or_else(|| ApiError::new(40403, "Schema not found"))?;
    Ok(reply(&describe(&state, &subject, version)?))
}

async fn delete(state: Shared, subject: web::Path<String>, query: Query) -> Answer {
    Ok(reply(&lock(&state).delete_subject(&subject, flag(&query, "permanent"))?))
}

async fn versions(state: Shared, subject: web::Path<String>, query: Query) -> Answer {
    let (deleted, deleted_only) = (flag(&query, "deleted"), flag(&query, "deletedOnly"));
    let versions = lock(&state).versions(&subject, deleted || deleted_only);
    if versions.is_empty() {
        return Err(ApiError::subject(&subject));
    }
    let shown = versions.into_iter().filter(|version| version.deleted || !deleted_only);
    Ok(reply(&page(&query, shown.map(|version| version.number))?))
}

async fn version(state: Shared, path: web::Path<(String, String)>, query: Query) -> Answer {
    let (subject, wanted) = path.into_inner();
    let state = lock(&state);
    let version = find_version(&state, &subject, &wanted, flag(&query, "deleted"))?;
    Ok(reply(&describe(&state, &subject, version)?))
}

async fn version_schema(state: Shared, path: web::Path<(String, String)>, query: Query) -> Answer {
    let (subject, wanted) = path.into_inner();
    let state = lock(&state);
    let version = find_version(&state, &subject, &wanted, flag(&query, "deleted"))?;
    Ok(raw(describe(&state, &subject, version)?.schema.to_owned()))
}

async fn referenced_by(state: Shared, path: web::Path<(String, String)>, query: Query) -> Answer {
    let (subject, wanted) = path.into_inner();
    let state = lock(&state);
    let version = find_version(&state, &subject, &wanted, true)?;
    Ok(reply(&page(&query, state.referenced_by(&subject, version.number))?))
}

async fn delete_version(state: Shared, path: web::Path<(String, String)>, query: Query) -> Answer {
    let (subject, wanted) = path.into_inner();
    let permanent = flag(&query, "permanent");
    let mut state = lock(&state);
    let version = find_version(&state, &subject, &wanted, true)?;
    state.delete_version(&subject, version, permanent)?;
    Ok(reply(&version.number))
}
