//! Serves the page, its events and its actions.

use std::sync::Arc;

use actix_web::http::header::{self, HeaderName};
use actix_web::http::{Method, StatusCode};
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use chrono::Utc;
use futures::stream::empty;
use serde_json::{Value, json};
use tokio::sync::{Mutex, Semaphore};
use tokio_util::sync::CancellationToken;

use super::ledger::MAX_VIN_CHARS;
use super::role_client::{RoleClient, body_of, without_url};
use super::state::Console;
use super::stream::events;
use super::ways::Way;
use crate::dlq::{self, DEFAULT_MAX_REPLAYS, LetterId, Plan, Step, Unresolvable, Which};
use crate::excerpt::excerpt;
use crate::http::{
    AllowedHosts, ApiKeys, Authorized, JsonDocument, OwnPage, PageFile, Problem, ProblemType, changing,
    event_stream, problem_pages, readable,
};
use crate::kafka::{KafkaArgs, Resolution};
use crate::trace::{TraceContext, TraceHeaders};

/// The maximum number of pages that are open at the same time.
const MAX_PAGES: usize = 64;
/// The maximum number of dead letters in one request.
const MAX_LETTERS: usize = 100;
const MAX_DETAIL_CHARS: usize = 500;

const FILES: &[PageFile] = &[
    PageFile { path: "/", media_type: "text/html; charset=utf-8", content: include_str!("page/index.html") },
    PageFile {
        path: "/style.css",
        media_type: "text/css; charset=utf-8",
        content: include_str!("page/style.css"),
    },
    PageFile { path: "/icon.svg", media_type: "image/svg+xml", content: include_str!("page/icon.svg") },
    PageFile { path: "/app.js", media_type: SCRIPT, content: include_str!("page/app.js") },
    PageFile { path: "/actions.js", media_type: SCRIPT, content: include_str!("page/actions.js") },
    PageFile { path: "/elements.js", media_type: SCRIPT, content: include_str!("page/elements.js") },
    PageFile { path: "/faults.js", media_type: SCRIPT, content: include_str!("page/faults.js") },
    PageFile { path: "/lists.js", media_type: SCRIPT, content: include_str!("page/lists.js") },
    PageFile { path: "/pipeline.js", media_type: SCRIPT, content: include_str!("page/pipeline.js") },
    PageFile { path: "/plots.js", media_type: SCRIPT, content: include_str!("page/plots.js") },
    PageFile { path: "/vehicles.js", media_type: SCRIPT, content: include_str!("page/vehicles.js") },
];
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The state that the routes share.
pub struct Api {
    pub console: Arc<Console>,
    pub kafka: KafkaArgs,
    pub stock: RoleClient,
    pub keys: ApiKeys,
    pub hosts: AllowedHosts,
    pub shutdown: CancellationToken,
    pages: Arc<Semaphore>,
    /// Held while dead letters are resolved: two producers with the same id would fence each other.
    resolving: Arc<Mutex<()>>,
}

impl Api {
    pub fn new(
        console: Arc<Console>,
        kafka: KafkaArgs,
        stock: RoleClient,
        keys: ApiKeys,
        hosts: AllowedHosts,
        shutdown: CancellationToken,
    ) -> Self {
        let pages = Arc::new(Semaphore::new(MAX_PAGES));
        Self { console, kafka, stock, keys, hosts, shutdown, pages, resolving: Arc::default() }
    }

    pub fn routes(self: Arc<Self>) -> impl Fn(&mut ServiceConfig) + Clone + Send + 'static {
        let api = web::Data::from(self);
        move |config| {
            config.app_data(api.clone()).app_data(api.keys.clone()).app_data(api.hosts.clone());
            for file in FILES {
                config.configure(|config| file.configure(config));
            }
            config
                .configure(problem_pages)
                .service(readable("/events", stream))
                .service(changing("/vehicles", post_vehicle))
                .service(changing("/letters/replay", replay))
                .service(changing("/letters/discard", discard));
        }
    }

    /// # Errors
    /// Returns a 403 problem when the page is read-only.
    fn check_writable(&self) -> Result<(), Problem> {
        if self.console.settings.read_only { Err(Problem::new(&ProblemType::READ_ONLY, "")) } else { Ok(()) }
    }
}

