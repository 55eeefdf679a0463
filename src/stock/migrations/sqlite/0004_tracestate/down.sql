-- Removes the column for an older release, and this migration from the journal: see docs/UPGRADING.md. First stop this
-- release. Run the script with `sqlite3 -bail`, which stops at an error.
BEGIN IMMEDIATE;

ALTER TABLE event_log DROP COLUMN tracestate;
DELETE FROM __diesel_schema_migrations WHERE version = '0004';

COMMIT;
