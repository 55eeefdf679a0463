-- The outbox becomes an append-only log of events: nothing is updated or deleted to publish an event. SQLite has one
-- writer at a time, so ids become visible in the order of their numbers.
CREATE TABLE event_log (
    id          INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    -- Distinguishes this event from one that another history of this database holds under the same id.
    event_id    TEXT NOT NULL DEFAULT (lower(hex(randomblob(16)))),
    vin         TEXT NOT NULL,
    event       TEXT NOT NULL,
    traceparent TEXT NOT NULL,
    -- Set on an event that an audit appended again.
    reannounced BOOLEAN NOT NULL DEFAULT 0,
    -- Seconds since the Unix epoch.
    created_at  REAL NOT NULL DEFAULT (unixepoch('subsec'))
);

-- The relay that may publish. It holds the lease as long as its beat moves.
CREATE TABLE relay_lease (
    id       INTEGER PRIMARY KEY NOT NULL CHECK (id = 1),
    -- Part of the relay's transactional id and of its consumer group.
    identity TEXT NOT NULL,
    holder   TEXT,
    epoch    INTEGER NOT NULL DEFAULT 0,
    beat     INTEGER NOT NULL DEFAULT 0
);
INSERT INTO relay_lease (id, identity) VALUES (1, lower(hex(randomblob(16))));

-- The last event that was published, for each Kafka cluster and topic.
CREATE TABLE relay_position (
    cluster  TEXT NOT NULL,
    topic    TEXT NOT NULL,
    last_id  INTEGER NOT NULL,
    moved_at REAL NOT NULL DEFAULT (unixepoch('subsec')),
    PRIMARY KEY (cluster, topic)
);

-- Events that the relay could not encode and left out. Each is tried again when a relay starts, and is requeued at the
-- end of the log when it can be encoded.
CREATE TABLE relay_failure (
    id        INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    log_id    INTEGER NOT NULL,
    -- Where the relay published to: on another cluster the event may be still to be read.
    cluster   TEXT NOT NULL DEFAULT '',
    topic     TEXT NOT NULL DEFAULT '',
    -- Kept on the Kafka cluster, too, so that it is clear whether this database still has the record.
    token     TEXT NOT NULL DEFAULT (lower(hex(randomblob(16)))),
    reason    TEXT NOT NULL,
    requeued  BOOLEAN NOT NULL DEFAULT 0,
    failed_at REAL NOT NULL DEFAULT (unixepoch('subsec')),
    UNIQUE (log_id, cluster, topic)
);

-- What an older release had not yet published. What it had claimed comes first, for the position to move past it when
-- the number that the release keeps on the Kafka cluster shows that it was published.
CREATE TABLE outbox_claim (
    log_id INTEGER PRIMARY KEY NOT NULL,
    batch  INTEGER NOT NULL
);
INSERT INTO outbox_claim (log_id, batch)
    SELECT row_number() OVER (ORDER BY batch, id), batch FROM outbox WHERE batch IS NOT NULL;
INSERT INTO event_log (vin, event, traceparent)
    SELECT vin, event, traceparent FROM outbox ORDER BY batch IS NULL, batch, id;
DELETE FROM outbox;

-- An older release that runs on this file goes on accepting vehicles, and its relay finds nothing to publish.
CREATE TRIGGER append_to_event_log BEFORE INSERT ON outbox BEGIN
    INSERT INTO event_log (vin, event, traceparent) VALUES (NEW.vin, NEW.event, NEW.traceparent);
    SELECT RAISE(IGNORE);
END;
