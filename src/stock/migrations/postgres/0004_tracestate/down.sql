-- Removes the column for an older release, and this migration from the journal: see docs/UPGRADING.md. First stop every
-- instance of this release.
BEGIN;

SET LOCAL lock_timeout = '3s';
ALTER TABLE event_log DROP COLUMN tracestate;
DELETE FROM __diesel_schema_migrations WHERE version = '0004';

COMMIT;
