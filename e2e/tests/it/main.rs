//! Tests of the harness itself.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

mod control_plane;
mod images;
mod load;
mod node;
mod services;
mod workspace;
