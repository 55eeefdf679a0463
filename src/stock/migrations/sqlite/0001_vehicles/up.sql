CREATE TABLE vehicles (
    id            INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    vin           TEXT NOT NULL UNIQUE,
    model         TEXT NOT NULL,
    manufacturer  TEXT NOT NULL,
    year          INTEGER NOT NULL,
    odometer      REAL NOT NULL,
    odometer_unit TEXT NOT NULL,
    created_at    TEXT NOT NULL
);

-- The events to be published. A row carries a batch number from its claim by the relay until the brokers have
-- acknowledged it.
CREATE TABLE outbox (
    id          INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    vin         TEXT NOT NULL,
    event       TEXT NOT NULL,
    traceparent TEXT NOT NULL,
    batch       INTEGER
);
CREATE INDEX outbox_batch ON outbox (batch) WHERE batch IS NOT NULL;

-- Distinguishes this database's relay from those of other databases on the same Kafka cluster.
CREATE TABLE outbox_identity (
    id       INTEGER PRIMARY KEY NOT NULL CHECK (id = 1),
    identity TEXT NOT NULL
);
INSERT INTO outbox_identity (id, identity) VALUES (1, lower(hex(randomblob(16))));
