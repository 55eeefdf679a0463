-- Removes the keys for an older release, and this migration from the journal: see docs/UPGRADING.md. First stop this
-- release. Run the script with `sqlite3 -bail`, which stops at an error.
BEGIN IMMEDIATE;

DROP INDEX vehicles_idempotency_key;
ALTER TABLE vehicles DROP COLUMN idempotency_key;
DELETE FROM __diesel_schema_migrations WHERE version = '0003';

COMMIT;
