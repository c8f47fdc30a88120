//! Use cases: the order of validation, cache, store and upstream. Knows nothing of HTTP.

pub mod admin;
pub mod datasources;
pub mod encode;
pub(crate) mod envelope;
pub mod ephemeral;
pub mod flush;
pub mod limits_file;
mod listing;
pub mod projects;
pub mod provisioning;
pub mod references;
pub mod resources;
pub mod search;
pub mod sign_in;
pub mod validation;
