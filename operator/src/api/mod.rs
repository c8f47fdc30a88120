//! Kubernetes API types of this project: one module per version, nothing but types.

pub mod v1alpha1;

/// API group of every kind of this project.
pub const GROUP: &str = "persesstack.io";
