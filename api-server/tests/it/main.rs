//! Integration tests of the server: the real router, real stores, real clients.

#![allow(unreachable_pub, reason = "one binary: nothing of it is reachable from outside")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod audit;
mod auth;
mod backends;
mod bad_input;
mod browser;
mod cache;
mod differential;
mod edge;
mod file_store;
mod first_start;
mod fuzz;
mod generated;
mod http;
mod keys;
mod kubernetes;
mod lease;
mod limits_file;
mod oracle;
mod oracle_series;
mod outages;
mod percli;
mod pod;
mod pooler;
mod postgres;
mod processes;
mod programs;
mod protect;
mod provisioning;
mod proxy;
mod query;
mod query_control;
mod query_pods;
mod query_stale;
mod rbac;
mod redis_cluster;
mod replica;
mod replicas;
mod resources;
mod rollout;
mod rotation;
mod routes;
mod sign_in;
mod store;
mod tenancy;
mod together;
mod traces;
mod transfer;
mod upstream;
mod validation;
mod view;
