//! The product on a real node: `make test` starts the cluster, loads the images and runs this binary against it.
//!
//! Tests take turns on one stack; names are the stories that they tell.

mod availability;
mod browser;
mod drift;
mod lifecycle;
mod outage;
mod serving;
mod steady;
mod world;
