//! What every request passes, outermost first: request id, metrics and log, panic guard, sign-in.

pub mod auth;
pub mod caller;
pub mod observe;
pub mod panic;
pub mod request_id;
