//! PURE: from a datasource's `spec.client` to the Perses `Secret` with its credentials.
//!
//! Values come from Secrets and ConfigMaps of the cluster. `type: file` and `kubernetesAuth` are refused: they would hand out
//! files and tokens of the server or of this operator to whoever may write a datasource.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde_json::{Map, Value, json};

/// `spec.client` of `perses.dev/v1alpha2`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientBlock {
    basic_auth: Option<BasicAuth>,
    oauth: Option<OAuth>,
    tls: Option<Tls>,
    kubernetes_auth: Option<Enabled>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
struct Enabled {
    enable: bool,
}

/// Where a value is: of a Secret, a ConfigMap or a file.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
struct From {
    #[serde(rename = "type")]
    type_: String,
    name: String,
    namespace: String,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
struct BasicAuth {
    #[serde(flatten)]
    from: From,
    username: String,
    password_path: String,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
struct OAuth {
    #[serde(flatten)]
    from: From,
    #[serde(rename = "clientIDPath")]
    client_id_path: Option<String>,
    client_secret_path: Option<String>,
    #[serde(rename = "tokenURL")]
    token_url: String,
    scopes: Vec<String>,
    endpoint_params: BTreeMap<String, Vec<String>>,
    auth_style: Option<i32>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
struct Tls {
    enable: bool,
    ca_cert: Option<Certificate>,
    user_cert: Option<Certificate>,
    insecure_skip_verify: bool,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
struct Certificate {
    #[serde(flatten)]
    from: From,
    cert_path: String,
    private_key_path: Option<String>,
}

/// Kind of object that a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// `Secret`.
    Secret,
    /// `ConfigMap`.
    ConfigMap,
}

/// An object that values come from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// Kind.
    pub holder: Holder,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let holder = match self.holder {
            Holder::Secret => "Secret",
            Holder::ConfigMap => "ConfigMap",
        };
        write!(f, "{holder} {}/{}", self.namespace, self.name)
    }
}

/// Data of the objects that were found.
pub type Values = BTreeMap<Reference, BTreeMap<String, Vec<u8>>>;

/// Why there are no credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Something is not there yet, or not readable: an event of it wakes the resource.
    Missing(String),
    /// Only a changed resource helps.
    Unsupported(String),
}

impl ClientBlock {
    /// Whether the datasource needs a secret.
    pub fn is_needed(&self) -> bool {
        self.basic_auth.is_some() || self.oauth.is_some() || self.tls.as_ref().is_some_and(|tls| tls.enable)
    }

    /// Every object that values come from, whether it may be read or not: events of them wake the resource.
    pub fn mentioned(&self) -> Vec<Reference> {
        self.parts().into_iter().filter_map(|(_, from)| from.reference().ok()).collect()
    }

    /// Every object that values come from. `namespace` is that of a namespaced datasource, which may use no other one:
    /// whoever may write it could else have any Secret of the cluster sent to an address of their choice.
    ///
    /// # Errors
    /// [`Problem::Unsupported`].
    pub fn references(&self, namespace: Option<&str>) -> Result<Vec<Reference>, Problem> {
        if self.kubernetes_auth.as_ref().is_some_and(|auth| auth.enable) {
            return Err(Problem::Unsupported(
                "spec.client.kubernetesAuth is not supported: the token would be this operator's; put a token of the \
                 datasource's own into a Secret"
                    .to_owned(),
            ));
        }
        let mut references = Vec::new();
        for (field, from) in self.parts() {
            let reference =
                from.reference().map_err(|what| Problem::Unsupported(format!("spec.client.{field}: {what}")))?;
            if namespace.is_some_and(|namespace| namespace != reference.namespace) {
                return Err(Problem::Unsupported(format!(
                    "spec.client.{field}.namespace is {}: a PersesDatasource may only use Secrets and ConfigMaps of its own \
                     namespace; copy the object, or use a PersesGlobalDatasource",
                    reference.namespace
                )));
            }
            references.push(reference);
        }
        Ok(references)
    }

