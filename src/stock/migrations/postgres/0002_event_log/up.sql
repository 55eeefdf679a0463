-- The outbox becomes an append-only log of events. Ids of vehicles and events become visible in ascending order, so
-- that a reader of `id > last` misses nothing. Publishing an event updates and deletes nothing.

-- Locks the tables in the order of an older release to avoid a deadlock with it.
LOCK TABLE vehicles IN SHARE ROW EXCLUSIVE MODE;
LOCK TABLE outbox IN SHARE ROW EXCLUSIVE MODE;

CREATE TABLE event_log (
    id          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Distinguishes this event from one with the same id in another history of this database.
    event_id    TEXT NOT NULL DEFAULT gen_random_uuid()::text,
    vin         TEXT NOT NULL,
    event       TEXT NOT NULL,
    traceparent TEXT NOT NULL,
    -- Set on an event that an audit appended again.
    reannounced BOOLEAN NOT NULL DEFAULT false,
    created_at  TIMESTAMPTZ NOT NULL DEFAULT now()
);

-- The relay that may publish. It holds the lease while its beat advances.
CREATE TABLE relay_lease (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    -- Part of the relay's transactional id and of its consumer group.
    identity TEXT NOT NULL,
    holder   TEXT,
    epoch    BIGINT NOT NULL DEFAULT 0,
    beat     BIGINT NOT NULL DEFAULT 0
);
INSERT INTO relay_lease (id, identity) VALUES (1, gen_random_uuid()::text);

-- The last published event for each Kafka cluster and topic.
CREATE TABLE relay_position (
    cluster  TEXT NOT NULL,
    topic    TEXT NOT NULL,
    last_id  BIGINT NOT NULL,
    moved_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (cluster, topic)
);

-- Events that the relay could not encode and skipped. Each is retried when a relay starts, and is appended to the log
-- again once it can be encoded.
CREATE TABLE relay_failure (
    id        BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    log_id    BIGINT NOT NULL,
    -- The destination of the relay. On another cluster, the event may not have been read yet.
    cluster   TEXT NOT NULL DEFAULT '',
    topic     TEXT NOT NULL DEFAULT '',
    -- Also stored on the Kafka cluster, which shows whether this database still has the record.
    token     TEXT NOT NULL DEFAULT gen_random_uuid()::text,
    reason    TEXT NOT NULL,
    requeued  BOOLEAN NOT NULL DEFAULT false,
    failed_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    UNIQUE (log_id, cluster, topic)
);

-- An inserting transaction acquires the lock before it draws an id and releases it after its rows are visible.
CREATE FUNCTION insert_in_commit_order() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    waits CONSTANT text := current_setting('lock_timeout');
    top bigint;
    next bigint;
BEGIN
    IF NOT pg_try_advisory_xact_lock(508692295527) THEN
        PERFORM set_config('lock_timeout', '3s', true);
        PERFORM pg_advisory_xact_lock(508692295527);
        PERFORM set_config('lock_timeout', waits, true);
    END IF;
    -- While a client is idle in its transaction, every other insert waits.
    IF current_setting('idle_in_transaction_session_timeout') <> '10s' THEN
        PERFORM set_config('idle_in_transaction_session_timeout', '10s', true);
    END IF;
    -- A 201 must survive a crash of the server, regardless of the defaults of the role and the database.
    IF current_setting('synchronous_commit') NOT IN ('on', 'remote_apply') THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    -- A sequence that was restored or reset would draw ids below those that were published.
    IF TG_TABLE_NAME = 'vehicles' THEN
        SELECT (SELECT max(id) FROM vehicles), last_value + is_called::int INTO top, next FROM vehicles_id_seq;
        IF top >= next THEN PERFORM setval('vehicles_id_seq', top); END IF;
    ELSE
        SELECT greatest((SELECT max(id) FROM event_log), (SELECT max(last_id) FROM relay_position)),
            last_value + is_called::int INTO top, next FROM event_log_id_seq;
        IF top >= next THEN PERFORM setval('event_log_id_seq', top); END IF;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER insert_in_commit_order BEFORE INSERT ON vehicles
    FOR EACH STATEMENT EXECUTE FUNCTION insert_in_commit_order();
CREATE TRIGGER insert_in_commit_order BEFORE INSERT ON event_log
    FOR EACH STATEMENT EXECUTE FUNCTION insert_in_commit_order();
ALTER TABLE vehicles ENABLE ALWAYS TRIGGER insert_in_commit_order;
ALTER TABLE event_log ENABLE ALWAYS TRIGGER insert_in_commit_order;

-- The events that an older release had not yet published. Its claimed events come first, so that the position can
-- move past them when the batch number on the Kafka cluster shows that they were published.
CREATE TABLE outbox_claim (
    log_id BIGINT PRIMARY KEY,
    batch  BIGINT NOT NULL
);
INSERT INTO outbox_claim (log_id, batch)
    SELECT row_number() OVER (ORDER BY batch, id), batch FROM outbox WHERE batch IS NOT NULL;
INSERT INTO event_log (vin, event, traceparent)
    SELECT vin, event, traceparent FROM outbox ORDER BY batch NULLS LAST, id;
DELETE FROM outbox;

-- An older release that is still running continues to accept vehicles, and its relay finds nothing to publish.
CREATE FUNCTION append_to_event_log() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO event_log (vin, event, traceparent) VALUES (NEW.vin, NEW.event, NEW.traceparent);
    RETURN NULL;
END $$;
CREATE TRIGGER append_to_event_log BEFORE INSERT ON outbox
    FOR EACH ROW EXECUTE FUNCTION append_to_event_log();
ALTER TABLE outbox ENABLE ALWAYS TRIGGER append_to_event_log;
