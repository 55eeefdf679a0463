-- The key with which a client may repeat the request that brought the vehicle. An older release inserts none.
ALTER TABLE vehicles ADD COLUMN idempotency_key TEXT;
CREATE UNIQUE INDEX vehicles_idempotency_key ON vehicles (idempotency_key) WHERE idempotency_key IS NOT NULL;
