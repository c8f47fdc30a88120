//! Operator for `PersesStack`: turns a number of users into a running, sized, self-healing dashboard service.
//!
//! ```text
//! watch -> observe (I/O) -> validate (pure) -> size (pure) -> build (pure) -> apply (I/O) -> status (pure) -> patch (I/O)
//! ```
//!
//! Read `controllers::persesstack` first. Pure modules take no client, clock, random source or environment.

pub mod admin;
pub mod api;
pub mod apply;
pub mod backoff;
pub mod bundle;
pub mod certificate;
pub mod cli;
pub mod client;
pub mod conditions;
pub mod controllers;
pub mod crd;
pub mod explain;
pub mod leader;
pub mod manager;
pub mod metrics;
pub mod plan;
pub mod rbac;
pub mod render;
pub mod run;
pub mod settings;
pub mod sizing;
pub mod table;
pub mod telemetry;
