//! What the cluster itself offers for signing in (I/O).

use hyper::Request;
use kube::Client;
use serde::Deserialize;

use super::sign_in::OauthServer;
use crate::api::v1alpha1::PersesStackSpec;

/// Where OpenShift's API server describes its OAuth server (RFC 8414).
const METADATA: &str = "/.well-known/oauth-authorization-server";

#[derive(Deserialize)]
struct Metadata {
    authorization_endpoint: String,
    token_endpoint: String,
}

/// The OAuth server of the cluster, when the spec signs people in there; `None` too when the API server names none or does
/// not answer: nobody is worse off than before then.
pub(super) async fn oauth_server(client: &Client, spec: &PersesStackSpec) -> Option<OauthServer> {
    spec.auth.openshift.as_ref()?;
    let request = Request::get(METADATA).body(Vec::new()).ok()?;
    match client.request::<Metadata>(request).await {
        Ok(found) => Some(OauthServer { authorization: found.authorization_endpoint, token: found.token_endpoint }),
        Err(error) => {
            tracing::debug!(%error, "the API server names no OAuth server");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use hyper::{Response, StatusCode};
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    fn spec(auth: &Value) -> PersesStackSpec {
        serde_json::from_value(json!({"users": 5, "auth": auth})).unwrap()
    }

    /// An API server that answers one path.
    fn client(path: &'static str, answer: Value) -> Client {
        let service = tower::service_fn(move |request: Request<Body>| {
            let found = request.uri().path() == path;
            let status = if found { StatusCode::OK } else { StatusCode::NOT_FOUND };
            let text = if found { answer.to_string() } else { String::new() };
            let response = Response::builder().status(status).body(Body::from(text.into_bytes()));
            async { Ok::<_, Infallible>(response.unwrap()) }
        });
        Client::new(service, "default")
    }

    #[tokio::test]
    async fn the_endpoints_are_those_that_the_api_server_names() {
        // As OpenShift 4 answers, shortened.
        let answer = json!({
            "issuer": "https://oauth-openshift.apps.example", "scopes_supported": ["user:info"],
            "authorization_endpoint": "https://oauth-openshift.apps.example/oauth/authorize",
            "token_endpoint": "https://oauth-openshift.apps.example/oauth/token",
        });
        let openshift = client(METADATA, answer.clone());
        let found = oauth_server(&openshift, &spec(&json!({"openshift": {}}))).await.unwrap();
        assert_eq!(found.authorization, "https://oauth-openshift.apps.example/oauth/authorize");
        assert_eq!(found.token, "https://oauth-openshift.apps.example/oauth/token");
        assert_eq!(oauth_server(&openshift, &spec(&json!({}))).await, None, "nobody asks");
        let other = client("/version", answer);
        assert_eq!(oauth_server(&other, &spec(&json!({"openshift": {}}))).await, None);
        let strange = client(METADATA, json!({"issuer": 5}));
        assert_eq!(oauth_server(&strange, &spec(&json!({"openshift": {}}))).await, None);
    }
}
