//! Range queries whose windows share points: only what is missing or may have changed is asked for.
//!
//! ```text
//! window -> entry: what is missing? -> datasource -> entry with it -> answer printed from the entry
//! ```
//!
//! Invariants: a point is used only at the instant it was evaluated for (a window is never moved onto another grid); points
//! whose data may still change are used no longer than an answer for now; what is put together is what Prometheus would
//! print, text for text.

pub mod blob;
pub mod chunk;
pub mod column;
pub mod entry;
pub mod grid;
pub mod samples;
pub mod sharing;

#[cfg(test)]
mod tests;
