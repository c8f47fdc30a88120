//! Plays Crunchy's operator (PGO) for the one cluster of a namespace: its status and its Secrets.

use futures::StreamExt;
use kube::api::{Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use persesstack_operator::apply::kind::Kind;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{DEADLINE, Space, within};

/// The cluster of the stack of every test.
pub(crate) const CLUSTER: &str = "perses-db";

/// The cluster; waits until there is one.
pub(crate) async fn cluster(space: &Space) -> Value {
    within("the PostgresCluster", DEADLINE, async || space.get(Kind::PostgresCluster, CLUSTER).await).await
}

/// Plays one look of Crunchy's operator: a status in which all is well with the present spec, as `edit` changes it. A
/// cluster that is shut down has no pods, those of its repository and its pooler included.
pub(crate) async fn look(space: &Space, edit: impl FnOnce(&mut Value)) {
    say(space, &cluster(space).await, edit).await;
}

async fn say(space: &Space, found: &Value, edit: impl FnOnce(&mut Value)) {
    let count = found["spec"]["instances"][0]["replicas"].clone();
    let (instances, available) = if found["spec"]["shutdown"] == true {
        (json!({"name": "pg"}), "False")
    } else {
        (json!({"name": "pg", "replicas": count, "readyReplicas": count, "updatedReplicas": count}), "True")
    };
    let mut status = json!({
        "observedGeneration": found["metadata"]["generation"], "instances": [instances],
        "patroni": {"systemIdentifier": "7"}, "usersRevision": "u", "databaseRevision": "d",
        "proxy": {"pgBouncer": {"postgresRevision": "p"}},
        "conditions": [],
    });
    for type_ in ["ProxyAvailable", "PGBackRestRepoHostReady"] {
        let condition = json!({"type": type_, "status": available, "reason": "Played", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"});
        status["conditions"].as_array_mut().unwrap().push(condition);
    }
    edit(&mut status);
    let patch = Patch::Merge(json!({"status": status}));
    space.api(Kind::PostgresCluster).patch_status(CLUSTER, &PatchParams::default(), &patch).await.unwrap();
}

/// The Secrets that Crunchy's operator makes.
pub(crate) async fn publish(space: &Space, password: &str) {
    let user = json!({"user": "perses", "password": password, "host": "perses-db-primary", "port": "5432",
        "dbname": "perses", "uri": "postgresql://", "pgbouncer-uri": "postgresql://"});
    let certificate = json!({"ca.crt": "-----BEGIN CERTIFICATE-----", "tls.crt": "c", "tls.key": "k"});
    for (name, data) in [("perses-db-pguser-perses", user), ("perses-db-cluster-cert", certificate)] {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data});
        let params = PatchParams::apply("pgo").force();
        space.api(Kind::Secret).patch(name, &params, &Patch::Apply(&secret)).await.unwrap();
    }
}

/// Looks whenever the cluster has changed, until it is dropped.
pub(crate) struct Pgo(JoinHandle<()>);

impl Pgo {
    /// All is always well.
    pub(crate) fn start(space: &Space) -> Self {
        let (space, api) = (space.clone(), space.api(Kind::PostgresCluster));
        Self(tokio::spawn(async move {
            let mut events = watcher(api, watcher::Config::default()).default_backoff().applied_objects().boxed();
            while let Some(event) = events.next().await {
                let Ok(found) = event else { continue };
                let found = serde_json::to_value(found).unwrap();
                if found["status"]["observedGeneration"] == found["metadata"]["generation"] {
                    continue;
                }
                publish(&space, "of-crunchys-making").await;
                say(&space, &found, |_| {}).await;
            }
        }))
    }
}

impl Drop for Pgo {
    fn drop(&mut self) {
        self.0.abort();
    }
}
