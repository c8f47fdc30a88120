//! Pure vocabulary of the Perses model: kinds, names, documents. No I/O, no clock, no async.

pub mod audit;
pub mod document;
pub mod duration;
pub mod kind;
pub mod lint;
pub mod name;
pub mod promql;
pub mod search;
pub mod secret;
pub mod spec;
