//! Choices and references: what is resolved, what waits, what is refused, and in which words.

use std::collections::BTreeMap;

use persesstack_operator::api::v1alpha1::{DatabaseType, PersesStack};
use persesstack_operator::controllers::persesstack::build;
use persesstack_operator::controllers::persesstack::observed::{Capabilities, Observed, SecretData};
use persesstack_operator::controllers::persesstack::validate::{Invalid, SecretRef, Validated, validate};
use persesstack_operator::settings::{Entropy, Settings};
use persesstack_operator::{render, sizing};
use serde_json::{Value, json};

/// A cluster without optional APIs in which there is nothing yet.
fn nothing() -> Observed {
    Observed { capabilities: Capabilities::with(&[]), ..Observed::default() }
}

fn stack(spec: &Value) -> PersesStack {
    let document = json!({
        "apiVersion": "persesstack.io/v1alpha1", "kind": "PersesStack",
        "metadata": { "name": "perses", "namespace": "observability", "uid": "7d1f" }, "spec": spec,
    });
    render::accept(&document).unwrap_or_else(|problems| panic!("{spec}: {problems:?}"))
}

/// What can be built now.
fn partial(spec: &Value, observed: &Observed) -> Result<Validated, Invalid> {
    validate(&stack(spec), observed, &Settings::default(), &Entropy::fixed())
}

/// A whole stack, or the first thing that is wrong or missing.
fn run(spec: &Value, observed: &Observed) -> Result<Validated, Invalid> {
    let validated = partial(spec, observed)?;
    validated.waits.first().cloned().map_or(Ok(validated), Err)
}

fn secret(pairs: &[(&str, &str)], ours: bool) -> SecretData {
    SecretData {
        data: pairs.iter().map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec())).collect(),
        ours,
        rotation: None,
    }
}

fn with_secret(name: &str, data: SecretData) -> Observed {
    Observed { secrets: BTreeMap::from([(name.to_owned(), data)]), ..nothing() }
}

/// A stack that exists has its encryption key.
fn with_key() -> Observed {
    let data = BTreeMap::from([("encryption-key".to_owned(), vec![7; 32])]);
    with_secret("perses-keys", SecretData { data, ours: true, rotation: None })
}

fn external() -> Value {
    json!({ "users": 500, "database": { "type": "External", "external": { "secretRef": { "name": "db" } } } })
}

fn database(extra: &[(&str, &str)]) -> Observed {
    let mut pairs = vec![("host", "pg.example"), ("dbname", "perses"), ("user", "app"), ("password", "pa'ss \"word\"")];
    for (key, value) in extra {
        pairs.retain(|(k, _)| k != key);
        pairs.push((key, value));
    }
    with_secret("db", secret(&pairs, false))
}

#[test]
fn auto_takes_the_store_that_holds_the_data_then_the_number_of_users() {
    let auto = |users: i32, found: Option<DatabaseType>| {
        run(&json!({ "users": users }), &Observed { database: found, ..with_key() }).map(|v| v.database_type)
    };
    assert_eq!(auto(50, None), Ok(DatabaseType::Standalone));
    assert_eq!(auto(5000, Some(DatabaseType::Standalone)), Ok(DatabaseType::Standalone), "it never flips later");
    let invalid = auto(51, None).expect_err("a decision is needed");
    assert!(invalid.terminal && invalid.waiting_for.is_none());
    assert!(invalid.message.contains("External") && invalid.message.contains("Standalone"), "{}", invalid.message);
}

#[test]
fn an_encryption_key_is_never_made_anew_where_there_is_data() {
    let spec = json!({ "users": 5 });
    for observed in [
        Observed { api_replicas: Some(2), ..nothing() },
        Observed { database: Some(DatabaseType::Standalone), ..nothing() },
    ] {
        let invalid = run(&spec, &observed).expect_err("the key was lost");
        assert_eq!((invalid.reason, invalid.terminal), ("EncryptionKeyLost", false));
        let restored = Observed { secrets: with_key().secrets, ..observed };
        run(&spec, &restored).expect("restored");
    }
}

#[test]
fn data_in_a_volume_is_not_left_behind() {
    let mut observed = database(&[]);
    observed.database = Some(DatabaseType::Standalone);
    let invalid = run(&external(), &observed).expect_err("refused");
    assert_eq!(invalid.reason, "DatabaseHoldsData");
    assert!(invalid.message.contains("perses-db"), "{}", invalid.message);
}

#[test]
fn a_missing_secret_or_key_is_waited_for_by_name() {
    let invalid = run(&external(), &nothing()).expect_err("waits");
    assert_eq!(invalid.waiting_for, Some(SecretRef { name: "db".to_owned(), key: None }));
    assert!(!invalid.terminal);
    let invalid = run(&external(), &database(&[("password", "")])).expect_err("waits");
    assert_eq!(invalid.waiting_for, Some(SecretRef { name: "db".to_owned(), key: Some("password".to_owned()) }));
}

