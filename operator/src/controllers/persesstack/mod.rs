//! The PersesStack controller: watch -> observe -> validate -> size -> build -> apply -> status -> patch.

pub mod build;
pub mod observed;
pub mod validate;
