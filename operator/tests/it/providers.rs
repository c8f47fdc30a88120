//! Stores, poolers and caches of others: how their Secrets are read, what is refused, and what is said.

use std::collections::BTreeMap;

use persesstack_operator::api::v1alpha1::{DatabaseType, PersesStack};
use persesstack_operator::apply::kind::Kind;
use persesstack_operator::controllers::persesstack::crunchy::{ClusterState, CrunchySchema};
use persesstack_operator::controllers::persesstack::observed::{Availability, Capabilities, Observed, SecretData};
use persesstack_operator::controllers::persesstack::validate::{Endpoint, Invalid, Validated, validate};
use persesstack_operator::controllers::persesstack::{build, provider};
use persesstack_operator::settings::{Entropy, Settings};
use persesstack_operator::{render, sizing};
use serde_json::{Value, json};

const PEM: &str = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";

fn stack(spec: &Value) -> PersesStack {
    let document = json!({
        "apiVersion": "persesstack.io/v1alpha1", "kind": "PersesStack",
        "metadata": { "name": "perses", "namespace": "observability", "uid": "7d1f" }, "spec": spec,
    });
    render::accept(&document).unwrap_or_else(|problems| panic!("{spec}: {problems:?}"))
}

fn run(stack: &PersesStack, observed: &Observed) -> Result<Validated, Invalid> {
    let validated = validate(stack, observed, &Settings::default(), &Entropy::fixed())?;
    validated.waits.first().cloned().map_or(Ok(validated), Err)
}

/// A cluster without optional APIs that has these Secrets.
fn with(secrets: &[(&str, &[(&str, &str)])]) -> Observed {
    let data = |pairs: &[(&str, &str)]| SecretData {
        data: pairs.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect(),
        ..SecretData::default()
    };
    let secrets: BTreeMap<_, _> = secrets.iter().map(|(name, pairs)| ((*name).to_owned(), data(pairs))).collect();
    Observed { secrets, capabilities: Capabilities::with(&[]), ..Observed::default() }
}

/// A cluster with Crunchy's operator, which has answered.
fn crunchy() -> Observed {
    let mut observed = with(&[
        ("perses-db-pguser-perses", &[("user", "perses"), ("password", "word"), ("pgbouncer-uri", "x")]),
        ("perses-db-cluster-cert", &[("ca.crt", PEM)]),
    ]);
    observed.capabilities = Capabilities::with(&[Kind::PostgresCluster]);
    observed.crunchy_schema = Some(CrunchySchema::NEWEST);
    observed.workloads.cluster = Some(ClusterState::well());
    observed
}

fn external(fields: &Value, secret: &[(&str, &str)]) -> Result<Endpoint, Invalid> {
    let mut external = json!({ "secretRef": { "name": "db" } });
    external.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let spec = json!({ "users": 500, "database": { "type": "External", "external": external } });
    let observed = with(&[("db", secret), ("db-ca", &[("ca.crt", PEM), ("bundle", PEM)])]);
    run(&stack(&spec), &observed).map(|validated| validated.endpoint.expect("an endpoint"))
}

#[test]
fn secrets_of_the_usual_providers_are_read() {
    // CloudNativePG's <cluster>-app.
    let cnpg = [
        ("host", "perses-rw"),
        ("port", "5432"),
        ("dbname", "app"),
        ("user", "app"),
        ("username", "app"),
        ("password", "word"),
        ("uri", "postgresql://app:word@perses-rw:5432/app"),
        ("pgpass", "x"),
    ];
    let fields = json!({ "ca": { "secretRef": { "name": "db-ca" } }, "read": { "host": "perses-ro" } });
    let found = external(&fields, &cnpg).expect("CNPG");
    assert_eq!((found.host.as_str(), found.port, found.dbname.as_str()), ("perses-rw", 5432, "app"));
    assert_eq!((found.sslmode, found.read), ("verify-full", Some(("perses-ro".to_owned(), 5432))));
    assert_eq!(found.secret_keys, ("user".to_owned(), "password".to_owned()));
    // RDS by way of AWS Secrets Manager; the authority is a bundle under another key.
    let rds = [
        ("engine", "postgres"),
        ("host", "db.eu.rds.amazonaws.com"),
        ("port", "5433"),
        ("username", "master"),
        ("password", "word"),
        ("dbInstanceIdentifier", "db"),
    ];
    let fields = json!({ "dbname": "perses", "ca": { "secretRef": { "name": "db-ca" }, "key": "bundle" } });
    let found = external(&fields, &rds).expect("RDS");
    assert_eq!((found.port, found.dbname.as_str(), found.login.user.as_str()), (5433, "perses", "master"));
    assert_eq!(found.secret_keys.0, "username");
    // Zalando's <user>.<cluster>.credentials: user and password only.
    let zalando = [("username", "app"), ("password", "word")];
    let fields = json!({ "host": "acid-perses", "dbname": "perses", "sslMode": "require" });
    let found = external(&fields, &zalando).expect("Zalando");
    assert_eq!((found.host.as_str(), found.port, found.sslmode), ("acid-perses", 5432, "require"));
    // Keys that are named are the ones, also when the usual ones are there.
    let fields = json!({ "keys": { "user": "owner", "password": "secret" }, "host": "h", "dbname": "d" });
    let own = [("user", "no"), ("owner", "yes"), ("password", "no"), ("secret", "word")];
    let found = external(&fields, &own).expect("own keys");
    assert_eq!((found.login.user.as_str(), found.secret_keys.1.as_str()), ("yes", "secret"));
}