/// What is built of each part: database, cache, pooler, migration, API.
fn pods(v: &Validated) -> [bool; 5] {
    let r = build::build(v, &sizing::size(&v.inputs)).expect("built");
    [
        r.database.is_some_and(|database| database.stateful_set.is_some()),
        r.cache.is_some_and(|cache| cache.deployment.is_some()),
        r.pooler.is_some_and(|pooler| pooler.deployment.is_some() && pooler.config.is_some()),
        r.migration.is_some(),
        r.api.deployment.is_some() && r.api.config.is_some(),
    ]
}

#[test]
fn what_is_missing_holds_back_what_needs_it_and_nothing_else() {
    let spec = json!({ "users": 5 });
    let foreign = |name: &str| with_secret(name, secret(&[("password", "x")], false));
    let lost = Observed { api_replicas: Some(2), ..nothing() };
    for (spec, observed, built) in [
        (&spec, nothing(), [true; 5]),
        (&spec, foreign("perses-keys"), [true, true, true, true, false]),
        (&spec, foreign("perses-admin"), [true, true, true, true, false]),
        (&spec, foreign("perses-redis"), [true, false, true, true, false]),
        (&spec, foreign("perses-pgbouncer-client"), [true, true, false, true, false]),
        (&spec, foreign("perses-db"), [false, true, false, false, false]),
        (&spec, lost, [true, true, true, true, false]),
        (&external(), nothing(), [false, true, false, false, false]),
        (&external(), database(&[]), [false, true, true, true, true]),
    ] {
        let v = partial(spec, &observed).expect("nothing terminal");
        assert_eq!(pods(&v), built, "{:?}", v.waits);
        for name in observed.secrets.keys().filter(|name| *name != "db") {
            assert!(!v.generated.secrets.contains_key(name), "{name} is somebody else's");
        }
    }
}

#[test]
fn a_datasource_without_its_secret_holds_back_nothing_but_itself() {
    let datasources = json!([
        { "name": "open", "url": "http://a:9090" },
        { "name": "closed", "url": "http://b:9090", "auth": { "bearer": { "secretRef": { "name": "token" } } } },
    ]);
    let spec = json!({ "users": 5, "datasources": datasources });
    let v = partial(&spec, &nothing()).expect("nothing terminal");
    assert_eq!(pods(&v), [true; 5]);
    let names: Vec<_> = v.datasources.iter().map(|datasource| datasource.spec.name.as_str()).collect();
    assert_eq!(names, ["open"]);
    let message = &v.waits.first().expect("waits").message;
    assert!(message.contains("Secret token") && message.contains("datasource closed"), "{message}");
    // What only a changed spec cures still stops everything.
    let wrong = json!({ "users": 5, "datasources": [{ "name": "p", "url": "http://u:p@h:9090" }] });
    assert!(partial(&wrong, &nothing()).expect_err("refused").terminal);
}

#[test]
fn the_external_endpoint_is_what_the_secret_says() {
    let v = run(&external(), &database(&[("port", "6432")])).expect("valid");
    let endpoint = v.endpoint.clone().expect("endpoint");
    assert_eq!((endpoint.host.as_str(), endpoint.port), ("pg.example", 6432));
    assert_eq!(endpoint.direct, ("pg.example".to_owned(), 6432));
    assert_eq!(endpoint.login.password.0, "pa'ss \"word\"");
    let sizing = sizing::size(&v.inputs);
    let resources = build::build(&v, &sizing).expect("built");
    assert!(resources.database.is_none() && resources.retained.claim.is_none());
    let pooler = resources.pooler.expect("pooler");
    let data = pooler.config.expect("config").data.expect("data");
    let text = |key: &str| String::from_utf8(data[key].0.clone()).expect("text");
    let (user, password) = v.generated.pooler_client(&v.names).expect("a client of the pooler");
    assert_eq!(text("userlist.txt"), format!("\"{user}\" \"{password}\"\n"), "a word of its own");
    let line = "* = host='pg.example' port=6432 user='app' password='pa''ss \"word\"'\n";
    assert!(text("pgbouncer.ini").contains(line), "{}", text("pgbouncer.ini"));
}

