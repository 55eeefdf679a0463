//! Exports finished steps to an OpenTelemetry collector.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use clap::Args;
use opentelemetry::trace::{SpanId, Status};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchSpanProcessor, SpanData, SpanEvents, SpanExporter, SpanLinks, SpanProcessor as _,
};
use reqwest::Url;
use reqwest::header::{HeaderName, HeaderValue};

use super::collector::{CollectorClient, parse_header};
use super::{Description, Span};
use crate::secret::SecretParser;

/// The maximum time for exporting the last steps when the process ends.
const FINISH: Duration = Duration::from_secs(1);

/// The exporter of the whole process, as there is one collector.
static PROCESSOR: OnceLock<BatchSpanProcessor> = OnceLock::new();

#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Traces")]
pub struct TraceArgs {
    /// Base URL of an OTLP/HTTP collector that receives traces, such as http://127.0.0.1:4318 [default: none]
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL", hide_env_values = true, value_parser = SecretParser::new(parse_endpoint))]
    otlp_endpoint: Option<Url>,

    /// Headers to send to the collector, such as authorization=Bearer%20...; values may be percent-encoded
    #[arg(
        long,
        env = "OTEL_EXPORTER_OTLP_HEADERS",
        value_name = "NAME=VALUE,...",
        value_delimiter = ',',
        hide_env_values = true,
        value_parser = SecretParser::new(parse_header)
    )]
    otlp_headers: Vec<(HeaderName, HeaderValue)>,
}

fn parse_endpoint(text: &str) -> Result<Url, String> {
    let mut url = Url::parse(text).map_err(|error| format!("not a URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err("must be an http or https address, like http://host:4318".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() || url.path().contains('@') {
        return Err("must not contain credentials; pass them in --otlp-headers".to_owned());
    }
    url.set_path(&format!("{}/v1/traces", url.path().trim_end_matches('/')));
    Ok(url)
}

/// Starts exporting the steps of this process, with `service` as the service name.
///
/// The variables `OTEL_RESOURCE_ATTRIBUTES` and those of the batch span processor (`OTEL_BSP_...`) have the meaning
/// that OpenTelemetry defines.
///
/// # Errors
/// Fails when one of these variables requests something unsupported.
pub fn init(args: &TraceArgs, service: &'static str) -> anyhow::Result<()> {
    let Some(url) = &args.otlp_endpoint else { return Ok(()) };
    let client = CollectorClient::new(args.otlp_headers.iter().cloned().collect())?;
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_endpoint(url.as_str())
        .with_http_client(client)
        .build()
        .context("cannot export traces (--otlp-endpoint)")?;
    let exporter = Watched { exporter, fails: AtomicBool::new(false) };
    let mut processor = BatchSpanProcessor::builder(exporter).build();
    let resource = Resource::builder()
        .with_service_name(service)
        .with_attribute(KeyValue::new("service.namespace", "vehicle-platform"))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    processor.set_resource(&resource);
    // Only the first call in a process takes effect.
    let _ = PROCESSOR.set(processor);
    Ok(())
}

/// Exports the remaining spans, for at most one second and at most `left`.
pub async fn finish(left: Duration) {
    let finished = tokio::task::spawn_blocking(move || {
        PROCESSOR.get().map_or(Ok(()), |processor| processor.shutdown_with_timeout(left.min(FINISH)))
    });
    if let Ok(Err(error)) = finished.await {
        tracing::warn!(%error, "the collector did not accept the last spans, dropping them");
    }
}

/// An exporter that logs once when exporting starts to fail and once when it recovers.
#[derive(Debug)]
struct Watched<E> {
    exporter: E,
    fails: AtomicBool,
}

impl<E: SpanExporter> SpanExporter for Watched<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let exported = self.exporter.export(batch).await;
        match &exported {
            Ok(()) if self.fails.swap(false, Ordering::Relaxed) => {
                tracing::info!("exporting spans recovered");
            }
            Err(error) if !self.fails.swap(true, Ordering::Relaxed) => {
                tracing::warn!(%error, "exporting spans failed, dropping spans until the collector accepts them");
            }
            _ => {}
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// Queues a span for the collector. A full queue (`OTEL_BSP_MAX_QUEUE_SIZE`, 2,048 spans by default) drops it.
pub(super) fn send(span: Span, describe: impl FnOnce() -> Description) {
    if let Some(processor) = PROCESSOR.get()
        && span.context.is_sampled()
    {
        processor.on_end(data(span, describe()));
    }
}

fn data(span: Span, description: Description) -> SpanData {
    SpanData {
        span_context: span.context.span_context(),
        parent_span_id: span.parent.unwrap_or(SpanId::INVALID),
        parent_span_is_remote: span.parent.is_some(),
        span_kind: description.kind,
        name: description.name.into(),
        start_time: span.began,
        end_time: SystemTime::now(),
        attributes: description.attributes,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: description.error.map_or(Status::Unset, Status::error),
        instrumentation_scope: InstrumentationScope::builder(env!("CARGO_PKG_NAME")).build(),
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::SpanKind;

    use super::*;
    use crate::trace::TraceHeaders;

    #[test]
    fn a_step_is_exported_with_the_ids_that_its_successors_refer_to() {
        let first = Span::follow(&TraceHeaders::default());
        let second = Span::follow(&first.context().headers());
        let header = second.context().headers().parent;
        let description = || Description::new(SpanKind::Internal, "step".to_owned());
        let (exported_first, exported_second) =
            (data(first, description()), data(second, description().failed("why")));
        assert_eq!(exported_first.parent_span_id, SpanId::INVALID);
        assert_eq!(exported_first.status, Status::Unset);
        assert_eq!(exported_second.parent_span_id, exported_first.span_context.span_id());
        assert_eq!(exported_second.span_context.trace_id(), exported_first.span_context.trace_id());
        assert_eq!(exported_second.status, Status::error("why"));
        assert!(header.contains(&exported_second.span_context.span_id().to_string()), "{header}");
    }

    #[test]
    fn a_collector_has_an_http_url() {
        let url = |text| parse_endpoint(text).map(String::from);
        assert_eq!(url("http://localhost:4318/"), Ok("http://localhost:4318/v1/traces".to_owned()));
        assert_eq!(url("https://host/base"), Ok("https://host/base/v1/traces".to_owned()));
        for wrong in ["", "localhost:4318", "grpc://localhost:4317", "http://", "http://user:word@host"] {
            assert!(url(wrong).is_err(), "{wrong}");
        }
    }
}