#[test]
fn what_an_external_database_lacks_is_named() {
    let waits = |fields: Value, secret: &[(&str, &str)], text: &str| {
        let invalid = external(&fields, secret).expect_err("waits");
        assert!(!invalid.terminal && invalid.message.contains(text), "{}", invalid.message);
    };
    let whole = [("host", "h"), ("dbname", "d"), ("user", "u"), ("password", "p")];
    waits(json!({ "keys": { "user": "owner" } }), &whole, "key owner in Secret db");
    waits(json!({}), &[("username", "u"), ("password", "p")], "key host in Secret db");
    waits(json!({ "ca": { "secretRef": { "name": "db-ca" }, "key": "none" } }), &whole, "key none in Secret db-ca");
    waits(json!({ "ca": { "secretRef": { "name": "away" } } }), &whole, "Secret away");
    waits(json!({ "ca": { "secretRef": { "name": "db" }, "key": "host" } }), &whole, "no certificate");
    let refused = external(&json!({ "dbname": "perses_ro", "read": { "host": "r" } }), &whole).expect_err("refused");
    assert!(refused.terminal && refused.message.contains("perses_ro"), "{}", refused.message);
}

#[test]
fn auto_takes_crunchy_where_it_is_and_never_guesses() {
    let auto = |users: i32| stack(&json!({ "users": users }));
    for users in [5, 500] {
        assert_eq!(run(&auto(users), &crunchy()).map(|v| v.database_type), Ok(DatabaseType::Crunchy));
    }
    let mut silent = with(&[]);
    silent.capabilities.set(Kind::PostgresCluster, Availability::Unknown);
    let invalid = run(&auto(5), &silent).expect_err("the choice is for good");
    assert!(!invalid.terminal && invalid.reason == "ApiUnavailable", "{invalid}");
    // A store in use is no choice any more.
    let mut used = auto(5);
    used.status = Some(serde_json::from_value(json!({ "database": { "type": "Standalone" } })).unwrap());
    assert_eq!(run(&used, &crunchy()).map(|v| v.database_type), Ok(DatabaseType::Standalone));
    assert_eq!(run(&used, &silent).map(|v| v.database_type), Ok(DatabaseType::Standalone));
}

#[test]
fn crunchy_that_is_not_there_or_does_not_say_what_it_can() {
    let wanted = stack(&json!({ "users": 5, "database": { "type": "Crunchy" } }));
    let invalid = run(&wanted, &with(&[])).expect_err("not installed");
    assert!(invalid.terminal && invalid.reason == "CrunchyMissing", "{invalid}");
    // Its API is away: the cluster is not touched, what runs is kept up.
    let mut silent = crunchy();
    silent.capabilities.set(Kind::PostgresCluster, Availability::Unknown);
    let v = validate(&wanted, &silent, &Settings::default(), &Entropy::fixed()).expect("not terminal");
    let built = build::build(&v, &sizing::size(&v.inputs)).expect("built");
    assert!(built.cluster.expect("a cluster").object.is_none() && built.api.deployment.is_some());
    let mut unread = crunchy();
    unread.crunchy_schema = None;
    let v = validate(&wanted, &unread, &Settings::default(), &Entropy::fixed()).expect("not terminal");
    assert_eq!(v.waits.first().map(|why| why.reason), Some("ApiUnavailable"));
}

#[test]
fn secrets_of_somebody_elses_cluster_are_not_used() {
    let wanted = stack(&json!({ "users": 5, "database": { "type": "Crunchy" } }));
    let mut strange = crunchy();
    strange.workloads.cluster = None;
    let v = validate(&wanted, &strange, &Settings::default(), &Entropy::fixed()).expect("not terminal");
    assert_eq!(v.waits.first().map(|why| why.reason), Some("ClusterNotCreated"));
    let built = build::build(&v, &sizing::size(&v.inputs)).expect("built");
    assert!(built.migration.is_none() && built.api.deployment.is_none());
    assert!(built.cluster.expect("a cluster").object.is_some(), "it is made, where its name is free");
}

