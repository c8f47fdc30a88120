//! Configuration: upstream's keys (Perses v0.54) plus `database.postgres`, `cache`, `query` and `server`; file, then
//! environment (`PERSES_<UPPER_PATH>`), then flags. Unknown keys are refused.

mod authorization;
mod database;
pub mod environment;
mod frontend;
mod load;
mod protection;
mod providers;
mod query;
mod security;
mod tenancy;
mod types;
mod validation;
mod values;

pub use database::*;
pub use frontend::*;
pub use load::{ConfigError, check, load};
pub use protection::*;
pub use providers::*;
pub use query::*;
pub use security::*;
pub use tenancy::*;
pub use types::*;
pub use validation::*;
pub use values::{ConfigDuration, Hidden, Network};
