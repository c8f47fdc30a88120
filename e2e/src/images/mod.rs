//! Container images without Docker: archives that `ctr images import`, `docker load` and `kind load image-archive` take.
//!
//! The same content gives the same bytes: entries are sorted, times are zero, owners are numbers.

mod archive;
mod layer;
pub mod product;

pub use archive::{Config, Image, write_archive};
pub use layer::{Files, Layer};
