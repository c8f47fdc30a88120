//! Configuration: upstream's keys (Perses v0.54) plus `database.postgres`, `cache`, `query` and `server`; file, then
//! environment (`PERSES_<UPPER_PATH>`), then flags. Unknown keys are refused.

mod load;
mod types;

pub use load::{ConfigError, load};
pub use types::*;
