//! One module per reconciled kind.

pub mod persesdev;
pub mod persesstack;