    fn parts(&self) -> Vec<(&'static str, &From)> {
        let tls = self.tls.as_ref().filter(|tls| tls.enable);
        let parts = [
            self.basic_auth.as_ref().map(|basic| ("basicAuth", &basic.from)),
            self.oauth.as_ref().map(|oauth| ("oauth", &oauth.from)),
            tls.and_then(|tls| tls.ca_cert.as_ref()).map(|certificate| ("tls.caCert", &certificate.from)),
            tls.and_then(|tls| tls.user_cert.as_ref()).map(|certificate| ("tls.userCert", &certificate.from)),
        ];
        parts.into_iter().flatten().collect()
    }

    /// The spec of the Perses `Secret` or `GlobalSecret`.
    ///
    /// # Errors
    /// What is missing, by object and key; never a value.
    pub fn secret(&self, values: &Values) -> Result<Value, Problem> {
        let mut spec = Map::new();
        if let Some(basic) = &self.basic_auth {
            let password = text(&basic.from, &basic.password_path, values)?;
            spec.insert("basicAuth".to_owned(), json!({"username": basic.username, "password": password}));
        }
        if let Some(oauth) = &self.oauth {
            spec.insert("oauth".to_owned(), oauth.spec(values)?);
        }
        if let Some(tls) = self.tls.as_ref().filter(|tls| tls.enable) {
            spec.insert("tlsConfig".to_owned(), tls.spec(values)?);
        }
        Ok(Value::Object(spec))
    }
}

impl OAuth {
    fn spec(&self, values: &Values) -> Result<Value, Problem> {
        let path = |path: &Option<String>, field: &str| {
            let missing = || Problem::Unsupported(format!("spec.client.oauth.{field} is missing: name the key"));
            text(&self.from, path.as_ref().ok_or_else(missing)?, values)
        };
        let mut spec = json!({
            "clientID": path(&self.client_id_path, "clientIDPath")?,
            "clientSecret": path(&self.client_secret_path, "clientSecretPath")?,
            "tokenURL": self.token_url,
            "scopes": self.scopes,
            "endpointParams": self.endpoint_params,
        });
        if let Some(style) = self.auth_style {
            spec["authStyle"] = json!(style);
        }
        Ok(spec)
    }
}

impl Tls {
    fn spec(&self, values: &Values) -> Result<Value, Problem> {
        let mut spec = Map::new();
        if let Some(ca) = &self.ca_cert {
            spec.insert("ca".to_owned(), json!(text(&ca.from, &ca.cert_path, values)?));
        }
        if let Some(user) = &self.user_cert {
            let missing =
                || Problem::Unsupported("spec.client.tls.userCert.privateKeyPath is missing: name the key".to_owned());
            spec.insert("cert".to_owned(), json!(text(&user.from, &user.cert_path, values)?));
            let key = user.private_key_path.as_ref().ok_or_else(missing)?;
            spec.insert("key".to_owned(), json!(text(&user.from, key, values)?));
        }
        spec.insert("insecureSkipVerify".to_owned(), json!(self.insecure_skip_verify));
        Ok(Value::Object(spec))
    }
}

impl From {
    fn reference(&self) -> Result<Reference, &'static str> {
        let holder = match self.type_.as_str() {
            "secret" => Holder::Secret,
            "configmap" => Holder::ConfigMap,
            _ => {
                return Err("type: file is not supported, it would name a file of the server: use secret or configmap");
            }
        };
        Ok(Reference { holder, namespace: self.namespace.clone(), name: self.name.clone() })
    }
}

/// A value as text, without a final line break.
fn text(from: &From, key: &str, values: &Values) -> Result<String, Problem> {
    let reference = from.reference().map_err(|what| Problem::Unsupported(what.to_owned()))?;
    let missing = |what: &str| Problem::Missing(format!("key {key} of {reference} {what}"));
    let data = values.get(&reference).ok_or_else(|| Problem::Missing(format!("{reference} does not exist")))?;
    let value = data.get(key).ok_or_else(|| missing("does not exist"))?;
    let value = std::str::from_utf8(value).map_err(|_| missing("is not UTF-8 text"))?;
    let value = value.strip_suffix('\n').unwrap_or(value);
    if value.is_empty() { Err(missing("is empty")) } else { Ok(value.to_owned()) }
}

