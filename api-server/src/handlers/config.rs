//! `GET /api/config`: the configuration in upstream's shape, which percli and the UI decode. It is open to everybody, so it
//! holds no secret and no address of ours.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use serde_json::{Value, json};

use crate::config::{Client, Config, Providers};
use crate::domain::kind::Kind;
use crate::domain::secret::MASK;
use crate::handlers::body;
use crate::state::AppState;

/// The one route.
pub fn routes() -> Router<AppState> {
    Router::new().route("/api/config", get(config))
}

async fn config(State(state): State<AppState>) -> Response {
    body::json(StatusCode::OK, &public(&state.config))
}

/// The public form: upstream's keys, durations as strings.
fn public(config: &Config) -> Value {
    let security = &config.security;
    let authentication = &security.authentication;
    let database = match &config.database.postgres {
        Some(postgres) => json!({"postgres": {"case_sensitive": postgres.case_sensitive}}),
        None => json!({"file": config.database.file.clone().unwrap_or_default()}),
    };
    let mut public = json!({
        "security": {
            "readonly": security.readonly,
            "cookie": security.cookie,
            "encryption_key": MASK,
            "enable_auth": security.enable_auth,
            "authorization": {"provider": {
                "native": {
                    "enable": config.native_authorization(),
                    "guest_permissions": security.authorization.guest_permissions().collect::<Vec<_>>(),
                },
                "kubernetes": {"enable": security.authorization.provider.kubernetes.enable},
            }},
            "authentication": {
                "access_token_ttl": authentication.access_token_ttl,
                "refresh_token_ttl": authentication.refresh_token_ttl,
                "disable_sign_up": !config.open_sign_up(),
                "providers": providers(&authentication.providers),
            },
            "cors": security.cors,
        },
        "database": database,
        "dashboard": config.dashboard,
        "provisioning": {"interval": config.provisioning.interval},
        "datasource": {
            "global": {"disable": !config.serves(Kind::GlobalDatasource)},
            "project": {"disable": !config.serves(Kind::Datasource)},
            "disable_local": config.datasource.disable_local,
        },
        "variable": {
            "global": {"disable": !config.serves(Kind::GlobalVariable)},
            "project": {"disable": !config.serves(Kind::Variable)},
            "disable_local": config.variable.disable_local,
        },
        "ephemeral_dashboard": config.ephemeral_dashboard,
        "frontend": config.frontend,
        "plugin": {"enable_dev": false},
    });
    if !config.api_prefix.is_empty() {
        public["api_prefix"] = json!(config.api_prefix);
    }
    public
}

/// The ways to sign in, as percli and the UI offer them: nothing but names.
fn providers(providers: &Providers) -> Value {
    let named = |client: &Client| json!({"slug_id": client.slug_id, "name": client.name});
    let mut public = json!({"enable_native": providers.enable_native});
    if providers.kubernetes.enable {
        public["kubernetes"] = json!({"enable": true});
    }
    if !providers.oidc.is_empty() {
        public["oidc"] = providers.oidc.iter().map(|one| named(&one.client)).collect();
    }
    if !providers.oauth.is_empty() {
        public["oauth"] = providers.oauth.iter().map(|one| named(&one.client)).collect();
    }
    public
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_nothing_that_is_secret_or_ours() {
        let text = r#"{
            "security": {"encryption_key": "0123456789abcdef0123456789abcdef", "enable_auth": true,
                "authentication": {"providers": {"enable_native": true},
                    "initial_admin": {"username_file": "/admin-user", "password_file": "/admin-password"}}},
            "database": {"postgres": {"host": "db-host", "user": "db-user", "password": "db-password"}},
            "cache": {"redis": {"addr": "redis-host:6379", "password": "redis-password"}},
            "provisioning": {"folders": ["/secret-folder"]}}"#;
        let config: Config = serde_json::from_str(text).unwrap();
        let shown = public(&config).to_string();
        for hidden in ["0123456789abcdef", "admin-", "db-host", "db-user", "db-password", "redis", "secret-folder"] {
            assert!(!shown.contains(hidden), "{hidden} in {shown}");
        }
        let shown = public(&config);
        assert_eq!(shown["security"]["authentication"]["access_token_ttl"], "15m");
        assert_eq!(shown["security"]["authentication"]["refresh_token_ttl"], "1d");
        assert_eq!(shown["security"]["cookie"], json!({"same_site": "lax", "secure": false}));
    }

    #[test]
    fn providers_are_named_and_nothing_else() {
        let text = r#"{"security": {"authentication": {"providers": {
            "oidc": [{"slug_id": "kc", "name": "Keycloak", "client_id": "the-client", "client_secret": "sesame",
                "client_secret_file": "/the-file", "issuer": "https://the-issuer"}],
            "oauth": [{"slug_id": "gh", "name": "GitHub", "client_id": "the-client", "auth_url": "https://the-auth",
                "token_url": "https://the-token", "user_infos_url": "https://the-info"}]}}}}"#;
        let shown = public(&serde_json::from_str(text).unwrap());
        let expected = json!({
            "enable_native": false,
            "oidc": [{"slug_id": "kc", "name": "Keycloak"}],
            "oauth": [{"slug_id": "gh", "name": "GitHub"}],
        });
        assert_eq!(shown["security"]["authentication"]["providers"], expected);
        assert!(!shown.to_string().contains("the-") && !shown.to_string().contains("sesame"));
    }

    #[test]
    fn follows_the_datasource_switches() {
        let config: Config =
            serde_json::from_str(r#"{"datasource": {"global": {"disable": true}}, "api_prefix": "/x"}"#).unwrap();
        let shown = public(&config);
        assert_eq!(shown["variable"]["global"]["disable"], true);
        assert_eq!(shown["variable"]["project"]["disable"], false);
        assert_eq!(shown["api_prefix"], "/x");
        assert_eq!(shown["database"]["file"]["folder"], "./local_db");
    }
}
