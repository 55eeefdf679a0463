-- The outbox becomes an append-only log of events: publishing an event updates and deletes nothing. SQLite has one
-- writer at a time, so ids become visible in ascending order.
CREATE TABLE event_log (
    id          INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    -- Distinguishes this event from one with the same id in another history of this database.
    event_id    TEXT NOT NULL DEFAULT (lower(hex(randomblob(16)))),
    vin         TEXT NOT NULL,
    event       TEXT NOT NULL,
    traceparent TEXT NOT NULL,
    -- Set on an event that an audit appended again.
    reannounced BOOLEAN NOT NULL DEFAULT 0,
    -- In seconds since the Unix epoch.
    created_at  REAL NOT NULL DEFAULT (unixepoch('subsec'))
);

-- The relay that may publish. It holds the lease while its beat advances.
CREATE TABLE relay_lease (
    id       INTEGER PRIMARY KEY NOT NULL CHECK (id = 1),
    -- Part of the relay's transactional id and of its consumer group.
    identity TEXT NOT NULL,
    holder   TEXT,
    epoch    INTEGER NOT NULL DEFAULT 0,
    beat     INTEGER NOT NULL DEFAULT 0
);
INSERT INTO relay_lease (id, identity) VALUES (1, lower(hex(randomblob(16))));

-- The last published event for each Kafka cluster and topic.
CREATE TABLE relay_position (
    cluster  TEXT NOT NULL,
    topic    TEXT NOT NULL,
    last_id  INTEGER NOT NULL,
    moved_at REAL NOT NULL DEFAULT (unixepoch('subsec')),
    PRIMARY KEY (cluster, topic)
);

-- Events that the relay could not encode and skipped. Each is retried when a relay starts, and is appended to the log
-- again once it can be encoded.
CREATE TABLE relay_failure (
    id        INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    log_id    INTEGER NOT NULL,
    -- The destination of the relay. On another cluster, the event may not have been read yet.
    cluster   TEXT NOT NULL DEFAULT '',
    topic     TEXT NOT NULL DEFAULT '',
    -- Also stored on the Kafka cluster, which shows whether this database still has the record.
    token     TEXT NOT NULL DEFAULT (lower(hex(randomblob(16)))),
    reason    TEXT NOT NULL,
    requeued  BOOLEAN NOT NULL DEFAULT 0,
    failed_at REAL NOT NULL DEFAULT (unixepoch('subsec')),
    UNIQUE (log_id, cluster, topic)
);

-- The events that an older release had not yet published. Its claimed events come first, so that the position can
-- move past them when the batch number on the Kafka cluster shows that they were published.
CREATE TABLE outbox_claim (
    log_id INTEGER PRIMARY KEY NOT NULL,
    batch  INTEGER NOT NULL
);
INSERT INTO outbox_claim (log_id, batch)
    SELECT row_number() OVER (ORDER BY batch, id), batch FROM outbox WHERE batch IS NOT NULL;
INSERT INTO event_log (vin, event, traceparent)
    SELECT vin, event, traceparent FROM outbox ORDER BY batch IS NULL, batch, id;
DELETE FROM outbox;

-- An older release that runs on this file continues to accept vehicles, and its relay finds nothing to publish.
CREATE TRIGGER append_to_event_log BEFORE INSERT ON outbox BEGIN
    INSERT INTO event_log (vin, event, traceparent) VALUES (NEW.vin, NEW.event, NEW.traceparent);
    SELECT RAISE(IGNORE);
END;