async fn stream(_: OwnPage, api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, Problem> {
    if request.method() == Method::HEAD {
        // The server would take events for ever and send none of them.
        return Ok(event_stream(&request, empty()));
    }
    let permit = Arc::clone(&api.pages).try_acquire_owned();
    let permit = permit.map_err(|_| Problem::new(&ProblemType::OVERLOADED, "too many pages are open"))?;
    let last = request.headers().get(HeaderName::from_static("last-event-id"));
    let last = last.and_then(|id| id.to_str().ok());
    Ok(event_stream(&request, events(Arc::clone(&api.console), last, permit, api.shutdown.clone())))
}

/// Sends a vehicle to stock with the key of the client, and returns the answer of stock.
async fn post_vehicle(
    _: OwnPage,
    _: Authorized,
    api: web::Data<Api>,
    request: HttpRequest,
    document: Result<JsonDocument, Problem>,
) -> Result<HttpResponse, Problem> {
    api.check_writable()?;
    let JsonDocument(vehicle) = document?;
    let vin = vehicle.get("vin").and_then(Value::as_str).map(str::trim).unwrap_or_default().to_owned();
    let trace = TraceContext::new_root().headers();
    let posted = Utc::now().timestamp_millis();
    if !vin.is_empty() && vin.chars().count() <= MAX_VIN_CHARS {
        api.console.lock().ways.follow(Way { vin: vin.clone(), posted, ..Way::default() });
    }
    let mut sent = api.stock.post("/stock").json(&vehicle).header(TraceHeaders::PARENT, &*trace.parent);
    if let Some(key) = request.headers().get(header::AUTHORIZATION) {
        sent = sent.header("authorization", key.as_bytes());
    }
    let answer = async {
        let response = sent.send().await.map_err(without_url)?;
        let status = response.status().as_u16();
        let media_type = response.headers().get("content-type").and_then(|value| value.to_str().ok());
        let media_type = media_type.unwrap_or("application/octet-stream").to_owned();
        anyhow::Ok((status, media_type, body_of(response).await?))
    };
    let answer = answer.await;
    let answered_after = Utc::now().timestamp_millis() - posted;
    let status = answer.as_ref().map(|(status, ..)| *status).ok();
    api.console.lock().ways.step(&vin, |way| {
        way.answered_after = Some(answered_after);
        way.status = Some(status.unwrap_or(503));
        if status == Some(201) {
            way.trace = trace.parent.split('-').nth(1).map(str::to_owned);
        }
    });
    let (status, media_type, body) = answer.map_err(|error| {
        let detail = format!("stock: {}", excerpt(&error.to_string(), MAX_DETAIL_CHARS));
        Problem::new(&ProblemType::UNAVAILABLE, detail)
    })?;
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    Ok(HttpResponse::build(status).content_type(media_type).body(body))
}

async fn replay(
    _: OwnPage,
    _: Authorized,
    api: web::Data<Api>,
    document: Result<JsonDocument, Problem>,
) -> Result<HttpResponse, Problem> {
    resolve(&api, document, Resolution::Replayed).await
}

async fn discard(
    _: OwnPage,
    _: Authorized,
    api: web::Data<Api>,
    document: Result<JsonDocument, Problem>,
) -> Result<HttpResponse, Problem> {
    resolve(&api, document, Resolution::Discarded).await
}

async fn resolve(
    api: &Api,
    document: Result<JsonDocument, Problem>,
    how: Resolution,
) -> Result<HttpResponse, Problem> {
    api.check_writable()?;
    let JsonDocument(document) = document?;
    let letters = parse_letters(&document).map_err(|reason| {
        Problem::new(&ProblemType::MALFORMED_REQUEST, format!("the field \"letters\" {reason}"))
    })?;
    let one_at_a_time = Arc::clone(&api.resolving).try_lock_owned().map_err(|_| {
        Problem::new(&ProblemType::OVERLOADED, "other dead letters are being resolved, retry later")
    })?;
    let kafka = api.kafka.clone();
    let work = tokio::task::spawn_blocking(move || {
        // The work goes on when the client is gone.
        let _one_at_a_time = one_at_a_time;
        let plan =
            Plan { which: Which::These(letters), how, max_replays: DEFAULT_MAX_REPLAYS, dry_run: false };
        let mut steps = Vec::new();
        dlq::resolve(&kafka, &plan, |step| steps.push(step)).map(|_| steps)
    });
    let steps = work.await.map_err(|error| {
        tracing::error!(%error, "resolving dead letters panicked, responding with 500");
        Problem::new(&ProblemType::INTERNAL, "")
    })?;
    let steps = steps.map_err(|error| {
        let detail = excerpt(&format!("{error:#}"), MAX_DETAIL_CHARS);
        let kind = if error.is::<Unresolvable>() {
            &ProblemType::LETTER_RESOLVED
        } else {
            &ProblemType::UNAVAILABLE
        };
        Problem::new(kind, detail)
    })?;
    let (mut resolved, mut skipped) = (Vec::new(), Vec::new());
    for step in steps {
        match step {
            Step::Resolved(id) => resolved.push(id.to_string()),
            Step::Skipped(id, reason) => skipped.push(json!({ "letter": id.to_string(), "reason": reason })),
        }
    }
    tracing::info!(
        how = how.as_str(),
        resolved = resolved.len(),
        skipped = skipped.len(),
        "dead letters were resolved on the page"
    );
    Ok(HttpResponse::Ok().json(json!({ "resolved": resolved, "skipped": skipped })))
}

fn parse_letters(document: &Value) -> Result<Vec<LetterId>, String> {
    let letters = document.get("letters").and_then(Value::as_array).ok_or("must be an array")?;
    if letters.is_empty() || letters.len() > MAX_LETTERS {
        return Err(format!("must have 1 to {MAX_LETTERS} elements"));
    }
    let parse = |letter: &Value| letter.as_str().ok_or("must contain texts")?.parse::<LetterId>();
    letters.iter().map(parse).collect()
}
