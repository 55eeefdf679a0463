//! Distributed tracing: one trace follows a vehicle through all roles, and each step of a role is a span.

mod collector;
mod context;
mod export;

use std::time::SystemTime;

pub use context::TraceContext;
pub use export::{TraceArgs, finish, init};
pub use opentelemetry::trace::SpanKind;
use opentelemetry::{KeyValue, Value};

/// A started step of a trace.
///
/// A step that is dropped before its end is never exported. A step that is repeated, because its work was not
/// committed, is exported again. The type is small because an estimator holds one for every waiting vehicle.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    context: TraceContext,
    /// The preceding step.
    parent: Option<[u8; 8]>,
    began: SystemTime,
}

impl Span {
    /// Starts the next step of the trace in `traceparent`. Starts a new trace when there is none or it is malformed,
    /// as the W3C recommendation requires.
    pub fn follow(traceparent: Option<&[u8]>) -> Self {
        let parent = traceparent
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .and_then(|text| text.parse::<TraceContext>().ok());
        let context = parent.map_or_else(TraceContext::new_root, TraceContext::child);
        Self { context, parent: parent.map(|parent| parent.parent_id), began: SystemTime::now() }
    }

    /// Returns the context that the next step follows.
    pub fn context(&self) -> &TraceContext {
        &self.context
    }

    /// Ends the step and queues it for the collector, if one is configured. Never blocks.
    pub fn end(self, describe: impl FnOnce() -> Description) {
        export::send(self, describe);
    }
}

/// The description of a step in the terms of OpenTelemetry's semantic conventions
/// (<https://opentelemetry.io/docs/specs/semconv/>).
#[derive(Debug)]
pub struct Description {
    kind: SpanKind,
    name: String,
    attributes: Vec<KeyValue>,
    error: Option<String>,
}

impl Description {
    pub fn new(kind: SpanKind, name: String) -> Self {
        Self { kind, name, attributes: Vec::new(), error: None }
    }

    #[must_use]
    pub fn with(mut self, attribute: &'static str, value: impl Into<Value>) -> Self {
        self.attributes.push(KeyValue::new(attribute, value));
        self
    }

    /// Marks the step as failed, with the reason.
    #[must_use]
    pub fn failed(mut self, reason: &str) -> Self {
        self.error = Some(reason.to_owned());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_follows_the_given_trace_and_starts_a_new_one_otherwise() {
        let first = Span::follow(None);
        assert_eq!(first.parent, None);
        let next = Span::follow(Some(first.context().to_string().as_bytes()));
        assert_eq!(next.parent, Some(first.context.parent_id));
        assert_eq!(next.context().trace_id, first.context().trace_id);
        for wrong in [&b"00-abc"[..], b"\xff"] {
            let begun = Span::follow(Some(wrong));
            assert_eq!(begun.parent, None);
            assert_ne!(begun.context().trace_id, first.context().trace_id);
        }
    }
}
