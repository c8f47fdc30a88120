//! Real backing services for tests: PostgreSQL, PgBouncer, Redis and Prometheus, on loopback, from a cached root.

pub mod root;

mod mirror;
