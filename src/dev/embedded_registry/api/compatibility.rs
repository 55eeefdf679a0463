//! Serves `/compatibility`: checks a schema without registering it.

use actix_web::web::{self, ServiceConfig};
use serde::Serialize;

use super::{Answer, Body, Query, Shared, find_version, flag, lock, read_schema, reply, resource};
use crate::dev::embedded_registry::api_error::ApiError;
use crate::dev::embedded_registry::state::State;
use crate::dev::embedded_registry::stored::Version;

#[derive(Serialize)]
struct Verdict {
    is_compatible: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<Vec<String>>,
}

pub(super) fn routes(config: &mut ServiceConfig) {
    config
        .service(
            resource("/compatibility/subjects/{subject}/versions", "POST").route(web::post().to(with_all)),
        )
        .service(
            resource("/compatibility/subjects/{subject}/versions/{version}", "POST")
                .route(web::post().to(with_version)),
        );
}

async fn with_all(state: Shared, subject: web::Path<String>, query: Query, body: Body) -> Answer {
    let state = lock(&state);
    let versions = state.versions(&subject, false);
    check(&state, &subject, &versions, &query, body)
}

async fn with_version(state: Shared, path: web::Path<(String, String)>, query: Query, body: Body) -> Answer {
    let (subject, wanted) = path.into_inner();
    let state = lock(&state);
    let versions = match find_version(&state, &subject, &wanted, false) {
        Ok(version) => vec![version],
        // A subject without versions forbids nothing.
        Err(_) if ["latest", "-1"].contains(&wanted.as_str()) => Vec::new(),
        Err(error) if error == ApiError::subject(&subject) => return Err(ApiError::version(wanted)),
        Err(error) => return Err(error),
    };
    check(&state, &subject, &versions, &query, body)
}

fn check(state: &State, subject: &str, versions: &[Version], query: &Query, body: Body) -> Answer {
    let messages = read_schema(body, query, state)
        .and_then(|candidate| state.incompatible(subject, &candidate, versions));
    let verbose = flag(query, "verbose");
    let messages = match messages {
        Err(error) if verbose && error.is_invalid_schema() => vec![error.message],
        messages => messages?,
    };
    let is_compatible = messages.is_empty();
    Ok(reply(&Verdict { is_compatible, messages: verbose.then_some(messages) }))
}
