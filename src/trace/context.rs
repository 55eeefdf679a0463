//! The W3C trace context that connects all records about one vehicle.

use std::fmt;
use std::str::FromStr;

/// A `traceparent` (<https://www.w3.org/TR/trace-context/#traceparent-header>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    pub(super) trace_id: [u8; 16],
    /// The id of the current step, which is the parent of the next one.
    pub(super) parent_id: [u8; 8],
    flags: u8,
}

impl TraceContext {
    /// The name of the header in HTTP and in Kafka.
    pub const HEADER: &str = "traceparent";

    const SAMPLED: u8 = 1;

    /// Starts a new trace.
    pub fn new_root() -> Self {
        Self {
            trace_id: rand::random_range(1..=u128::MAX).to_be_bytes(),
            parent_id: Self::new_id(),
            flags: Self::SAMPLED,
        }
    }

    /// Returns the context of the next step in the same trace.
    #[must_use]
    pub(super) fn child(self) -> Self {
        Self { parent_id: Self::new_id(), ..self }
    }

    fn new_id() -> [u8; 8] {
        rand::random_range(1..=u64::MAX).to_be_bytes()
    }

    /// Returns whether the origin of the trace wants it to be recorded.
    pub(super) fn is_sampled(self) -> bool {
        self.flags & Self::SAMPLED != 0
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace_id, parent_id) = (u128::from_be_bytes(self.trace_id), u64::from_be_bytes(self.parent_id));
        write!(f, "00-{trace_id:032x}-{parent_id:016x}-{:02x}", self.flags)
    }
}

/// The error for a value that is not a `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a W3C traceparent")]
pub struct InvalidTraceContext;

impl FromStr for TraceContext {
    type Err = InvalidTraceContext;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split('-');
        let version = hex(parts.next(), 2)?;
        let trace_id = hex(parts.next(), 32)?;
        let parent_id = hex(parts.next(), 16)?;
        let flags = hex(parts.next(), 2)?;
        // Version 0 has exactly four fields; a later one may append more; 255 is forbidden.
        let well_formed = match version {
            0 => parts.next().is_none(),
            255 => false,
            _ => true,
        };
        if !well_formed || trace_id == 0 || parent_id == 0 {
            return Err(InvalidTraceContext);
        }
        let parent_id = u64::try_from(parent_id).map_err(|_| InvalidTraceContext)?;
        let flags = u8::try_from(flags).map_err(|_| InvalidTraceContext)?;
        Ok(Self { trace_id: trace_id.to_be_bytes(), parent_id: parent_id.to_be_bytes(), flags })
    }
}

fn hex(field: Option<&str>, digits: usize) -> Result<u128, InvalidTraceContext> {
    let field = field.ok_or(InvalidTraceContext)?;
    let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if field.len() != digits || !field.bytes().all(lower_hex) {
        return Err(InvalidTraceContext);
    }
    u128::from_str_radix(field, 16).map_err(|_| InvalidTraceContext)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXAMPLE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_child_keeps_the_trace_and_changes_the_parent() {
        let parent: TraceContext = EXAMPLE.parse().unwrap();
        let child = parent.child();
        assert_eq!(child.trace_id, parent.trace_id);
        assert_ne!(child.parent_id, parent.parent_id);
        assert!(child.is_sampled());
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
            assert_eq!(text.parse::<TraceContext>(), Err(InvalidTraceContext), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_written_context_is_read_back(trace_id in 1..=u128::MAX, parent_id in 1..=u64::MAX, flags: u8) {
            let (trace_id, parent_id) = (trace_id.to_be_bytes(), parent_id.to_be_bytes());
            let context = TraceContext { trace_id, parent_id, flags };
            prop_assert_eq!(context.to_string().parse(), Ok(context));
        }

        #[test]
        fn no_text_causes_a_panic(text in "\\PC*") {
            let _ = text.parse::<TraceContext>();
        }
    }
}
