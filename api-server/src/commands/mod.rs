//! Subcommands that are more than a call.

pub mod lint;
pub mod secrets;
