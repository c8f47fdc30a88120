//! A Perses-compatible API server.
//!
//! ```text
//! request -> router -> middleware (id, sign-in, metrics) -> handlers -> service -> domain (pure)
//!                                                                              -> cache (L1 -> Redis) -> store
//!                                                                              -> query / proxy -> Prometheus
//! ```
//!
//! Start at [`router`]: it is the table of contents. `domain` is pure; nothing on the right imports from the left.

pub mod cli;
pub mod commands;
pub mod config;
pub mod program;
pub mod server;
pub mod state;

pub mod error;
pub mod handlers;
pub mod middleware;
pub mod openapi;
pub mod router;

pub mod audit;
pub mod auth;
pub mod cache;
pub mod proxy;
pub mod query;
pub mod service;
pub mod store;
pub mod ui;

pub mod domain;
pub mod view;

mod follow;

pub mod intake;
pub mod pace;

pub mod metrics;
pub mod negotiate;
pub mod telemetry;
pub mod transfer;
