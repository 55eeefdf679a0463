//! Tests that one trace follows a vehicle from the request to its ad and reaches an OpenTelemetry collector.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::kafka::{header, read_all};
use crate::support::{Platform, RoleProcess, eventually, free_port, http_client, vehicle};
use actix_web::dev::ServerHandle;
use actix_web::{App, HttpResponse, HttpServer, web};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message as _;
use rdkafka::Message as _;

/// A collector that stores the received spans.
struct Collector {
    url: String,
    requests: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    server: ServerHandle,
}

impl Collector {
    fn start() -> Self {
        let requests = Arc::<Mutex<Vec<_>>>::default();
        let kept = web::Data::from(Arc::clone(&requests));
        let app = move || {
            App::new().app_data(kept.clone()).app_data(web::PayloadConfig::new(64 << 20)).route(
                "/v1/traces",
                web::post().to(
                    |kept: web::Data<Mutex<Vec<ExportTraceServiceRequest>>>, body: web::Bytes| async move {
                        kept.lock().unwrap().push(ExportTraceServiceRequest::decode(body).unwrap());
                        HttpResponse::Ok().content_type("application/x-protobuf").finish()
                    },
                ),
            )
        };
        let server = HttpServer::new(app).workers(1).disable_signals().bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://{}", server.addrs()[0]);
        let server = server.run();
        let handle = server.handle();
        tokio::spawn(server);
        Self { url, requests, server: handle }
    }

    /// Returns the spans of a trace with their service names, sorted by start time.
    fn trace(&self, id: &str) -> Vec<(String, Span)> {
        let mut spans = Vec::new();
        for resource_spans in self.requests.lock().unwrap().iter().flat_map(|request| &request.resource_spans)
        {
            let attributes = &resource_spans.resource.as_ref().unwrap().attributes;
            let service = attributes.iter().find(|attribute| attribute.key == "service.name").unwrap();
            let Some(Value::StringValue(service)) = service.value.clone().unwrap().value else { panic!() };
            let all = resource_spans.scope_spans.iter().flat_map(|scope| &scope.spans);
            let ours = all.filter(|span| hex(&span.trace_id) == id).cloned();
            spans.extend(ours.map(|span| (service.clone(), span)));
        }
        spans.sort_by_key(|(_, span)| span.start_time_unix_nano);
        spans
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

async fn post(platform: &Platform, vin: &str, flags: &str) {
    post_with_states(platform, vin, flags, &[]).await;
}

async fn post_with_states(platform: &Platform, vin: &str, flags: &str, states: &[&str]) {
    let request = http_client()
        .post(format!("{}/stock", platform.stock()))
        .header("traceparent", format!("00-{TRACE}-{CALLER}-{flags}"));
    let answer = states
        .iter()
        .fold(request, |request, state| request.header("tracestate", *state))
        .json(&vehicle(vin))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_follows_a_vehicle_through_all_roles_to_a_collector() {
    let collector = Collector::start();
    // Uses two processes: dev without an estimator, and a separate estimator.
    let roles = ["--roles", "stock,ads", "--otlp-endpoint", &collector.url];
    let platform = Platform::start(&roles).await;
    let port = free_port().to_string();
    let estimate = [
        &["estimate", "--processing-time", "300ms", "--port", &port][..],
        &["--kafka-bootstrap-servers", platform.kafka(), "--schema-registry-url", platform.registry()],
        &["--topic-replication-factor", "1", "--topic-min-insync-replicas", "1"],
        &["--otlp-endpoint", &collector.url],
    ];
    let _estimator = RoleProcess::spawn(&estimate.concat());
    post(&platform, "traced", "01").await;
    platform.await_ads(1).await;

    let spans = eventually("the whole trace", async || {
        let spans = collector.trace(TRACE);
        (spans.len() >= 4).then_some(spans)
    })
    .await;
    let exported: Vec<_> =
        spans.iter().map(|(service, span)| (service.as_str(), span.name.as_str(), span.kind())).collect();
    assert_eq!(
        exported,
        [
            ("dev", "POST /stock", SpanKind::Server),
            ("dev", "send stock.vehicle-created", SpanKind::Producer),
            ("estimate", "process stock.vehicle-created", SpanKind::Consumer),
            ("dev", "process stock.vehicle-processed", SpanKind::Consumer),
        ]
    );
    let mut parent = CALLER.to_owned();
    for (_, span) in &spans {
        assert_eq!(hex(&span.parent_span_id), parent, "{}", span.name);
        assert!(span.status.clone().unwrap_or_default().message.is_empty());
        parent = hex(&span.span_id);
    }
    let (_, estimate) = &spans[2];
    let took = estimate.end_time_unix_nano - estimate.start_time_unix_nano;
    assert!(took >= 300_000_000, "the span of the estimate has {took} ns");
    assert!(estimate.attributes.iter().any(|attribute| attribute.key == "messaging.kafka.message.key"));
    collector.server.stop(false).await;
    platform.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsampled_trace_is_propagated_but_not_exported() {
    let collector = Collector::start();
    let platform = Platform::start(&["--processing-time", "0s", "--otlp-endpoint", &collector.url]).await;
    post(&platform, "quiet", "00").await;
    platform.await_ads(1).await;
    let records = read_all(platform.kafka(), "stock.vehicle-processed").await;
    let carried = header(&records[0], "traceparent").unwrap();
    assert!(carried.starts_with(&format!("00-{TRACE}-")) && carried.ends_with("-00"), "{carried}");
    // The remaining spans are exported when the process ends.
    platform.finish().await;
    assert_eq!(collector.trace(TRACE), []);
    assert!(collector.requests.lock().unwrap().is_empty());
    collector.server.stop(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_of_a_trace_reaches_both_topics() {
    let platform = Platform::start(&["--processing-time", "0s"]).await;
    post_with_states(&platform, "stateful", "01", &["vendor=1, other@system=two", "third=3"]).await;
    post_with_states(&platform, "stateless", "01", &[]).await;
    post_with_states(&platform, "malformed", "01", &["no pair"]).await;
    platform.await_ads(3).await;
    for topic in ["stock.vehicle-created", "stock.vehicle-processed"] {
        let records = read_all(platform.kafka(), topic).await;
        assert_eq!(records.len(), 3, "{topic}");
        for record in records {
            let state = header(&record, "tracestate");
            match record.key().unwrap() {
                b"stateful" => assert_eq!(state.unwrap(), "vendor=1,other@system=two,third=3", "{topic}"),
                _ => assert_eq!(state, None, "{topic}"),
            }
            assert!(header(&record, "traceparent").unwrap().starts_with(&format!("00-{TRACE}-")), "{topic}");
        }
    }
    platform.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_does_not_answer_blocks_nothing() {
    // Connections wait in the listener's queue and are never accepted.
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let platform = Platform::start(&["--processing-time", "0s", "--otlp-endpoint", &url]).await;
    // Four spans each, which exceeds the queue of 2,048.
    for number in 0..700 {
        platform.accept(&format!("vin-{number}")).await;
    }
    platform.await_ads(700).await;
    platform.await_empty_outbox().await;
    let began = Instant::now();
    platform.end().await;
    // One second for the last spans, plus slack for a busy machine.
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}
