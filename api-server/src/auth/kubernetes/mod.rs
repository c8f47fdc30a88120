//! The cluster decides: bearer tokens are reviewed by its API server (`TokenReview`), and so is every question about rights
//! (`SubjectAccessReview`), as Perses v0.54 does.
//!
//! [`question`] is pure: which review a question of ours is. [`cluster`] asks (I/O) and remembers the answers. [`decide`]
//! answers what handlers ask.
//!
//! Invariants: no answer is an error, never a pass; a token is never part of a log line, an error or a key in the clear.

mod cluster;
mod decide;
mod question;
mod shared;

pub use cluster::{Cluster, ClusterUser, public_user};
