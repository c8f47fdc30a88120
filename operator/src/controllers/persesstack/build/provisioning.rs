//! Datasources of the spec as Perses resources, in files that the running server re-reads. What is no longer in them the
//! server deletes; so a datasource whose credentials are away stays in them as it was.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use super::account::{SERVICE_AUTHORITY, TOKEN};
use super::labels::Component;
use super::meta;
use super::monitoring::{Scope, dashboard_documents};
use crate::api::v1alpha1::DatasourceType;
use crate::controllers::persesstack::monitoring::wants_dashboard;
use crate::controllers::persesstack::validate::{Invalid, ResolvedAuth, ResolvedDatasource, Validated};

const DATASOURCES: &str = "globaldatasources.json";
const SECRETS: &str = "globalsecrets.json";

/// `<stack>-provisioning`: `globaldatasources.json`, `globalsecrets.json` and, where one is wanted, `dashboards.json` with the
/// dashboard about the stack and its project; each a JSON array.
pub(super) fn secret(v: &Validated) -> Result<Secret, Invalid> {
    let mut datasources: Vec<_> = v.datasources.iter().map(datasource).collect();
    let mut secrets: Vec<_> = v.datasources.iter().filter_map(global_secret).collect();
    for name in &v.held_datasources {
        datasources.extend(provisioned(v, DATASOURCES, name));
        secrets.extend(provisioned(v, SECRETS, &secret_name(name)));
    }
    let mut data = BTreeMap::from([
        (DATASOURCES.to_owned(), json_file(&datasources)?),
        (SECRETS.to_owned(), json_file(&secrets)?),
    ]);
    if wants_dashboard(&v.spec) {
        let documents = dashboard_documents(&Scope::new(&v.namespace, v.names.stack()));
        data.insert("dashboards.json".to_owned(), json_file(&documents)?);
    }
    Ok(meta::secret(meta::owned(v, v.names.provisioning(), Component::Api), data, false))
}

/// The document called `name` as the live Secret has it.
fn provisioned(v: &Validated, file: &str, name: &str) -> Option<Value> {
    let documents: Vec<Value> = serde_json::from_slice(v.provisioned.data.get(file)?).ok()?;
    documents.into_iter().find(|document| document["metadata"]["name"] == name)
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
    let mut proxy = json!({ "url": resolved.url });
    if !d.allowed_endpoints.is_empty() {
        proxy["allowedEndpoints"] = d
            .allowed_endpoints
            .iter()
            .map(|access| json!({ "endpointPattern": access.endpoint_pattern, "method": access.method }))
            .collect();
    }
    if !d.headers.is_empty() {
        proxy["headers"] = json!(d.headers);
    }
    if resolved.auth.is_some() || resolved.tls.is_some() {
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
    let mut spec = match &resolved.auth {
        Some(ResolvedAuth::Basic(login)) => {
            json!({ "basicAuth": { "username": login.user, "password": login.password.0 } })
        }
        Some(ResolvedAuth::Bearer(token)) => {
            json!({ "authorization": { "type": "Bearer", "credentials": token.0 } })
        }
        // The kubelet renews the token in the file.
        Some(ResolvedAuth::ServiceAccount) => {
            json!({ "authorization": { "type": "Bearer", "credentialsFile": TOKEN } })
        }
        None => json!({}),
    };
    if resolved.spec.type_ == DatasourceType::OpenShift {
        spec["tlsConfig"] = json!({ "caFile": SERVICE_AUTHORITY });
    }
    if let Some(tls) = &resolved.tls {
        let mut config = json!({});
        if let Some(ca) = &tls.ca {
            config["ca"] = json!(ca);
        }
        if let Some((certificate, key)) = &tls.client {
            config["cert"] = json!(certificate);
            config["key"] = json!(key.0);
        }
        if let Some(name) = &tls.server_name {
            config["serverName"] = json!(name);
        }
        if tls.insecure {
            config["insecureSkipVerify"] = json!(true);
        }
        spec["tlsConfig"] = config;
    }
    let empty = spec.as_object().is_none_or(serde_json::Map::is_empty);
    (!empty).then(
        || json!({ "kind": "GlobalSecret", "metadata": { "name": secret_name(&resolved.spec.name) }, "spec": spec }),
    )
}
