//! Sends finished steps to an OpenTelemetry collector.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use clap::Args;
use opentelemetry::trace::{SpanContext, SpanId, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchSpanProcessor, SpanData, SpanEvents, SpanLinks, SpanProcessor as _};

use super::{Description, Span, TraceContext};

/// How long the process may take for its last steps when it ends.
const FINISH: Duration = Duration::from_secs(1);

/// There is one collector for the whole process, as there is one log.
static PROCESSOR: OnceLock<BatchSpanProcessor> = OnceLock::new();

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Traces")]
pub struct TraceArgs {
    /// Where to send traces: the base URL of an OTLP/HTTP collector, such as http://127.0.0.1:4318 [default: nowhere]
    #[arg(
        long,
        env = "OTEL_EXPORTER_OTLP_ENDPOINT",
        value_name = "URL",
        value_parser = parse_endpoint,
        global = true
    )]
    otlp_endpoint: Option<String>,
}

/// An empty variable is as good as none.
fn parse_endpoint(text: &str) -> Result<String, String> {
    let url = text.trim_end_matches('/');
    match url.split_once("://") {
        _ if url.is_empty() => Ok(String::new()),
        Some(("http" | "https", rest)) if !rest.is_empty() => Ok(url.to_owned()),
        _ => Err("must be a URL that begins with http:// or https://".to_owned()),
    }
}

/// Sends the steps of this process to the collector from here on, as those of `service`.
///
/// Further variables that OpenTelemetry defines are heeded, such as `OTEL_EXPORTER_OTLP_HEADERS`,
/// `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_BSP_MAX_QUEUE_SIZE`.
///
/// # Errors
/// When the collector's URL is none.
pub fn init(args: &TraceArgs, service: &'static str) -> anyhow::Result<()> {
    let Some(endpoint) = args.otlp_endpoint.as_deref().filter(|url| !url.is_empty()) else {
        return Ok(());
    };
    let exporter = SpanExporter::builder()
        .with_http()
        .with_endpoint(format!("{endpoint}/v1/traces"))
        .build()
        .context("--otlp-endpoint")?;
    let mut processor = BatchSpanProcessor::builder(exporter).build();
    let resource = Resource::builder()
        .with_service_name(service)
        .with_attribute(KeyValue::new("service.namespace", "vehicle-platform"))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    processor.set_resource(&resource);
    // Only the first call of a process counts.
    let _ = PROCESSOR.set(processor);
    Ok(())
}

/// Sends what is left, for a second at most.
pub fn finish() {
    if let Some(processor) = PROCESSOR.get()
        && let Err(error) = processor.shutdown_with_timeout(FINISH)
    {
        tracing::warn!(%error, "the last traces did not reach the collector");
    }
}

/// Puts it in the queue for the collector; what the queue has no room for is dropped.
pub(super) fn send(span: Span, describe: impl FnOnce() -> Description) {
    if let Some(processor) = PROCESSOR.get()
        && span.context.is_sampled()
    {
        processor.on_end(data(span, describe()));
    }
}

fn data(span: Span, description: Description) -> SpanData {
    SpanData {
        span_context: SpanContext::new(
            TraceId::from_bytes(span.context.trace_id.to_be_bytes()),
            span_id(span.context),
            TraceFlags::SAMPLED,
            false,
            TraceState::NONE,
        ),
        parent_span_id: span.parent.map_or(SpanId::INVALID, span_id),
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

fn span_id(context: TraceContext) -> SpanId {
    SpanId::from_bytes(context.parent_id.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::SpanKind;

    use super::*;

    #[test]
    fn a_step_is_told_with_the_ids_that_its_successors_know() {
        let first = Span::follow(None);
        let second = Span::follow(Some(first.context().to_string().as_bytes()));
        let description = || Description::new(SpanKind::Internal, "step".to_owned());
        let (told_first, told_second) =
            (data(first, description()), data(second, description().failed("why")));
        assert_eq!(told_first.parent_span_id, SpanId::INVALID);
        assert_eq!(told_first.status, Status::Unset);
        assert_eq!(told_second.parent_span_id, told_first.span_context.span_id());
        assert_eq!(told_second.span_context.trace_id(), told_first.span_context.trace_id());
        assert_eq!(told_second.status, Status::error("why"));
        let header = second.context().to_string();
        assert!(header.contains(&told_second.span_context.span_id().to_string()), "{header}");
    }

    #[test]
    fn a_collector_is_named_by_an_http_url_or_not_at_all() {
        assert_eq!(parse_endpoint("http://localhost:4318/").as_deref(), Ok("http://localhost:4318"));
        assert_eq!(parse_endpoint("").as_deref(), Ok(""));
        for wrong in ["localhost:4318", "grpc://localhost:4317", "http://"] {
            assert!(parse_endpoint(wrong).is_err(), "{wrong}");
        }
    }
}
