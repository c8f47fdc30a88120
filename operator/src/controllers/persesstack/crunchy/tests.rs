//! The formula of readiness, each line falsified once, and what is read from schemas.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;

fn ready() -> Value {
    json!({
        "metadata": {"generation": 3},
        "spec": {
            "instances": [{"name": "pg", "replicas": 3,
                "dataVolumeClaimSpec": {"resources": {"requests": {"storage": "100Gi"}}}}],
            "proxy": {"pgBouncer": {"replicas": 2}},
            "backups": {"pgbackrest": {"repos": [{"name": "repo1"}]}},
        },
        "status": {
            "observedGeneration": 3,
            "instances": [{"name": "pg", "replicas": 3, "readyReplicas": 3, "updatedReplicas": 3}],
            "patroni": {"systemIdentifier": "7"}, "usersRevision": "u", "databaseRevision": "d",
            "proxy": {"pgBouncer": {"postgresRevision": "p"}},
            "conditions": [
                {"type": "ProxyAvailable", "status": "True", "reason": "Available", "message": ""},
                {"type": "PGBackRestRepoHostReady", "status": "True", "reason": "RepoHostReady", "message": ""},
            ],
        },
    })
}

fn secret(keys: &[&str]) -> SecretData {
    let data: BTreeMap<_, _> = keys.iter().map(|key| ((*key).to_owned(), b"x".to_vec())).collect();
    SecretData { data, ..SecretData::default() }
}

fn judge(cluster: &Value, credentials: Option<&SecretData>) -> Option<&'static str> {
    ClusterState::of(cluster).ready(credentials).err().map(|(reason, _)| reason)
}

#[test]
fn every_line_of_the_formula_is_needed() {
    let whole = secret(&["user", "password", "pgbouncer-uri"]);
    assert_eq!(judge(&ready(), Some(&whole)), None);
    for (path, value, reason) in [
        ("/metadata/generation", json!(4), "ClusterNotObserved"),
        ("/status/observedGeneration", json!(null), "ClusterNotObserved"),
        (
            "/status/conditions/0",
            json!({"type": "Progressing", "status": "False", "reason": "Paused", "message": "no"}),
            "ClusterBlocked",
        ),
        ("/status/patroni/systemIdentifier", json!(""), "ClusterBootstrapping"),
        ("/status/instances", json!([]), "InstancesNotReady"),
        ("/status/instances/0/readyReplicas", json!(2), "InstancesNotReady"),
        ("/status/instances/0/updatedReplicas", json!(2), "InstancesNotReady"),
        ("/status/instances/0/replicas", json!(4), "InstancesNotReady"),
        ("/spec/instances/0/replicas", json!(4), "InstancesNotReady"),
        ("/status/usersRevision", json!(null), "UsersNotCreated"),
        ("/status/databaseRevision", json!(""), "DatabaseNotCreated"),
        ("/status/conditions/0/status", json!("False"), "ProxyNotAvailable"),
        ("/status/proxy", json!({}), "ProxyNotInstalled"),
        ("/status/conditions/1/status", json!("False"), "BackupsNotReady"),
    ] {
        let mut cluster = ready();
        *cluster.pointer_mut(path).expect(path) = value.clone();
        assert_eq!(judge(&cluster, Some(&whole)), Some(reason), "{path} = {value}");
    }
    let mut former = ready();
    former["status"]["instances"].as_array_mut().unwrap().push(json!({"name": "old", "replicas": 1}));
    assert_eq!(judge(&former, Some(&whole)), Some("InstancesNotReady"));
    assert_eq!(judge(&ready(), Some(&secret(&["user", "password"]))), Some("ProxyNotPublished"));
    assert_eq!(judge(&ready(), Some(&secret(&["user", "pgbouncer-uri"]))), Some("CredentialsNotPublished"));
    assert_eq!(judge(&ready(), None), Some("ProxyNotPublished"));
    assert_eq!(judge(&json!({"metadata": {"generation": 1}}), None), Some("ClusterNotObserved"), "a new one");
}

#[test]
fn lines_of_parts_that_are_not_wanted_do_not_count() {
    let mut cluster = ready();
    cluster["spec"]["proxy"] = json!(null);
    cluster["spec"]["backups"] = json!(null);
    cluster["status"]["proxy"] = json!(null);
    cluster["status"]["conditions"] = json!([]);
    assert_eq!(judge(&cluster, Some(&secret(&["user", "password"]))), None);
}

#[test]
fn an_old_schema_is_recognised() {
    let document = |spec: Value| {
        json!({"components": {"schemas": {"a": {"properties": {}}, "b": {
            "x-kubernetes-group-version-kind": [{"group": "g", "kind": "PostgresCluster", "version": "v1beta1"}],
            "properties": {"spec": spec}}}}})
    };
    let old = json!({"required": ["backups", "instances"], "properties": {"config": {"properties": {"files": {}}}}});
    let schema = CrunchySchema::of(&document(old)).expect("a schema");
    assert_eq!(schema, CrunchySchema { parameters: false, optional_backups: false, auto_grow: false });
    let new = json!({"required": ["instances"], "properties": {
        "config": {"properties": {"parameters": {"type": "object"}}},
        "instances": {"items": {"properties": {"dataVolumeClaimSpec": {"properties": {"autoGrow": {"type": "object"}}}}}}}});
    assert_eq!(CrunchySchema::of(&document(new)), Some(CrunchySchema::NEWEST));
    assert_eq!(CrunchySchema::of(&json!({"components": {"schemas": {}}})), None);
}

#[test]
fn what_crunchy_owns_is_refused_by_name() {
    for name in ["wal_level", "hot_standby", "ssl", "ssl_ca_file", "unix_socket_directories", "archive_command"] {
        assert!(refused_parameter(name).is_some(), "{name}");
    }
    for name in ["work_mem", "ssl_ecdh_curve", "max_wal_senders", "random_page_cost"] {
        assert_eq!(refused_parameter(name), None, "{name}");
    }
}

#[test]
fn the_longest_name_of_a_stack_fits() {
    let names = Names::new("s".repeat(40));
    assert!(names.database().len() + SET.len() <= 46, "PGO's limit for cluster and set together");
    assert!(!USER.contains('_'));
}
