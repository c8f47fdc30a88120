//! Parts of Perses that this server does not have: 501 with what to do instead, so that nobody looks for a mistake of theirs.

use axum::Router;
use axum::routing::post;

use crate::error::ApiError;
use crate::state::AppState;

/// Upstream's migration of Grafana dashboards, and the endpoints of `percli plugin start`.
pub fn routes() -> Router<AppState> {
    let migrate = || async {
        not_here(
            "Grafana dashboards are not migrated here: run `percli migrate --plugin.path=FOLDER` on your machine, then apply the result",
        )
    };
    let plugins = || async {
        not_here(
            "plugins are not developed on this server: run a Perses of your own with plugin.enable_dev, and put finished plugins into plugin.path",
        )
    };
    Router::new()
        .route("/api/migrate", post(migrate))
        .route("/api/v1/plugins/dev", post(plugins).delete(plugins))
        .route("/api/v1/plugins/dev/refresh", post(plugins))
}

fn not_here(text: &str) -> ApiError {
    ApiError::NotImplemented(text.to_owned())
}
