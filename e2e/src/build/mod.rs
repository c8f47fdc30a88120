//! Programs that the tests need and that are built here: Go modules and the workspace's own binaries.

pub mod go;
pub mod thanos;
pub mod upstream;