/// Fingerprint of credentials: equal for equal ones, and of no use for guessing them to who does not know `key`.
pub fn fingerprint(spec: &Value, key: &[u8; 32]) -> String {
    blake3::keyed_hash(key, spec.to_string().as_bytes()).to_hex()[..24].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(value: Value) -> ClientBlock {
        serde_json::from_value(value).unwrap()
    }

    fn from(key: &str, name: &str) -> Value {
        json!({"type": "secret", "name": name, "namespace": "shop", key: "value"})
    }

    fn values(name: &str, data: &[(&str, &str)]) -> Values {
        let reference = Reference { holder: Holder::Secret, namespace: "shop".to_owned(), name: name.to_owned() };
        let data = data.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect();
        [(reference, data)].into()
    }

    #[test]
    fn basic_auth_becomes_a_perses_secret() {
        let mut basic = from("passwordPath", "login");
        basic["username"] = json!("ann");
        let block = block(json!({"basicAuth": basic}));
        assert!(block.is_needed());
        assert_eq!(block.references(Some("shop")).unwrap()[0].to_string(), "Secret shop/login");
        let found = block.secret(&values("login", &[("value", "word\n")])).unwrap();
        assert_eq!(found, json!({"basicAuth": {"username": "ann", "password": "word"}}));
    }

    #[test]
    fn what_is_missing_is_named_and_no_value_is() {
        let mut basic = from("passwordPath", "login");
        basic["username"] = json!("ann");
        let block = block(json!({"basicAuth": basic}));
        let problem = |values: &Values| match block.secret(values).unwrap_err() {
            Problem::Missing(text) => text,
            Problem::Unsupported(text) => panic!("{text}"),
        };
        assert_eq!(problem(&Values::new()), "Secret shop/login does not exist");
        assert_eq!(problem(&values("login", &[("other", "x")])), "key value of Secret shop/login does not exist");
        assert_eq!(problem(&values("login", &[("value", "\n")])), "key value of Secret shop/login is empty");
    }

    #[test]
    fn a_namespaced_datasource_reads_its_own_namespace_only() {
        let mut basic = from("passwordPath", "login");
        basic["username"] = json!("ann");
        let block = block(json!({"basicAuth": basic}));
        assert!(matches!(block.references(Some("other")), Err(Problem::Unsupported(text)) if text.contains("its own")));
        assert!(block.references(None).is_ok(), "a cluster-scoped one says which");
        assert_eq!(block.mentioned().len(), 1);
    }

    #[test]
    fn files_and_our_own_token_are_refused() {
        let file =
            block(json!({"tls": {"enable": true, "caCert": {"type": "file", "certPath": "/etc/perses/keys/x"}}}));
        assert!(matches!(file.references(None), Err(Problem::Unsupported(text)) if text.contains("tls.caCert")));
        let token = block(json!({"kubernetesAuth": {"enable": true}}));
        assert!(matches!(token.references(None), Err(Problem::Unsupported(_))));
        assert!(block(json!({"kubernetesAuth": {}})).references(None).unwrap().is_empty());
    }

    #[test]
    fn oauth_and_tls_use_the_names_of_the_perses_api() {
        let mut ca = from("certPath", "tls");
        ca["certPath"] = json!("ca.crt");
        let mut oauth = from("clientSecretPath", "tls");
        oauth["clientIDPath"] = json!("id");
        oauth["tokenURL"] = json!("https://idp/token");
        oauth["scopes"] = json!(["read"]);
        let block = block(json!({"oauth": oauth, "tls": {"enable": true, "caCert": ca, "insecureSkipVerify": false}}));
        let values = values("tls", &[("ca.crt", "PEM"), ("id", "client"), ("value", "word")]);
        assert_eq!(
            block.secret(&values).unwrap(),
            json!({"oauth": {"clientID": "client", "clientSecret": "word", "tokenURL": "https://idp/token",
                             "scopes": ["read"], "endpointParams": {}},
                   "tlsConfig": {"ca": "PEM", "insecureSkipVerify": false}})
        );
        let off = ClientBlock { tls: Some(Tls::default()), ..ClientBlock::default() };
        assert!(!off.is_needed(), "tls.enable is false");
    }

    #[test]
    fn the_fingerprint_depends_on_the_key() {
        let spec = json!({"basicAuth": {"password": "word"}});
        assert_eq!(fingerprint(&spec, &[1; 32]), fingerprint(&spec, &[1; 32]));
        assert_ne!(fingerprint(&spec, &[1; 32]), fingerprint(&spec, &[2; 32]));
        assert_eq!(fingerprint(&spec, &[1; 32]).len(), 24);
    }
}
