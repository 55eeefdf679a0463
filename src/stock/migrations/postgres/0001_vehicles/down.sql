DROP TABLE outbox_identity;
DROP TABLE outbox;
DROP TABLE vehicles;
