//! The product on a real node: `make test` starts the cluster, loads the images and runs this binary against it.
//!
//! Tests take turns on one stack, in the order of their names. What `autoscaler` took up it gives back after the seed's
//! window of five minutes: the stories that do not mind come before `tapering`, which waits for it; those that make objects
//! again or count writes come after.

mod assigned;
mod autoscaler;
mod availability;
mod browser;
mod clients;
mod perses_operator;
mod release;
mod replica;
mod rotation;
mod steady;
mod storage;
mod tapering;
mod uninstall;
mod upkeep;
mod waking;
mod world;
