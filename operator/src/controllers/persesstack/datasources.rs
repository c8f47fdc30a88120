//! PURE: the datasources of the spec with everything that they refer to.

use super::observed::{Availability, Observed};
use super::pem;
use super::references::{password, required};
use super::validate::{Invalid, Login, Redacted, ResolvedAuth, ResolvedDatasource, ResolvedTls};
use crate::api::v1alpha1::{Datasource, DatasourceAuth, DatasourceTls, DatasourceType, PemSource, PersesStackSpec};

/// Where OpenShift serves the metrics of the platform and of user workloads to who may `cluster-monitoring-view`.
const THANOS_QUERIER: &str = "https://thanos-querier.openshift-monitoring.svc:9091";

/// Headers that the proxy of the server sets itself or never sends.
const OWN_HEADERS: [&str; 6] = ["authorization", "cookie", "host", "connection", "content-length", "transfer-encoding"];

/// The base URL; `None` when the spec should have one and has none.
pub(super) fn url(datasource: &Datasource) -> Option<&str> {
    let default = (datasource.type_ == DatasourceType::OpenShift).then_some(THANOS_QUERIER);
    datasource.url.as_deref().or(default)
}

/// A datasource with its credentials and certificates.
///
/// # Errors
/// Something that it refers to is missing; or, terminal, it cannot work.
pub(super) fn resolve(datasource: &Datasource, observed: &Observed) -> Result<ResolvedDatasource, Invalid> {
    let name = &datasource.name;
    let invalid = |what: String| Invalid::terminal("DatasourceInvalid", format!("datasource {name}: {what}"));
    let url = url(datasource).ok_or_else(|| invalid("set its url".to_owned()))?.to_owned();
    let authority = url.split("://").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or_default();
    if authority.contains('@') {
        return Err(invalid("the url carries credentials: put them into a Secret and use auth.basic".to_owned()));
    }
    for (header, value) in &datasource.headers {
        if OWN_HEADERS.contains(&header.to_ascii_lowercase().as_str()) {
            return Err(invalid(format!("the header {header} cannot be set: credentials go into auth")));
        }
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if header.is_empty() || !header.chars().all(token) || value.chars().any(char::is_control) {
            return Err(invalid(format!("the header {header:?} is none: no spaces, colons or control characters")));
        }
    }
    let resolved = |auth, tls| ResolvedDatasource { spec: datasource.clone(), url: url.clone(), auth, tls };
    if datasource.type_ == DatasourceType::OpenShift {
        if observed.capabilities.openshift != Availability::Present {
            return Err(Invalid {
                reason: "NotOpenShift",
                message: format!(
                    "datasource {name} has the type OpenShift, and this cluster is none: set the type to Prometheus and a url"
                ),
                waiting_for: None,
                terminal: false,
            });
        }
        return Ok(resolved(Some(ResolvedAuth::ServiceAccount), None));
    }
    let purpose = format!("credentials of datasource {name}");
    let auth = datasource.auth.as_ref().map(|auth| {
        credentials(auth, observed, &purpose).map_err(|error| match error {
            Invalid { terminal: true, message, .. } => invalid(message),
            other => other,
        })
    });
    let purpose = format!("TLS of datasource {name}");
    let tls = datasource.tls.as_ref().map(|tls| certificates(tls, observed, &purpose));
    Ok(resolved(auth.transpose()?, tls.transpose()?))
}

fn credentials(auth: &DatasourceAuth, observed: &Observed, purpose: &str) -> Result<ResolvedAuth, Invalid> {
    let find = |name: &str| observed.secrets.get(name).ok_or_else(|| Invalid::waiting(name, None, purpose));
    match (&auth.basic, &auth.bearer) {
        (Some(basic), None) => {
            let name = &basic.secret_ref.name;
            let secret = find(name)?;
            Ok(ResolvedAuth::Basic(Login {
                user: required(secret, name, &basic.username_key, purpose)?.to_owned(),
                password: password(secret, name, &basic.password_key, purpose)?,
            }))
        }
        (None, Some(bearer)) => {
            let name = &bearer.secret_ref.name;
            Ok(ResolvedAuth::Bearer(password(find(name)?, name, &bearer.key, purpose)?))
        }
        _ => Err(Invalid::terminal("DatasourceInvalid", "set exactly one of auth.basic and auth.bearer")),
    }
}

fn certificates(tls: &DatasourceTls, observed: &Observed, purpose: &str) -> Result<ResolvedTls, Invalid> {
    let ca = tls.ca.as_ref().map(|ca| pem::resolve(ca, observed, purpose)).transpose()?;
    let client = tls.client_certificate.as_ref().map(|client| {
        let name = &client.secret_ref.name;
        let secret = observed.secrets.get(name).ok_or_else(|| Invalid::waiting(name, None, purpose))?;
        let text = |key: &str| required(secret, name, key, purpose).and_then(|text| pem::pem(text, name, key));
        Ok::<_, Invalid>((text(&client.certificate_key)?, Redacted(text(&client.private_key_key)?)))
    });
    Ok(ResolvedTls {
        ca,
        client: client.transpose()?,
        server_name: tls.server_name.clone(),
        insecure: tls.insecure_skip_verify,
    })
}

fn sources(spec: &PersesStackSpec) -> impl Iterator<Item = &PemSource> {
    spec.datasources.iter().filter_map(|datasource| datasource.tls.as_ref()?.ca.as_ref())
}

/// Names of the Secrets that datasources refer to.
pub(super) fn secrets(spec: &PersesStackSpec) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for auth in spec.datasources.iter().filter_map(|datasource| datasource.auth.as_ref()) {
        names.extend(auth.basic.iter().map(|basic| basic.secret_ref.name.clone()));
        names.extend(auth.bearer.iter().map(|bearer| bearer.secret_ref.name.clone()));
    }
    names.extend(sources(spec).filter_map(|ca| ca.secret.as_ref()).map(|at| at.name.clone()));
    let clients = spec.datasources.iter().filter_map(|datasource| datasource.tls.as_ref()?.client_certificate.as_ref());
    names.extend(clients.map(|client| client.secret_ref.name.clone()));
    names
}

/// Names of the ConfigMaps that datasources refer to.
pub(super) fn config_maps(spec: &PersesStackSpec) -> Vec<String> {
    sources(spec).filter_map(|ca| ca.config_map.as_ref()).map(|at| at.name.clone()).collect()
}

/// Whether a datasource is read with the right to OpenShift's monitoring.
pub(super) fn uses_openshift(spec: &PersesStackSpec) -> bool {
    spec.datasources.iter().any(|datasource| datasource.type_ == DatasourceType::OpenShift)
}
