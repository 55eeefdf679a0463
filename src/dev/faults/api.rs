//! Serves the faults to the page of the console and to scripts.

use actix_web::HttpResponse;
use actix_web::web::{Data, Path, ServiceConfig};
use chrono::Utc;
use serde::Deserialize;

use super::controls::{Controls, Refusal};
use crate::duration::parse_duration;
use crate::http::{Authorized, JsonDocument, OwnPage, Problem, ProblemType, changing, readable};

/// The body of a request for a fault.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    /// The duration, such as `15s`.
    #[serde(rename = "for")]
    duration: Option<String>,
    target: Option<String>,
}

/// Returns the routes. The console configures the keys and host names that they need.
pub fn routes(controls: Controls) -> impl Fn(&mut ServiceConfig) + Send + Sync + 'static {
    let controls = Data::new(controls);
    move |config| {
        config
            .app_data(controls.clone())
            .service(readable("/faults", list))
            .service(changing("/faults/{name}", inject));
    }
}

async fn list(_: OwnPage, controls: Data<Controls>) -> HttpResponse {
    HttpResponse::Ok().json(controls.describe(Some(Utc::now())))
}

async fn inject(
    _: OwnPage,
    _: Authorized,
    controls: Data<Controls>,
    name: Path<String>,
    document: Result<JsonDocument, Problem>,
) -> Result<HttpResponse, Problem> {
    let JsonDocument(document) = document?;
    let malformed = |reason: String| Problem::new(&ProblemType::MALFORMED_REQUEST, reason);
    let Request { duration, target } =
        serde_json::from_value(document).map_err(|error| malformed(error.to_string()))?;
    let duration = duration.map(|text| parse_duration(&text)).transpose();
    let duration = duration.map_err(|reason| malformed(format!("the field \"for\" {reason}")))?;
    let running = controls.inject(&name, target, duration).await.map_err(|refusal| match refusal {
        Refusal::Unknown => Problem::not_found(),
        Refusal::Invalid(reason) => malformed(reason),
        Refusal::Running => Problem::new(&ProblemType::FAULT_RUNNING, ""),
        Refusal::Failed(reason) => Problem::new(&ProblemType::UNAVAILABLE, reason),
    })?;
    Ok(HttpResponse::Ok().json(running.describe(Some(Utc::now()))))
}
