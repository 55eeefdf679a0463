-- What the tracing systems of the client add to the trace (W3C tracestate). An older release inserts none.
ALTER TABLE event_log ADD COLUMN tracestate TEXT;
