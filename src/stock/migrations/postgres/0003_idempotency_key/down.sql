-- Removes the keys for an older release, and this migration from the journal: see docs/UPGRADING.md. First stop every
-- instance of this release.
BEGIN;

SET LOCAL lock_timeout = '3s';
-- Drops the index as well.
ALTER TABLE vehicles DROP COLUMN idempotency_key;
DELETE FROM __diesel_schema_migrations WHERE version = '0003';

COMMIT;
