//! Every sample passes schema and rules; what must not pass does not, and says why.

use persesstack_operator::controllers::persesstack::observed::Capabilities;
use persesstack_operator::render::{self, RenderError};
use persesstack_operator::settings::Settings;
use serde_json::{Value, json};

use crate::files;

#[test]
fn every_sample_is_accepted() {
    let mut seen = 0;
    for entry in std::fs::read_dir(files::workspace_dir().join("config/samples")).expect("config/samples") {
        let path = entry.expect("entry").path();
        if path.extension().is_none_or(|e| e != "yaml") || path.ends_with("kustomization.yaml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("text");
        match render::render(&text, &Settings::default(), Capabilities::with(&[])) {
            Ok(stacks) => seen += stacks.len(),
            // The Secret of somebody else's database is not part of the sample.
            Err(RenderError::Invalid { invalid, .. }) if invalid.waiting_for.is_some() => seen += 1,
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }
    assert!(seen >= 3, "only {seen} samples");
}

fn stack(name: &str, spec: &Value) -> Value {
    json!({ "apiVersion": "persesstack.io/v1alpha1", "kind": "PersesStack", "metadata": { "name": name }, "spec": spec })
}

#[track_caller]
fn refused(name: &str, spec: &Value, because: &str) {
    match render::accept(&stack(name, spec)) {
        Ok(_) => panic!("accepted: {spec}"),
        Err(problems) => {
            let problems = problems.join("; ");
            assert!(problems.contains(because), "{spec} is refused because of `{problems}`, not `{because}`");
        }
    }
}

#[test]
fn rules_refuse_what_cannot_work() {
    render::accept(&stack("perses", &json!({ "users": 500 }))).expect("the smallest spec");
    refused("perses", &json!({}), "spec.users: required");
    refused("perses", &json!({ "users": 0 }), "at least 1");
    refused("perses", &json!({ "users": 100_001 }), "at most 100000");
    refused("perses", &json!({ "users": "many" }), "type integer");
    refused("perses", &json!({ "users": 5, "user": 5 }), "spec.user: unknown field");
    refused("1perses", &json!({ "users": 5 }), "DNS label");
    refused("per.ses", &json!({ "users": 5 }), "DNS label");
    refused(&"a".repeat(41), &json!({ "users": 5 }), "40 characters");
    refused("perses", &json!({ "users": 5, "api": { "minReplicas": 3, "maxReplicas": 2 } }), "minReplicas must not");
    refused("perses", &json!({ "users": 5, "database": { "type": "External" } }), "external must be set");
    let secret = json!({ "secretRef": { "name": "db" } });
    refused(
        "perses",
        &json!({ "users": 5, "database": { "type": "Standalone", "external": secret } }),
        "external must be set",
    );
    refused(
        "perses",
        &json!({ "users": 5, "database": { "type": "External", "external": secret, "standalone": {} } }),
        "standalone can be set only",
    );
    refused("perses", &json!({ "users": 5, "database": { "type": "Oracle" } }), "must be one of");
    refused(
        "perses",
        &json!({ "users": 5, "pooler": { "type": "None", "pgbouncer": {} } }),
        "pgbouncer can be set only",
    );
    refused(
        "perses",
        &json!({ "users": 5, "cache": { "type": "None", "standalone": {} } }),
        "standalone can be set only",
    );
    refused("perses", &json!({ "users": 5, "cache": { "sentinel": {} } }), "sentinel can be set only");
    refused(
        "perses",
        &json!({ "users": 5, "api": { "resources": { "requests": { "cpu": "lots" } } } }),
        "does not match",
    );
    let named = |names: &[&str]| {
        let list: Vec<_> =
            names.iter().map(|n| json!({ "name": n, "url": "http://p:9090", "default": true })).collect();
        json!({ "users": 5, "datasources": list })
    };
    let exposed = |exposure: Value| json!({ "users": 5, "exposure": exposure });
    refused("perses", &exposed(json!({ "type": "Ingress" })), "set host");
    refused("perses", &exposed(json!({ "type": "HTTPRoute" })), "name the Gateway");
    let gateway = json!({ "gateway": { "name": "g" } });
    refused(
        "perses",
        &exposed(json!({ "type": "Route", "httpRoute": gateway })),
        "only when type is HTTPRoute or Auto",
    );
    let tls = json!({ "secretRef": { "name": "t" } });
    refused(
        "perses",
        &exposed(json!({ "type": "HTTPRoute", "httpRoute": gateway, "tls": tls })),
        "has the certificate",
    );
    refused("perses", &exposed(json!({ "type": "Route", "ingress": {} })), "only when type is Ingress or Auto");
    refused("perses", &exposed(json!({ "type": "None", "host": "a.example" })), "nothing to apply to");
    refused("perses", &exposed(json!({ "host": "A_b" })), "does not match");
    refused("perses", &json!({ "users": 5, "api": { "tls": { "type": "Secret" } } }), "set secret when type is Secret");
    refused("perses", &named(&["a", "b"]), "at most one datasource");
    refused("perses", &named(&["a", "a"]), "name of its own");
    refused("perses", &json!({ "users": 5, "datasources": [{ "name": "p", "url": "ftp://p" }] }), "does not match");
    refused(
        "perses",
        &json!({ "users": 5, "datasources": [{ "name": "p", "url": "http://p", "auth": {} }] }),
        "exactly one of basic and bearer",
    );
}

#[test]
fn a_bare_number_is_a_quantity() {
    let spec = json!({ "users": 5, "api": { "resources": { "requests": { "cpu": 1, "memory": "1Gi" } } } });
    let stack = render::accept(&stack("perses", &spec)).expect("accepted");
    assert_eq!(stack.spec.api.resources.requests.cpu.map(|q| q.0).as_deref(), Some("1"));
}

#[test]
fn members_go_with_their_type() {
    let database = |database: Value| json!({ "users": 5, "database": database });
    refused("perses", &database(json!({ "type": "Standalone", "crunchy": {} })), "crunchy can be set only");
    refused(
        "perses",
        &database(
            json!({ "type": "External", "external": { "secretRef": { "name": "db" }, "sslMode": "verify-full" } }),
        ),
        "need ca",
    );
    let backups = |backups: Value| database(json!({ "type": "Crunchy", "crunchy": { "backups": backups } }));
    refused("perses", &backups(json!({ "type": "S3" })), "s3 must be set");
    refused("perses", &backups(json!({ "type": "None", "volume": {} })), "volume can be set only");
    refused("perses", &backups(json!({ "retentionDays": 0 })), "at least 1");
    refused("perses", &json!({ "users": 5, "pooler": { "type": "Crunchy", "tls": {} } }), "tls can be set only");
    let redis = |redis: Value| json!({ "users": 5, "cache": { "type": "External", "external": redis } });
    refused("perses", &json!({ "users": 5, "cache": { "type": "External" } }), "external must be set");
    refused("perses", &redis(json!({ "addresses": ["a:1", "b:1"] })), "one address");
    refused("perses", &redis(json!({ "addresses": ["a"] })), "does not match");
    refused("perses", &redis(json!({ "mode": "Sentinel", "addresses": ["a:1"] })), "sentinel must be set");
    for spec in [
        database(json!({ "type": "Crunchy" })),
        database(json!({ "type": "Auto", "crunchy": { "replicas": 2 } })),
        backups(json!({ "type": "None" })),
        json!({ "users": 5, "pooler": { "tls": {} } }),
        redis(json!({ "addresses": ["redis.example:6379"], "tls": {} })),
        redis(json!({ "mode": "Cluster", "addresses": ["a.example:6379", "b.example:6379"] })),
    ] {
        render::accept(&stack("perses", &spec)).unwrap_or_else(|problems| panic!("{spec}: {problems:?}"));
    }
}