#[test]
fn values_that_would_break_a_configuration_file_are_refused() {
    for (key, value) in [
        ("host", "zz qq"),
        ("host", "x' password='y"),
        ("dbname", "zz\nqq"),
        ("user", "zz\"qq"),
        ("password", "zz\nqq"),
    ] {
        let invalid = run(&external(), &database(&[(key, value)])).expect_err("refused");
        assert_eq!(invalid.reason, "SecretInvalid", "{key}: {}", invalid.message);
        assert!(!invalid.message.contains(value), "the value is shown: {}", invalid.message);
    }
    let invalid = run(&external(), &database(&[("port", "0")])).expect_err("refused");
    assert!(invalid.reason == "SecretInvalid" && invalid.message.contains("key port in Secret db"), "{invalid}");
}

#[test]
fn keys_that_the_operator_owns_are_refused_by_name() {
    for (config, path) in [
        (json!({ "database": { "file": {} } }), "database"),
        (json!({ "security": { "encryption_key": "x" } }), "security.encryption_key"),
        (json!({ "security": { "authentication": { "initial_admin": {} } } }), "security.authentication.initial_admin"),
        (json!({ "cache": { "redis": null } }), "cache.redis"),
    ] {
        let invalid = run(&json!({ "users": 5, "api": { "config": config } }), &nothing()).expect_err("refused");
        assert!(
            invalid.terminal && invalid.message.contains(&format!("spec.api.config.{path} ")),
            "{}",
            invalid.message
        );
    }
    run(&json!({ "users": 5, "api": { "config": { "security": { "cookie": { "secure": true } } } } }), &nothing())
        .expect("other keys are the user's");
}

#[test]
fn contradictions_in_the_spec_are_terminal() {
    for (spec, reason) in [
        (
            json!({ "users": 5, "api": { "resources": { "requests": { "cpu": 2 }, "limits": { "cpu": 1 } } } }),
            "ResourcesInvalid",
        ),
        (json!({ "users": 5, "api": { "resources": { "limits": { "memory": "0" } } } }), "QuantityInvalid"),
        (json!({ "users": 5, "workload": { "refreshInterval": "0s" } }), "WorkloadInvalid"),
        (json!({ "users": 5, "database": { "standalone": { "storage": { "size": "1Mi" } } } }), "StorageTooSmall"),
        (json!({ "users": 5, "datasources": [{ "name": "p", "url": "http://u:p@h:9090" }] }), "DatasourceInvalid"),
    ] {
        let invalid = run(&spec, &nothing()).expect_err("refused");
        assert_eq!((invalid.reason, invalid.terminal), (reason, true), "{spec}: {}", invalid.message);
    }
}

#[test]
fn generated_secrets_are_made_once_and_adopted_afterwards() {
    let spec = json!({ "users": 5 });
    let first = run(&spec, &nothing()).expect("valid");
    let names: Vec<_> = first.generated.secrets.keys().cloned().collect();
    assert_eq!(names, ["perses-admin", "perses-db", "perses-keys", "perses-pgbouncer-client", "perses-redis"]);
    assert_eq!(first.generated.secrets["perses-keys"]["encryption-key"].len(), 32);
    let passwords: Vec<_> = ["perses-admin", "perses-db", "perses-redis"]
        .iter()
        .map(|name| first.generated.text(name, "password").expect("password"))
        .collect();
    for password in &passwords {
        assert!(password.len() == 24 && password.chars().all(|c| c.is_ascii_alphanumeric()), "{password}");
    }
    assert!(passwords[0] != passwords[1] && passwords[1] != passwords[2]);

    // The same Secrets observed, other entropy: the same values.
    let observed = Observed {
        secrets: first
            .generated
            .secrets
            .iter()
            .map(|(n, d)| (n.clone(), SecretData { data: d.clone(), ours: true, rotation: None }))
            .collect(),
        ..nothing()
    };
    let mut other = Entropy::fixed();
    other.encryption_key = [7; 32];
    other.database_password = [7; 24];
    let second = validate(&stack(&spec), &observed, &Settings::default(), &other).expect("valid");
    assert_eq!(first.generated, second.generated);
    assert_eq!(first.endpoint, second.endpoint);
    assert!(first.endpoint.is_some());
}

#[test]
fn a_damaged_or_foreign_secret_is_never_replaced() {
    let invalid =
        run(&json!({ "users": 5 }), &with_secret("perses-keys", secret(&[("encryption-key", "short")], true)))
            .expect_err("refused");
    assert_eq!(invalid.reason, "GeneratedSecretDamaged");
    assert!(!invalid.message.contains("short"), "{}", invalid.message);
    let invalid = run(&json!({ "users": 5 }), &with_secret("perses-admin", secret(&[("password", "x")], false)))
        .expect_err("refused");
    assert_eq!(invalid.reason, "NameConflict");
}

