//! The PersesStack controller: watch -> observe -> validate -> size -> build -> apply -> status -> patch.

pub mod build;
mod generated;
mod inputs;
pub mod observed;
pub mod validate;
