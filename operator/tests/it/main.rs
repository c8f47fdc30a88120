//! Integration tests of the operator, in one binary.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod accepted;
mod access;
mod argocd;
mod bindings;
mod client;
mod cluster;
mod crash;
mod crunchy;
mod drift;
mod election;
mod exporters;
mod exposure;
mod feasible;
mod files;
mod generated;
mod golden;
mod lifecycle;
mod limits;
mod manners;
mod monitoring;
mod optional;
mod persesdev;
mod plan;
mod pods;
mod pooler;
mod providers;
mod rotation;
mod samples;
mod seed;
mod sign_in;
mod sizing;
mod suspension;
mod turns;
mod validate;
mod waits;