#[test]
fn ownership_follows_the_deletion_policy() {
    for (policy, owned) in [("Retain", false), ("Delete", true)] {
        let v = run(&json!({ "users": 5, "database": { "deletionPolicy": policy } }), &nothing()).expect("valid");
        let resources = build::build(&v, &sizing::size(&v.inputs)).expect("built");
        for secret in &resources.retained.secrets {
            assert_eq!(secret.metadata.owner_references.is_some(), owned, "{policy}: {:?}", secret.metadata.name);
        }
        assert_eq!(resources.retained.claim.expect("claim").metadata.owner_references.is_some(), owned, "{policy}");
        let owner = &resources.api.deployment.expect("deployment").metadata.owner_references.expect("owner")[0];
        assert_eq!(
            (owner.uid.as_str(), owner.controller, owner.block_owner_deletion),
            ("7d1f", Some(true), Some(true))
        );
    }
}

#[test]
fn replicas_are_ours_only_before_the_deployment_exists() {
    let replicas = |observed: &Observed| {
        let v = run(&json!({ "users": 5 }), observed).expect("valid");
        build::build(&v, &sizing::size(&v.inputs))
            .expect("built")
            .api
            .deployment
            .expect("deployment")
            .spec
            .expect("spec")
            .replicas
    };
    assert_eq!(replicas(&nothing()), Some(2));
    assert_eq!(replicas(&Observed { api_replicas: Some(7), ..with_key() }), None);
}

#[test]
fn the_migration_is_named_after_image_and_database_and_nothing_else() {
    let job = |spec: &Value, observed: &Observed| {
        let v = run(spec, observed).expect("valid");
        let migration = build::build(&v, &sizing::size(&v.inputs)).expect("built").migration.expect("migration");
        migration.job.metadata.name.expect("name")
    };
    let first = job(&external(), &database(&[]));
    let mut more_users = external();
    more_users["users"] = json!(600);
    assert_eq!(first, job(&more_users, &database(&[("password", "rotated")])));
    let mut image = external();
    image["images"] = json!({ "apiServer": "other:1" });
    assert_ne!(first, job(&image, &database(&[])));
    assert_ne!(first, job(&external(), &database(&[("host", "elsewhere")])));
    assert!(first.len() <= 63 && first.starts_with("perses-migrate-"), "{first}");
}

#[test]
fn connections_of_the_api_end_before_a_pooler_that_must_stop() {
    let v = run(&external(), &database(&[])).expect("valid");
    let r = build::build(&v, &sizing::size(&v.inputs)).expect("built");
    let pod = r.pooler.expect("pooler").deployment.expect("pods").spec.expect("spec").template.spec.expect("pod");
    let grace = pod.termination_grace_period_seconds.expect("grace");
    let pre_stop = pod.containers[0].lifecycle.clone().and_then(|lifecycle| lifecycle.pre_stop).expect("preStop");
    let listens = pre_stop.sleep.expect("sleep").seconds;
    let config = r.api.config.expect("config").data.expect("data")["config.yaml"].0.clone();
    let config: Value = serde_saphyr::from_str(std::str::from_utf8(&config).expect("text")).expect("YAML");
    let seconds = |key: &str| {
        let text = config["database"]["postgres"][key].as_str().expect(key);
        text.strip_suffix('s').and_then(|number| number.parse::<i64>().ok()).expect(key)
    };
    // One second is what the server waits on top of the limit of a statement.
    let longest = listens + seconds("max_lifetime") + seconds("statement_timeout") + 1;
    assert!(longest < grace, "{longest} of {grace} seconds");
    assert!(listens > 0 && seconds("max_lifetime") >= 30, "connections are not made all the time");

    let mut direct = external();
    direct["pooler"] = json!({ "type": "None" });
    let v = run(&direct, &database(&[])).expect("valid");
    let r = build::build(&v, &sizing::size(&v.inputs)).expect("built");
    let config = r.api.config.expect("config").data.expect("data")["config.yaml"].0.clone();
    assert!(!String::from_utf8(config).expect("text").contains("max_lifetime"), "the server's own default");
}

#[test]
fn a_changed_password_rolls_the_pooler_and_nothing_that_reads_files() {
    let hashes = |password: &str| {
        let v = run(&external(), &database(&[("password", password)])).expect("valid");
        let r = build::build(&v, &sizing::size(&v.inputs)).expect("built");
        let pooler = r.pooler.expect("pooler").deployment.expect("deployment");
        let pooler = pooler.spec.expect("spec").template.metadata.expect("meta");
        (
            pooler.annotations.expect("annotations")[build::CONFIG_HASH].clone(),
            r.api.config.expect("config").metadata.name,
            r.api.deployment.expect("deployment"),
        )
    };
    let (before, after) = (hashes("one"), hashes("two"));
    assert_ne!(before.0, after.0);
    assert_eq!((before.1, before.2), (after.1, after.2));
}
