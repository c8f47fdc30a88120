//! Configuration file of the API server: upstream's keys and those of this project, in YAML.

use serde_json::{Map, Value, json};

use super::api::drain as api_drain;
use super::limits_file;
use super::pgbouncer::drain;
use super::redis;
use super::sign_in;
use super::target::{self, Address, Target};
use crate::api::v1alpha1::{CacheType, ExposureType, PoolerType, RedisMode};
use crate::controllers::persesstack::generated::ENCRYPTION_KEY;
use crate::controllers::persesstack::references::RedisCredentials;
use crate::controllers::persesstack::rotation::{NEXT_KEY, PREVIOUS_KEY};
use crate::controllers::persesstack::validate::{Endpoint, Invalid, Validated};
use crate::sizing::Sizing;

/// Where pods find the authority of the certificate that they are shown by database or pooler.
pub(super) const AUTHORITY: &str = "/etc/perses/database-ca";
/// Where pods find the password of Redis.
pub(super) const REDIS: &str = "/etc/perses/redis";
/// Where pods find the password of an external Redis' sentinels.
pub(super) const SENTINEL: &str = "/etc/perses/redis-sentinel";
/// Where pods find the authority of an external Redis.
pub(super) const REDIS_AUTHORITY: &str = "/etc/perses/redis-ca";

/// The file that `serve` reads. Holds no secret: passwords and keys are named by file.
pub(super) fn serve(v: &Validated, sizing: &Sizing, endpoint: &Endpoint) -> Result<String, Invalid> {
    let mut cache = json!({ "l1_max_bytes": sizing.api.l1_max_bytes.value.0, "dashboard_ttl": "5m" });
    if let Some(redis) = redis(v, sizing) {
        cache["redis"] = redis;
    }
    let target = target::api(v, sizing, endpoint);
    let mut database = postgres(endpoint, &target, sizing.api.database_connections.value);
    if v.spec.pooler.type_ != PoolerType::None {
        database["statement_timeout"] = json!(format!("{}s", drain::STATEMENT_SECONDS));
        database["max_lifetime"] = json!(format!("{}s", drain::CONNECTION_SECONDS));
    }
    let mut config = json!({
        "security": {
            "readonly": false,
            "enable_auth": true,
            "cookie": { "same_site": "lax", "secure": secure_cookies(v) },
            "authentication": sign_in::authentication(v),
            "authorization": sign_in::authorization(v),
        },
        "database": { "postgres": database },
        "cache": cache,
        "query": { "timeout": "1m", "cache": true, "ttl": { "realtime": "30s", "recent": "5m", "historical": "15m" } },
        "server": server(v),
        "limits_file": format!("{}/{}", limits_file::FOLDER, limits_file::FILE),
        "provisioning": { "folders": ["/etc/perses/provisioning"], "interval": "1m", "prune": true },
    });
    keys(v, &mut config["security"]);
    if let Some(most) = v.spec.limits.rate.as_ref().and_then(|rate| rate.max_connections) {
        config["server"]["max_connections"] = json!(most);
    }
    if let Some(own) = &v.spec.api.config {
        merge(&mut config, own);
    }
    yaml(&config)
}

/// Where a cluster's routers, pods and nodes usually are: private networks (RFC 1918, RFC 6598, RFC 4193).
const PRIVATE_NETWORKS: [&str; 5] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"];

/// Whether browsers send the sign-in cookies by HTTPS only: where it is certain that they come by HTTPS.
fn secure_cookies(v: &Validated) -> bool {
    match v.configured_exposure {
        ExposureType::Route => true,
        ExposureType::Ingress => v.spec.exposure.tls.is_some(),
        // Whether the Gateway's listener has a certificate is its own affair.
        ExposureType::HttpRoute => false,
        ExposureType::None | ExposureType::Auto => v.spec.api.tls.is_some(),
    }
}

fn server(v: &Validated) -> Value {
    let mut server = json!({
        "drain_delay": format!("{}s", api_drain::DELAY_SECONDS),
        "drain_timeout": format!("{}s", api_drain::TIMEOUT_SECONDS),
        "max_body_bytes": 4_194_304,
    });
    let proxies = match (&v.spec.exposure.trusted_proxies, v.spec.exposure.type_) {
        (Some(own), _) => own.clone(),
        (None, ExposureType::None) => Vec::new(),
        (None, _) => PRIVATE_NETWORKS.map(str::to_owned).to_vec(),
    };
    if !proxies.is_empty() {
        server["trusted_proxies"] = json!(proxies);
    }
    if v.serving_tls.is_some() {
        server["tls"] = json!({ "cert_file": "/etc/perses/tls/tls.crt", "key_file": "/etc/perses/tls/tls.key" });
    }
    server
}

/// The file that `migrate` reads: the database and nothing else, so that its hash changes only with the database.
pub(super) fn migrate(endpoint: &Endpoint) -> Result<String, Invalid> {
    yaml(&direct(endpoint))
}

