//! End-to-end tests and tests of the harness itself.

mod control_plane;
mod images;
mod load;
mod node;
mod services;
