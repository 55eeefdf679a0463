//! Distributed tracing: one trace follows a vehicle through all roles, and each step of a role is a span.

mod collector;
mod context;
mod export;

use std::time::SystemTime;

pub use context::{TraceContext, TraceHeaders};
pub use export::{TraceArgs, finish, init};
use opentelemetry::trace::SpanId;
pub use opentelemetry::trace::SpanKind;
use opentelemetry::{KeyValue, Value};

/// A started step of a trace.
///
/// A step that is dropped before its end is never exported. A step that is repeated, because its work was not
/// committed, is exported again. The type is small because an estimator holds one for every waiting vehicle.
#[derive(Clone, Debug)]
pub struct Span {
    context: TraceContext,
    /// The preceding step.
    parent: Option<SpanId>,
    began: SystemTime,
}

impl Span {
    /// Starts the next step of the trace in `headers`. Starts a new trace when they name none or are malformed, as the
    /// W3C recommendation requires.
    pub fn follow(headers: &TraceHeaders<'_>) -> Self {
        let found = TraceContext::extract(headers);
        let parent = found.as_ref().map(|step| step.span_id);
        let context = found.map_or_else(TraceContext::new_root, TraceContext::into_child);
        Self { context, parent, began: SystemTime::now() }
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
        let first = Span::follow(&TraceHeaders::default());
        assert_eq!(first.parent, None);
        let next = Span::follow(&first.context().headers());
        assert_eq!(next.parent, Some(first.context.span_id));
        assert_eq!(next.context().trace_id, first.context().trace_id);
        for wrong in [&b"00-abc"[..], b"\xff"] {
            let begun = Span::follow(&TraceHeaders::read(Some(wrong), None));
            assert_eq!(begun.parent, None);
            assert_ne!(begun.context().trace_id, first.context().trace_id);
        }
    }
}
