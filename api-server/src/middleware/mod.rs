//! What every request passes, outermost first: request id, other sites, metrics and log, audit, panic guard, sign-in.

pub mod audit;
pub mod auth;
pub mod caller;
pub mod cors;
pub mod observe;
pub mod panic;
pub mod rejection;
pub mod request_id;
