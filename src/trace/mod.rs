//! One trace follows a vehicle through all roles; each step that a role takes is a span of it.

mod context;
mod export;

use std::time::SystemTime;

pub use context::TraceContext;
pub use export::{TraceArgs, finish, init};
pub use opentelemetry::trace::SpanKind;
use opentelemetry::{KeyValue, Value};

/// A step of a trace, from its beginning on. One that is dropped before its end is never told; one that is taken again,
/// because it was not committed, is told again.
///
/// As small as that, because an estimator holds one for each vehicle that waits.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    context: TraceContext,
    /// The step that it follows.
    parent: Option<[u8; 8]>,
    began: SystemTime,
}

impl Span {
    /// The next step of the trace that `traceparent` names; the first one of a new trace when it names none, as the
    /// recommendation asks of a receiver that cannot parse it.
    pub fn follow(traceparent: Option<&[u8]>) -> Self {
        let parent = traceparent
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .and_then(|text| text.parse::<TraceContext>().ok());
        let context = parent.map_or_else(TraceContext::new_root, TraceContext::child);
        Self { context, parent: parent.map(|parent| parent.parent_id), began: SystemTime::now() }
    }

    /// What the next step has to follow.
    pub fn context(&self) -> &TraceContext {
        &self.context
    }

    /// The step is done: it goes to the collector, where there is one. Never waits.
    pub fn end(self, describe: impl FnOnce() -> Description) {
        export::send(self, describe);
    }
}

/// What a step was, in the terms of OpenTelemetry's semantic conventions
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

    /// Marks the step as failed, for this reason.
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
    fn a_step_follows_the_trace_that_is_named_and_begins_one_otherwise() {
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
