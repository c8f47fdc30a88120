//! One module per reconciled kind.

pub mod persesstack;
