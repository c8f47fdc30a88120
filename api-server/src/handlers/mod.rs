//! HTTP handlers: extract, call the service, respond.

pub mod absent;
pub mod audit;
pub mod auth;
pub mod batch;
pub mod body;
pub mod cache;
pub mod config;
pub mod explain;
pub mod health;
pub mod openapi;
pub mod plugins;
pub mod providers;
pub mod proxy;
pub mod resources;
pub mod search;
pub mod ui;
pub mod users;
pub mod validate;
pub mod view;
pub mod warnings;
