-- The key with which a client may repeat the request that brought the vehicle. An older release that is still running
-- inserts none.
ALTER TABLE vehicles ADD COLUMN idempotency_key TEXT;
-- Reads the table once and stays empty until the first key: rows without a key cost nothing.
CREATE UNIQUE INDEX vehicles_idempotency_key ON vehicles (idempotency_key) WHERE idempotency_key IS NOT NULL;