/// Where pods find the key of stored secrets; once it was rotated, also those with which may be read.
pub(super) fn keys(v: &Validated, security: &mut Value) {
    let path = |key: &str| format!("/etc/perses/keys/{key}");
    security["encryption_key_file"] = json!(path(ENCRYPTION_KEY));
    if v.generated.has(&v.names.keys(), NEXT_KEY) {
        security["previous_encryption_key_files"] = json!([path(NEXT_KEY), path(PREVIOUS_KEY)]);
    }
}

/// The configuration of a Job: the primary of the database itself.
pub(super) fn direct(endpoint: &Endpoint) -> Value {
    // The schema migration takes an advisory lock for a session: past every pooler, to the primary.
    let (host, port) = &endpoint.direct;
    let target = Target {
        primary: Address { host: host.clone(), port: *port, dbname: None },
        replica: None,
        sslmode: endpoint.sslmode,
        ca: endpoint.ca.as_ref().map(|ca| (ca.secret.clone(), ca.key.clone())),
    };
    json!({ "database": { "postgres": postgres(endpoint, &target, 2) } })
}

fn postgres(endpoint: &Endpoint, target: &Target, max_connections: i32) -> Value {
    let (direct_host, direct_port) = &endpoint.direct;
    let mut postgres = json!({
        "host": target.primary.host,
        "port": target.primary.port,
        "dbname": endpoint.dbname,
        "user_file": "/etc/perses/database/user",
        "password_file": "/etc/perses/database/password",
        "sslmode": target.sslmode,
        "max_connections": max_connections,
        "direct": { "host": direct_host, "port": direct_port },
    });
    if target.ca.is_some() {
        postgres["ca_file"] = json!(format!("{AUTHORITY}/ca.crt"));
    }
    if let Some(Address { host, port, dbname }) = &target.replica {
        postgres["replica"] = json!({ "host": host, "port": port });
        if let Some(dbname) = dbname {
            postgres["replica"]["dbname"] = json!(dbname);
        }
    }
    postgres
}

/// `cache.redis`; `None` without a shared cache, and while the credentials of an external one are waited for.
fn redis(v: &Validated, sizing: &Sizing) -> Option<Value> {
    let external = match (v.spec.cache.type_, &v.spec.cache.external) {
        (CacheType::Standalone | CacheType::Sentinel, _) => {
            let redis = v.names.redis();
            let own = json!({
                "username": v.generated.text(&redis, "username").unwrap_or("perses"),
                "password_file": format!("{REDIS}/password"),
            });
            let mut config = own.clone();
            match sizing.redis.as_ref().filter(|sizing| sizing.sentinels) {
                Some(sizing) => {
                    config["sentinel"] = own;
                    config["sentinel"]["addrs"] = json!(redis::addresses(v, sizing));
                    config["sentinel"]["master_name"] = json!(redis::LEADER);
                }
                None => config["addr"] = json!(format!("{redis}:{}", redis::PORT)),
            }
            return Some(config);
        }
        (CacheType::External, Some(external)) => external,
        _ => return None,
    };
    let login = v.redis_login.as_ref()?;
    let mut redis = json!({});
    sign_in(&mut redis, login.server.as_ref(), REDIS);
    match (external.mode, &external.sentinel) {
        (RedisMode::Sentinel, Some(sentinel)) => {
            redis["sentinel"] = json!({ "addrs": external.addresses, "master_name": sentinel.master_name });
            sign_in(&mut redis["sentinel"], login.sentinel.as_ref(), SENTINEL);
        }
        (RedisMode::Cluster, _) => redis["cluster"] = json!({ "addrs": external.addresses }),
        _ => redis["addr"] = json!(external.addresses.first()),
    }
    if external.tls.is_some() {
        redis["tls"] = json!({});
        if login.ca.is_some() {
            redis["tls"]["ca_file"] = json!(format!("{REDIS_AUTHORITY}/ca.crt"));
        }
    }
    Some(redis)
}

fn sign_in(part: &mut Value, credentials: Option<&RedisCredentials>, folder: &str) {
    let Some(credentials) = credentials else { return };
    if let Some(username) = &credentials.username {
        part["username"] = json!(username);
    }
    part["password_file"] = json!(format!("{folder}/password"));
}

/// Objects merge key by key; anything else replaces.
fn merge(base: &mut Value, over: &Map<String, Value>) {
    for (key, value) in over {
        match (&mut base[key.as_str()], value) {
            (slot @ Value::Object(_), Value::Object(inner)) => merge(slot, inner),
            (slot, value) => *slot = value.clone(),
        }
    }
}

pub(super) fn yaml(config: &Value) -> Result<String, Invalid> {
    serde_saphyr::to_string(config).map_err(|error| {
        Invalid::terminal("ConfigInvalid", format!("spec.api.config cannot be written as YAML ({error}): simplify it"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_merge_and_the_rest_replaces() {
        let mut base = json!({ "a": { "b": 1, "c": [1, 2] }, "d": "x" });
        let Value::Object(over) = json!({ "a": { "c": [3] }, "d": { "e": true }, "f": null }) else { panic!("object") };
        merge(&mut base, &over);
        assert_eq!(base, json!({ "a": { "b": 1, "c": [3] }, "d": { "e": true }, "f": null }));
    }
}
