-- Restores the outbox for an older release and removes this migration from the journal: see docs/UPGRADING.md. First
-- stop this release with SIGTERM, which makes the position exact. Run the script with `sqlite3 -bail`, which stops at
-- an error.
BEGIN IMMEDIATE;

-- An older release would stop at an event that cannot be encoded. `vehicle-platform audit` lists such events.
CREATE TEMP TABLE refusal (
    unresolved INTEGER CONSTRAINT relay_failure_holds_events_that_could_not_be_encoded CHECK (unresolved = 0)
);
INSERT INTO refusal SELECT count(*) FROM relay_failure WHERE NOT requeued;
DROP TABLE refusal;

DROP TRIGGER append_to_event_log;
INSERT INTO outbox (vin, event, traceparent, batch)
    SELECT vin, event, traceparent, batch
    FROM event_log LEFT JOIN outbox_claim ON log_id = event_log.id
    WHERE event_log.id > COALESCE((SELECT last_id FROM relay_position ORDER BY moved_at DESC LIMIT 1), 0)
    ORDER BY event_log.id;
DROP TABLE outbox_claim;
DROP TABLE relay_failure;
DROP TABLE relay_position;
DROP TABLE relay_lease;
DROP TABLE event_log;
-- 0004 adds a column to event_log, which is dropped.
DELETE FROM __diesel_schema_migrations WHERE version IN ('0002', '0004');

COMMIT;
