//! Native authorization: the roles and bindings of this server (Perses v0.54).
//!
//! ```text
//! documents -> facts (pure) -> graph (pure, immutable) -> what a request asks
//!     ^- keeper (I/O): loads, follows the changes of all pods, swaps the graph
//! ```
//!
//! Invariants: a check takes no lock and asks nobody; before the first graph every check is an error; a graph is complete:
//! it is never seen while it changes. Without the store the last graph goes on answering.

mod facts;
mod grants;
mod graph;
mod keeper;
mod mapping;

pub use facts::{Facts, concerns};
pub use grants::Grants;
pub use graph::{Graph, Rules};
pub use keeper::Rbac;
pub use mapping::{claim_entry, mapped_entries};

#[cfg(test)]
mod tests;
