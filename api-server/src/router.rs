//! The table of contents: path -> handler, and the layers around them in the order in which a request meets them.

use axum::Router;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::{from_fn, from_fn_with_state, map_response};
use axum::routing::get;

use crate::domain::kind::Kind;
use crate::error::ApiError;
use crate::handlers;
use crate::middleware;
use crate::state::AppState;

/// The whole service.
pub fn build(state: &AppState) -> Router {
    let config = &state.config;
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| config.serves(*kind)).collect();

    // Everything here needs a sign-in when `security.enable_auth` is on.
    let guarded = Router::new()
        .merge(handlers::resources::routes(&kinds, config.security.readonly))
        .merge(handlers::users::routes())
        .merge(handlers::search::routes())
        .merge(handlers::view::routes())
        .merge(handlers::batch::routes())
        .merge(handlers::audit::routes())
        .merge(handlers::cache::routes())
        .merge(handlers::explain::routes())
        .layer(map_response(middleware::rejection::explain))
        .merge(handlers::proxy::routes(config))
        .layer(from_fn_with_state(state.clone(), middleware::auth::require));

    // Anonymous, as upstream has them.
    let open = Router::new()
        .merge(handlers::auth::routes(config))
        .merge(handlers::users::sign_up_routes(config.security.readonly))
        .merge(handlers::config::routes())
        .merge(handlers::plugins::routes())
        .merge(handlers::openapi::routes())
        .merge(handlers::validate::routes())
        .merge(handlers::absent::routes())
        .route("/api/v1/health", get(handlers::health::health))
        .route("/api/health", get(handlers::health::health));

    let api = guarded
        .merge(open)
        .fallback(handlers::ui::serve)
        .method_not_allowed_fallback(|| async { ApiError::MethodNotAllowed })
        .layer(from_fn(middleware::panic::catch))
        .layer(from_fn_with_state(state.clone(), middleware::audit::record))
        .layer(from_fn_with_state(state.clone(), middleware::observe::record));

    let mut probes = Router::new()
        .route("/livez", get(handlers::health::livez))
        .route("/readyz", get(handlers::health::readyz))
        .route("/metrics", get(handlers::health::metrics));
    if let Some(path) = config.server.telemetry_path.as_deref().filter(|path| *path != "/metrics") {
        probes = probes.route(path, get(handlers::health::metrics));
    }

    let prefix = config.api_prefix.as_str();
    let routes = if prefix.is_empty() {
        api.merge(probes)
    } else {
        // Probes and metrics answer with and without the prefix; the rest is redirected to it.
        let prefix = prefix.to_owned();
        let redirect = move |request: Request| {
            let target = request.uri().path_and_query().map_or("/", |path| path.as_str());
            let target = format!("{prefix}{target}");
            async move { (StatusCode::FOUND, [(header::LOCATION, target)]) }
        };
        Router::new()
            .nest(&config.api_prefix, api.merge(probes.clone()))
            // A nested router does not take the prefix with a slash after it, which is where `/` is redirected to.
            .route(&format!("{}/", config.api_prefix), get(handlers::ui::index))
            .merge(probes)
            .fallback(redirect)
    };
    let routes = match middleware::cors::layer(&config.security.cors) {
        Some(cors) => routes.layer(cors),
        None => routes,
    };
    routes.layer(from_fn(middleware::request_id::assign)).with_state(state.clone())
}
