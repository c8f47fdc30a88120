//! Integration tests of the operator, in one binary.

mod access;
mod client;
mod cluster;
mod crash;
mod drift;
mod election;
mod files;
mod generated;
mod golden;
mod lifecycle;
mod samples;
mod validate;
