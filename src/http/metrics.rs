//! Measures requests and exposes a role's metrics to Prometheus.

use std::sync::Arc;
use std::time::Instant;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::middleware::Next;
use actix_web::{Error, HttpRequest, HttpResponse, web};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::connections::ConnectionMark;
use super::problem::Problem;
use super::problem_type::ProblemType;
use super::room::leaving;

/// The upper bounds in seconds, from 0.5 ms to 8 s.
const BUCKETS: [f64; 15] =
    [0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    method: &'static str,
    /// The route's pattern rather than the path, as there are as many paths as vehicles.
    route: String,
    status: u16,
}

/// The methods of HTTP and PATCH. Any other would be a label that a client chooses
/// (<https://opentelemetry.io/docs/specs/semconv/http/http-metrics/>).
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"];

fn label(method: &Method) -> &'static str {
    METHODS.into_iter().find(|known| *known == method.as_str()).unwrap_or("_OTHER")
}

type NewHistogram = fn() -> Histogram;

/// The metrics of the HTTP server.
#[derive(Clone)]
pub(super) struct HttpMetrics {
    durations: Family<Request, Histogram, NewHistogram>,
}

impl HttpMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let durations = Family::new_with_constructor((|| Histogram::new(BUCKETS)) as NewHistogram);
        registry.register(
            "http_request_duration_seconds",
            "Time from receiving a request's head to sending the response's head",
            durations.clone(),
        );
        Self { durations }
    }
}

pub(super) async fn measure(
    metrics: web::Data<HttpMetrics>,
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let started = Instant::now();
    let mark = request.conn_data::<ConnectionMark>().cloned();
    if let Some(mark) = &mark {
        mark.request_begins();
    }
    let method = label(request.method());
    let response = next.call(request).await;
    if let Some(mark) = &mark {
        mark.response_begins();
    }
    let response = response?;
    let route = response.request().match_pattern().unwrap_or_else(|| "none".to_owned());
    let status = response.status().as_u16();
    let seconds = started.elapsed().as_secs_f64();
    metrics.durations.get_or_create(&Request { method, route, status }).observe(seconds);
    Ok(response)
}

/// Show the metrics of the role in the OpenMetrics format
#[utoipa::path(
    get, path = "/metrics", operation_id = "showMetrics", tag = "health",
    responses((
        status = 200, description = "The metrics", body = String,
        content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8"
    ))
)]
pub(super) async fn show(
    request: HttpRequest,
    registry: web::Data<Arc<Registry>>,
) -> Result<HttpResponse, Problem> {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => Ok(HttpResponse::Ok()
            .content_type("application/openmetrics-text; version=1.0.0; charset=utf-8")
            .body(leaving(&request, text)?)),
        Err(error) => {
            tracing::error!(%error, "cannot encode the metrics, responding with 500");
            Err(Problem::new(&ProblemType::INTERNAL, ""))
        }
    }
}
