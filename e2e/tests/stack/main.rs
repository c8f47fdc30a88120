//! The product on a real node: `make test` starts the cluster, loads the images and runs this binary against it.
//!
//! Tests take turns on one stack, in the order of their names: what `autoscaler` started is looked at again in `calm`.

mod autoscaler;
mod availability;
mod browser;
mod calm;
mod drift;
mod lifecycle;
mod outage;
mod perses_operator;
mod serving;
mod steady;
mod world;
