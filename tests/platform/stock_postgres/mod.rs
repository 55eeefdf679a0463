//! Tests the stock role on PostgreSQL under faults of servers, poolers, networks, operators and clients.
//!
//! Each test drives the executable from outside: by HTTP, signals, `/readyz` and `/metrics`. The tests start their
//! own servers from installed programs. Where these are missing, the tests report that and pass, or fail when
//! `REQUIRE_ENGINES=1`. At the end, the accepted vehicles are compared with the database and the topic.

mod addresses;
mod brokers;
mod clients;
mod faults;
mod idempotency;
mod load;
mod migrations;
mod order;
mod order_kept;
mod overload;
mod partition;
mod poolers;
mod refusals;
mod stock;
mod world;
