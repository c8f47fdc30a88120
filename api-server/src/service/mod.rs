//! Use cases: the order of validation, cache, store and upstream. Knows nothing of HTTP.

pub mod admin;
pub mod provisioning;
pub mod references;
pub mod resources;
