//! The stock role on PostgreSQL, under the faults of servers, poolers, networks, operators and clients.
//!
//! Each test drives the executable from outside: by HTTP, signals, `/readyz` and `/metrics`. The servers are the tests'
//! own, from the programs that are installed; where they are missing the tests say so, and fail when
//! `REQUIRE_ENGINES=1`. What was accepted is compared in the end with the database and with the topic.

mod addresses;
mod brokers;
mod clients;
mod faults;
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
