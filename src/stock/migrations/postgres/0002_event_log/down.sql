-- Restores the outbox for an older release and removes this migration from the journal: see docs/UPGRADING.md. First
-- stop every instance of this release with SIGTERM, which makes the position exact. After a crash, up to one second
-- of events may be published again.

-- A separate transaction: psql continues after an error, which must not drop events that were not moved.
BEGIN;

LOCK TABLE vehicles IN SHARE ROW EXCLUSIVE MODE;
LOCK TABLE outbox IN SHARE ROW EXCLUSIVE MODE;

DO $$
DECLARE
    relay text;
BEGIN
    IF EXISTS (SELECT FROM relay_failure WHERE NOT requeued) THEN
        RAISE EXCEPTION 'relay_failure holds events that could not be encoded, which an older release would stop at'
            USING HINT = 'Resolve them first: vehicle-platform audit lists them.';
    END IF;
    SELECT holder INTO relay FROM relay_lease WHERE holder IS NOT NULL;
    IF FOUND THEN
        RAISE WARNING 'relay % did not end gracefully: what it published last may be published again', relay;
    END IF;
END $$;

DROP TRIGGER append_to_event_log ON outbox;
INSERT INTO outbox (vin, event, traceparent, batch)
    SELECT vin, event, traceparent, batch
    FROM event_log LEFT JOIN outbox_claim ON log_id = id
    WHERE id > COALESCE((SELECT last_id FROM relay_position ORDER BY moved_at DESC LIMIT 1), 0)
    ORDER BY id;

DROP TRIGGER insert_in_commit_order ON vehicles;
DROP TABLE outbox_claim, relay_failure, relay_position, relay_lease, event_log;
DROP FUNCTION append_to_event_log, insert_in_commit_order;
-- 0004 adds a column to event_log, which is dropped.
DELETE FROM __diesel_schema_migrations WHERE version IN ('0002', '0004');

COMMIT;
