//! The routes that the server really has, whoever added them.

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Body;

use crate::http::Server;

/// Methods by path (`/api/v1/projects/{project}/dashboards`); `*` stands for every method.
///
/// The router does not list its routes, but prints them; a 405 then says which methods a path has.
pub async fn of(server: &Server) -> BTreeMap<String, BTreeSet<String>> {
    let printed = format!("{:?}", perses_api_server::router::build(&server.state));
    let mut routes = BTreeMap::new();
    // Behind the routes come the fallbacks.
    let printed = printed.split("fallback_router").next().unwrap_or_default();
    for part in printed.split("RouteId(").skip(1) {
        let Some(path) = part.split_once("): \"").and_then(|(_, rest)| rest.split('"').next()) else { continue };
        if !path.starts_with('/') {
            continue;
        }
        let request = server.builder("PROPFIND", &filled(path)).body(Body::empty()).unwrap();
        let reply = server.raw(request).await;
        let methods = match reply.headers.get("allow") {
            Some(allowed) => allowed.to_str().unwrap().split(',').map(str::to_owned).collect(),
            None => BTreeSet::from(["*".to_owned()]),
        };
        routes.insert(path.to_owned(), methods);
    }
    assert!(routes.len() > 50, "the router prints its routes in another way: {printed:.2000}");
    routes
}

/// A path of a route, with something in the place of its parameters.
pub fn filled(route: &str) -> String {
    let part = |part: &str| if part.starts_with('{') { "x".to_owned() } else { part.to_owned() };
    route.split('/').map(part).collect::<Vec<_>>().join("/")
}
