//! Integration tests of the operator, in one binary.

mod files;
mod generated;
mod golden;
mod samples;
mod validate;
