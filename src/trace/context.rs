//! The W3C trace context that connects all records about one vehicle, as OpenTelemetry's propagator reads and writes
//! it (<https://www.w3.org/TR/trace-context/>).

use std::borrow::Cow;
use std::sync::LazyLock;

use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use opentelemetry_sdk::propagation::TraceContextPropagator;

/// The maximum size in bytes of a `tracestate` that is passed on. A vendor must expect that a longer one is dropped
/// (<https://www.w3.org/TR/trace-context/#tracestate-limits>).
const MAX_STATE: usize = 512;

static PROPAGATOR: LazyLock<TraceContextPropagator> = LazyLock::new(TraceContextPropagator::new);

/// A step of a trace.
#[derive(Clone, Debug)]
pub struct TraceContext {
    pub(super) trace_id: TraceId,
    /// The id of the current step, which is the parent of the next one.
    pub(super) span_id: SpanId,
    flags: TraceFlags,
    /// What the tracing systems of earlier steps add, if anything. Boxed, because it is rare.
    state: Option<Box<TraceState>>,
}

/// The headers of HTTP and Kafka that carry a trace context.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceHeaders<'a> {
    pub parent: Cow<'a, str>,
    /// Absent when it is empty.
    pub state: Cow<'a, str>,
}

impl TraceHeaders<'_> {
    /// The name of the header with the trace and the step.
    pub const PARENT: &'static str = "traceparent";
    /// The name of the header with what tracing systems add.
    pub const STATE: &'static str = "tracestate";
}

impl<'a> TraceHeaders<'a> {
    /// Returns the headers with these values. A value that is not UTF-8 counts as absent.
    pub fn read(parent: Option<&'a [u8]>, state: Option<&'a [u8]>) -> Self {
        let text =
            |value: Option<&'a [u8]>| value.and_then(|bytes| str::from_utf8(bytes).ok()).unwrap_or("").into();
        Self { parent: text(parent), state: text(state) }
    }
}

impl Extractor for TraceHeaders<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let value = match key {
            Self::PARENT => &self.parent,
            Self::STATE => &self.state,
            _ => return None,
        };
        Some(value.as_ref()).filter(|value| !value.is_empty())
    }

    fn keys(&self) -> Vec<&str> {
        vec![Self::PARENT, Self::STATE]
    }
}

impl Injector for TraceHeaders<'_> {
    fn set(&mut self, key: &str, value: String) {
        match key {
            Self::PARENT => self.parent = value.into(),
            Self::STATE => self.state = value.into(),
            _ => {}
        }
    }
}

impl TraceContext {
    /// Starts a new trace.
    pub fn new_root() -> Self {
        Self {
            trace_id: TraceId::from(rand::random_range(1..=u128::MAX)),
            span_id: new_span_id(),
            flags: TraceFlags::SAMPLED,
            state: None,
        }
    }

    /// Returns the step that `headers` name, unless they are absent or malformed.
    pub(super) fn extract(headers: &TraceHeaders<'_>) -> Option<Self> {
        let context = PROPAGATOR.extract_with_context(&Context::new(), headers);
        let (span, state) = (context.span(), &headers.state);
        let found = span.span_context();
        let kept = !state.is_empty() && state.len() <= MAX_STATE && *found.trace_state() != TraceState::NONE;
        found.is_valid().then(|| Self {
            trace_id: found.trace_id(),
            span_id: found.span_id(),
            flags: found.trace_flags(),
            state: kept.then(|| Box::new(found.trace_state().clone())),
        })
    }

    /// Returns the headers for the next step.
    pub fn headers(&self) -> TraceHeaders<'static> {
        let mut headers = TraceHeaders::default();
        PROPAGATOR
            .inject_context(&Context::new().with_remote_span_context(self.span_context()), &mut headers);
        headers
    }

    pub(super) fn span_context(&self) -> SpanContext {
        let state = self.state.as_deref().cloned().unwrap_or(TraceState::NONE);
        SpanContext::new(self.trace_id, self.span_id, self.flags, false, state)
    }

    /// Returns the context of the next step in the same trace.
    #[must_use]
    pub(super) fn into_child(self) -> Self {
        Self { span_id: new_span_id(), ..self }
    }

    /// Returns whether the origin of the trace wants it to be recorded.
    pub(super) fn is_sampled(&self) -> bool {
        self.flags.is_sampled()
    }
}

fn new_span_id() -> SpanId {
    SpanId::from(rand::random_range(1..=u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXAMPLE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn extract(parent: &str, state: &str) -> Option<TraceContext> {
        TraceContext::extract(&TraceHeaders { parent: parent.into(), state: state.into() })
    }

    #[test]
    fn a_child_keeps_the_trace_and_its_state_and_changes_the_parent() {
        let parent = extract(EXAMPLE, "vendor=1, other@system=two").unwrap();
        let child = parent.clone().into_child();
        assert_eq!(child.trace_id, parent.trace_id);
        assert_ne!(child.span_id, parent.span_id);
        assert!(child.is_sampled());
        assert_eq!(child.headers().state, "vendor=1,other@system=two");
    }

    #[test]
    fn a_state_that_is_malformed_or_too_long_is_dropped_and_the_trace_goes_on() {
        let long = format!("vendor={}", "v".repeat(MAX_STATE));
        for state in ["", "no pair", "Vendor=1", "a=b=c", &long] {
            let context = extract(EXAMPLE, state).unwrap();
            assert_eq!(
                context.headers(),
                TraceHeaders { parent: EXAMPLE.into(), state: "".into() },
                "{state}"
            );
        }
    }

    #[test]
    fn malformed_values_are_refused() {
        for text in [
            "",
            "00",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-extra",
        ] {
            assert!(extract(text, "vendor=1").is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_written_context_is_read_back(trace_id in 1..=u128::MAX, span_id in 1..=u64::MAX, sampled: bool) {
            let flags = if sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
            let (trace_id, span_id) = (TraceId::from(trace_id), SpanId::from(span_id));
            let headers = TraceContext { trace_id, span_id, flags, state: None }.headers();
            let read = TraceContext::extract(&headers).unwrap();
            prop_assert_eq!((read.trace_id, read.span_id, read.flags), (trace_id, span_id, flags));
        }

        #[test]
        fn no_text_causes_a_panic(parent in "\\PC*", state in "\\PC*") {
            let _ = extract(&parent, &state);
            let _ = extract(EXAMPLE, &state).unwrap().headers();
        }
    }
}
