//! Subcommands that are more than a call.

pub mod lint;
pub mod login;
pub mod secrets;
pub mod users;
