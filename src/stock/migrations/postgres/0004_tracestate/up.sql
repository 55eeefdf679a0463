-- What the tracing systems of the client add to the trace (W3C tracestate). An older release that is still running
-- inserts none.
ALTER TABLE event_log ADD COLUMN tracestate TEXT;
