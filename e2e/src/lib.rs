//! Everything around the two programs that makes them provable: a real Kubernetes on this machine, container images
//! without Docker, the backing services, and helpers for tests.
//!
//! Errors are `anyhow`: they are read by a person at a terminal, never matched on.

pub mod bench;
pub mod build;
pub mod cluster;
pub mod crds;
pub mod demo;
pub mod fixtures;
pub mod images;
pub mod load;
pub mod lua;
pub mod paths;
pub mod perses;
pub mod progress;
pub mod services;
pub mod stack;
pub mod wait;
