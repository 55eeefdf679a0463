CREATE TABLE ads (
    id            TEXT PRIMARY KEY NOT NULL,
    published_at  TEXT NOT NULL,
    vehicle_id    INTEGER,
    vin           TEXT NOT NULL UNIQUE,
    model         TEXT NOT NULL,
    manufacturer  TEXT NOT NULL,
    year          INTEGER NOT NULL,
    odometer      REAL NOT NULL,
    odometer_unit TEXT NOT NULL,
    price         REAL NOT NULL,
    price_unit    TEXT NOT NULL
);
