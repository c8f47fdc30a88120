//! `/proxy/...`: requests to datasources, any method.

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::any;

use crate::auth::authorize::Action;
use crate::config::Config;
use crate::domain::kind::Kind;
use crate::error::ApiError;
use crate::middleware::caller::Caller;
use crate::proxy::DatasourceRef;
use crate::server::Peer;
use crate::state::AppState;

/// The routes of the datasources that are not switched off, each with and without a path below it.
pub fn routes(config: &Config) -> Router<AppState> {
    let datasource = &config.datasource;
    let bases = [
        (!datasource.global.disable).then_some("/proxy/globaldatasources/{name}"),
        (!datasource.project.disable).then_some("/proxy/projects/{project}/datasources/{name}"),
        (!datasource.disable_local).then_some("/proxy/projects/{project}/dashboards/{dashboard}/datasources/{name}"),
    ];
    let mut router = Router::new();
    for base in bases.into_iter().flatten() {
        router = router
            .route(base, any(proxy))
            .route(&format!("{base}/"), any(proxy))
            .route(&format!("{base}/{{*path}}"), any(proxy));
    }
    router
}

/// The raw path counts, not the decoded parameters of the route.
async fn proxy(State(state): State<AppState>, caller: Caller, request: Request) -> Result<Response, ApiError> {
    let datasource = state.proxy.locate(request.uri().path())?;
    let (kind, project) = needed(&datasource);
    caller.require(&state, Action::Read, kind, project).await?;
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0.ip());
    state.proxy.serve(request, peer).await
}

/// What the sender of a request to a stored datasource must be allowed to read: it, as a document of its level. One that a
/// dashboard brings along counts as one of the project.
fn needed(datasource: &DatasourceRef) -> (Kind, Option<&str>) {
    match datasource.project() {
        None => (Kind::GlobalDatasource, None),
        project => (Kind::Datasource, project),
    }
}
