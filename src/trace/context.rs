//! The W3C trace context that connects all records about one vehicle, as OpenTelemetry's propagator reads and writes
//! it (<https://www.w3.org/TR/trace-context/>).

use std::borrow::Cow;
use std::sync::LazyLock;

use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use opentelemetry_sdk::propagation::TraceContextPropagator;

/// The maximum size in bytes of a `tracestate` that is passed on, and the size from which an entry is left out first
/// (<https://www.w3.org/TR/trace-context/#tracestate-limits>).
const MAX_STATE: usize = 512;
const LONG_ENTRY: usize = 128;

static PROPAGATOR: LazyLock<TraceContextPropagator> = LazyLock::new(TraceContextPropagator::new);

/// A step of a trace.
#[derive(Clone, Debug)]
pub struct TraceContext {
    pub(super) trace_id: TraceId,
    /// The id of the current step, which is the parent of the next one.
    pub(super) span_id: SpanId,
    flags: TraceFlags,
    /// What the tracing systems of earlier steps add, as they wrote it; usually empty.
    state: Box<str>,
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
            state: Box::default(),
        }
    }

    /// Returns the step that `headers` name, unless they are absent or malformed.
    pub(super) fn extract(headers: &TraceHeaders<'_>) -> Option<Self> {
        // The propagator also accepts fields of other lengths.
        if !is_parent(headers.parent.as_bytes()) {
            return None;
        }
        let context = PROPAGATOR.extract_with_context(&Context::new(), headers);
        let span = context.span();
        let found = span.span_context();
        found.is_valid().then(|| Self {
            trace_id: found.trace_id(),
            span_id: found.span_id(),
            flags: found.trace_flags(),
            state: truncated(&found.trace_state().header()),
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
        // Was written by a `TraceState`.
        let state = self.state.parse().unwrap_or(TraceState::NONE);
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

/// Returns whether `text` has the form of a `traceparent`: of version 0, or of a later one with further fields.
fn is_parent(text: &[u8]) -> bool {
    const FORM: &[u8] = b"xx-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx-xxxxxxxxxxxxxxxx-xx";
    let Some((form, further)) = text.split_at_checked(FORM.len()) else { return false };
    let fits = |(expected, byte): (&u8, &u8)| match expected {
        b'x' => byte.is_ascii_digit() || (b'a'..=b'f').contains(byte),
        separator => byte == separator,
    };
    let is_later = !form.starts_with(b"00") && further.starts_with(b"-");
    FORM.iter().zip(form).all(fits) && (further.is_empty() || is_later)
}

/// Returns the entries of a `tracestate` that fit: without those that are malformed, then without long ones, then
/// without the last ones, as the W3C recommendation asks.
fn truncated(state: &str) -> Box<str> {
    // The propagator accepts an empty key and any character in a value.
    let is_entry = |entry: &&str| {
        let printable = entry.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        printable && entry.split_once('=').is_some_and(|(key, value)| !key.is_empty() && !value.is_empty())
    };
    let mut entries: Vec<_> = state.split(',').filter(is_entry).collect();
    let size = |entries: &[&str]| entries.iter().map(|entry| entry.len() + 1).sum::<usize>();
    if size(&entries) > MAX_STATE + 1 {
        entries.retain(|entry| entry.len() <= LONG_ENTRY);
    }
    while size(&entries) > MAX_STATE + 1 {
        entries.pop();
    }
    entries.join(",").into()
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
    fn a_malformed_state_is_dropped_and_the_trace_goes_on() {
        for state in ["", "no pair", "Vendor=1", "a=b=c", "=x", "x=", "a=\u{1b}[31m", "a=\u{fc}"] {
            let context = extract(EXAMPLE, state).unwrap();
            assert_eq!(
                context.headers(),
                TraceHeaders { parent: EXAMPLE.into(), state: "".into() },
                "{state}"
            );
        }
        assert_eq!(extract(EXAMPLE, "=x,a=1").unwrap().headers().state, "a=1");
    }

    #[test]
    fn a_long_state_loses_long_entries_and_then_the_last_ones() {
        let long = format!("long={}", "v".repeat(200));
        let entries: Vec<_> = (0..10).map(|number| format!("k{number}={}", "v".repeat(60))).collect();
        let state = extract(EXAMPLE, &format!("{long},{}", entries.join(","))).unwrap().headers().state;
        assert_eq!(state, entries.get(..8).unwrap().join(","));
        let short = format!("{long},a=1");
        assert_eq!(extract(EXAMPLE, &short).unwrap().headers().state, short);
        let full = entries.get(..7).unwrap().join(",") + &format!(",z={}", "v".repeat(62));
        assert_eq!(full.len(), MAX_STATE);
        assert_eq!(extract(EXAMPLE, &full).unwrap().headers().state, full);
    }

    #[test]
    fn malformed_values_are_refused() {
        for text in [
            "",
            "00",
            "00-1-1-1",
            "0-+a-+b-1",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
            " 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
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
            let headers = TraceContext { trace_id, span_id, flags, state: Box::default() }.headers();
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
