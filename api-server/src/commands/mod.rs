//! Subcommands that are more than a call.

pub mod cache;
pub mod lint;
pub mod login;
pub mod secrets;
pub mod users;
