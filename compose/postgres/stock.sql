-- Creates the user and the database of stock. The user owns its database, because stock migrates the schema, and may
-- connect to no other. The image runs this once, as the superuser, when it initializes an empty volume.
\set password `sed 's/.*:\(.*\)@.*/\1/' /run/secrets/stock-database-url`
CREATE ROLE stock LOGIN PASSWORD :'password';
CREATE DATABASE stock OWNER stock;
REVOKE ALL ON DATABASE stock, postgres, template1 FROM PUBLIC;
