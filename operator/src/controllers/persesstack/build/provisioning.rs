//! Datasources of the spec as Perses resources, in files that the running server re-reads.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use super::labels::Component;
use super::meta;
use super::monitoring::{Scope, dashboard_documents};
use crate::controllers::persesstack::monitoring::wants_dashboard;
use crate::controllers::persesstack::validate::{Invalid, ResolvedAuth, ResolvedDatasource, Validated};

/// `<stack>-provisioning`: `globaldatasources.json`, `globalsecrets.json` and, where one is wanted, `dashboards.json` with the
/// dashboard about the stack and its project; each a JSON array.
pub(super) fn secret(v: &Validated) -> Result<Secret, Invalid> {
    let datasources: Vec<_> = v.datasources.iter().map(datasource).collect();
    let secrets: Vec<_> = v.datasources.iter().filter_map(global_secret).collect();
    let mut data = BTreeMap::from([
        ("globaldatasources.json".to_owned(), json_file(&datasources)?),
        ("globalsecrets.json".to_owned(), json_file(&secrets)?),
    ]);
    if wants_dashboard(&v.spec) {
        let documents = dashboard_documents(&Scope::new(&v.namespace, v.names.stack()));
        data.insert("dashboards.json".to_owned(), json_file(&documents)?);
    }
    Ok(meta::secret(meta::owned(v, v.names.provisioning(), Component::Api), data, false))
}

fn json_file(values: &[Value]) -> Result<Vec<u8>, Invalid> {
    serde_json::to_vec(values).map_err(|error| {
        Invalid::terminal("DatasourceInvalid", format!("datasources cannot be written as JSON: {error}"))
    })
}

/// Name of the GlobalSecret that goes with a datasource.
fn secret_name(datasource: &str) -> String {
    format!("{datasource}-secret")
}

fn datasource(resolved: &ResolvedDatasource) -> Value {
    let d = &resolved.spec;
    let mut proxy = json!({ "url": d.url });
    if !d.allowed_endpoints.is_empty() {
        proxy["allowedEndpoints"] = d
            .allowed_endpoints
            .iter()
            .map(|access| json!({ "endpointPattern": access.endpoint_pattern, "method": access.method }))
            .collect();
    }
    if resolved.auth.is_some() {
        proxy["secret"] = json!(secret_name(&d.name));
    }
    let mut plugin = json!({ "proxy": { "kind": "HTTPProxy", "spec": proxy } });
    if let Some(interval) = &d.scrape_interval {
        plugin["scrapeInterval"] = json!(interval);
    }
    json!({
        "kind": "GlobalDatasource",
        "metadata": { "name": d.name },
        "spec": {
            "display": { "name": d.name },
            "default": d.default,
            "plugin": { "kind": "PrometheusDatasource", "spec": plugin },
        },
    })
}

fn global_secret(resolved: &ResolvedDatasource) -> Option<Value> {
    let spec = match resolved.auth.as_ref()? {
        ResolvedAuth::Basic(login) => json!({ "basicAuth": { "username": login.user, "password": login.password.0 } }),
        ResolvedAuth::Bearer(token) => json!({ "authorization": { "type": "Bearer", "credentials": token.0 } }),
    };
    Some(json!({ "kind": "GlobalSecret", "metadata": { "name": secret_name(&resolved.spec.name) }, "spec": spec }))
}