/// The cluster that is built for this part of the spec.
fn built(crunchy_spec: &Value, schema: CrunchySchema) -> Result<Value, Invalid> {
    let observed = Observed { crunchy_schema: Some(schema), ..crunchy() };
    let spec = json!({ "users": 500, "database": { "type": "Crunchy", "crunchy": crunchy_spec } });
    let v = run(&stack(&spec), &observed)?;
    let object = build::build(&v, &sizing::size(&v.inputs))?.cluster.and_then(|cluster| cluster.object);
    Ok(serde_json::to_value(object.expect("a cluster")).unwrap())
}

#[test]
fn an_old_crd_gets_what_it_knows() {
    let old = CrunchySchema { parameters: false, optional_backups: false, auto_grow: false };
    let growing = json!({ "storage": { "size": "10Gi", "maxSize": "20Gi" }, "parameters": { "work_mem": "8MB" } });
    let cluster = built(&growing, old).expect("built");
    let parameters = &cluster["spec"]["patroni"]["dynamicConfiguration"]["postgresql"]["parameters"];
    assert_eq!((&parameters["max_connections"], &parameters["work_mem"]), (&json!(100), &json!("8MB")));
    assert!(cluster["spec"]["config"].is_null());
    let claim = &cluster["spec"]["instances"][0]["dataVolumeClaimSpec"];
    assert!(claim["autoGrow"].is_null() && claim["resources"]["limits"]["storage"] == "20Gi", "{claim}");
    let new = built(&growing, CrunchySchema::NEWEST).expect("built");
    assert_eq!(new["spec"]["config"]["parameters"]["work_mem"], "8MB");
    assert!(
        new["spec"]["patroni"].is_null() && new["spec"]["instances"][0]["dataVolumeClaimSpec"]["autoGrow"].is_object()
    );
    let invalid = built(&json!({ "backups": { "type": "None" } }), old).expect_err("required there");
    assert_eq!((invalid.reason, invalid.terminal), ("BackupsRequired", true));
    assert!(
        built(&json!({ "backups": { "type": "None" } }), CrunchySchema::NEWEST).unwrap()["spec"]["backups"].is_null()
    );
}

#[test]
fn what_a_cluster_cannot_be_is_refused() {
    for (spec, reason, text) in [
        (json!({ "parameters": { "wal_level": "replica" } }), "ParameterRefused", "wal_level"),
        (json!({ "parameters": { "max_connections": "7" } }), "ParameterRefused", "crunchy.maxConnections"),
        (json!({ "storage": { "size": "20Gi", "maxSize": "10Gi" } }), "StorageInvalid", "maxSize 10Gi"),
        (json!({ "storage": { "size": "1Mi" } }), "StorageTooSmall", "database.crunchy.storage.size"),
    ] {
        let invalid = built(&spec, CrunchySchema::NEWEST).expect_err("refused");
        assert!(invalid.terminal && invalid.reason == reason && invalid.message.contains(text), "{invalid}");
    }
    let pooler = stack(&json!({ "users": 5, "database": { "type": "Standalone" }, "pooler": { "type": "Crunchy" } }));
    let invalid = run(&pooler, &with(&[])).expect_err("no cluster to put it into");
    assert_eq!(invalid.reason, "PoolerInvalid");
}

#[test]
fn leaving_a_store_is_said_twice() {
    let mut moved = stack(&json!({ "users": 5, "database": { "type": "Standalone" } }));
    moved.status = Some(serde_json::from_value(json!({ "database": { "type": "External" } })).unwrap());
    let observed = with(&[]);
    let invalid = run(&moved, &observed).expect_err("refused");
    assert!(invalid.terminal && invalid.reason == "DatabaseHoldsData", "{invalid}");
    let mut annotate = |value: &str| {
        let annotations = BTreeMap::from([(provider::CONFIRM_DATABASE_CHANGE.to_owned(), value.to_owned())]);
        moved.metadata.annotations = Some(annotations);
        run(&moved, &observed).map(|v| v.database_type)
    };
    assert!(annotate("Crunchy").is_err(), "another one was confirmed");
    assert_eq!(annotate("Standalone"), Ok(DatabaseType::Standalone));
}

#[test]
fn the_end_of_a_pair_of_certificates_is_waited_for() {
    let spec = stack(&json!({ "users": 5, "pooler": { "tls": { "secretRef": { "name": "pair" } } } }));
    let invalid = run(&spec, &with(&[("pair", &[("tls.crt", "c"), ("tls.key", "k")])])).expect_err("waits");
    assert!(invalid.message.contains("key ca.crt in Secret pair"), "{}", invalid.message);
    let pair = |key: &str| {
        let observed = with(&[("pair", &[("tls.crt", "c"), ("tls.key", key), ("ca.crt", PEM)])]);
        let v = run(&spec, &observed).expect("whole");
        let pooler = build::build(&v, &sizing::size(&v.inputs)).expect("built").pooler.expect("a pooler");
        pooler.deployment.expect("pods").spec.unwrap().template.metadata.unwrap().annotations.unwrap()
    };
    assert_eq!(pair("k"), pair("k"));
    assert_ne!(pair("k"), pair("another"), "PgBouncer reads it at its start only");
}
