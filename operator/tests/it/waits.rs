//! What a missing Secret, or somebody else's in its place, holds back: only what needs it. The rest is built and repaired.

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use persesstack_operator::apply::kind::Kind;
use persesstack_operator::conditions::{find, is_true};
use serde_json::{Value, json};

use crate::cluster::{DEADLINE, Operator, REPAIR, Space, World, within};

fn secrets(space: &Space) -> Api<Secret> {
    Api::namespaced(space.client.clone(), &space.namespace)
}

async fn create(space: &Space, name: &str, data: Value) {
    let secret = serde_json::from_value(json!({"metadata": {"name": name}, "stringData": data})).unwrap();
    secrets(space).create(&PostParams::default(), &secret).await.unwrap();
}

/// Spoils a Service of the stack and waits until it is as it was.
async fn is_repaired(space: &Space, service: &str) {
    let ports = || async { space.get(Kind::Service, service).await.unwrap()["spec"]["ports"].clone() };
    let good = ports().await;
    let mut bad = good.clone();
    bad[0]["targetPort"] = json!(9999);
    let patch = Patch::Merge(json!({"spec": {"ports": bad}}));
    space.api(Kind::Service).patch(service, &PatchParams::default(), &patch).await.unwrap();
    within("the repair", REPAIR, async || (ports().await == good).then_some(())).await;
}

/// The uid and resource version: both stay when nobody touches the object.
async fn identity(space: &Space, kind: Kind, name: &str) -> (Value, Value) {
    let object = space.get(kind, name).await.unwrap_or_else(|| panic!("{kind:?} {name} is gone"));
    (object["metadata"]["uid"].clone(), object["metadata"]["generation"].clone())
}

/// Names of the datasources that the server is given.
async fn provisioned(space: &Space) -> Vec<String> {
    let secret = secrets(space).get("perses-provisioning").await.unwrap();
    let data = secret.data.unwrap();
    let found: Vec<Value> = serde_json::from_slice(&data["globaldatasources.json"].0).unwrap();
    found.iter().map(|datasource| datasource["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_datasource_waits_for_its_secret_alone() {
    let space = Space::new("datasource").await;
    let (_world, operator) = (World::start(&space), Operator::start(&space));
    let datasources = json!([
        {"name": "open", "url": "http://a:9090", "default": true},
        {"name": "closed", "url": "http://b:9090", "auth": {"bearer": {"secretRef": {"name": "token"}, "key": "token"}}}]);
    space.create(&json!({"users": 10, "datasources": datasources})).await;
    let message = space.condition("DatasourcesReady", "False", "SecretNotFound").await;
    assert!(message.contains("1 of 2") && message.contains("Secret token"), "{message}");
    let stack = space.condition("Ready", "True", "PodsReady").await;
    assert!(stack.contains("API"), "{stack}");
    assert_eq!(provisioned(&space).await, ["open"]);
    is_repaired(&space, "perses-api").await;

    create(&space, "token", json!({"token": "word"})).await;
    within("the datasource", REPAIR, async || (provisioned(&space).await.len() == 2).then_some(())).await;
    let stack = space.settled().await;
    let conditions = stack.status.unwrap().conditions;
    assert!(is_true(&conditions, "DatasourcesReady"), "{conditions:?}");

    // Gone again: the server keeps what it was given, and the operator goes on with the rest.
    secrets(&space).delete("token", &DeleteParams::default()).await.unwrap();
    space.condition("DatasourcesReady", "False", "SecretNotFound").await;
    is_repaired(&space, "perses-redis").await;
    assert_eq!(provisioned(&space).await.len(), 2, "what leaves the file is deleted by the server");
    drop(operator);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_elses_secret_under_a_generated_name_stops_only_what_needs_it() {
    let space = Space::new("stranger").await;
    create(&space, "perses-redis", json!({"password": "of somebody else"})).await;
    let before = secrets(&space).get("perses-redis").await.unwrap();
    let (_world, operator) = (World::start(&space), Operator::start(&space));
    space.create(&json!({"users": 10})).await;
    let message = space.condition("NameConflict", "True", "ForeignObject").await;
    assert!(message.contains("Secret perses-redis"), "{message}");
    let message = space.condition("CacheReady", "False", "NameConflict").await;
    assert!(message.contains("Secret perses-redis"), "{message}");
    space.condition("DatabaseReady", "True", "SchemaReady").await;
    space.condition("PoolerReady", "True", "PodsReady").await;
    for name in ["perses-redis", "perses-api"] {
        assert!(space.get(Kind::Deployment, name).await.is_none(), "{name} would mount somebody else's Secret");
    }
    assert!(space.get(Kind::HorizontalPodAutoscaler, "perses-api").await.is_none(), "it has nothing to scale");
    is_repaired(&space, "perses-pgbouncer").await;
    let after = secrets(&space).get("perses-redis").await.unwrap();
    assert_eq!(after.metadata.resource_version, before.metadata.resource_version, "it was not touched");

    // No other event is needed: the operator watches this name.
    secrets(&space).delete("perses-redis", &DeleteParams::default()).await.unwrap();
    let stack = space.settled().await;
    assert!(find(&stack.status.unwrap().conditions, "NameConflict").is_none());
    drop(operator);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_stack_goes_on_without_the_secret_of_its_database() {
    let space = Space::new("away").await;
    let login = || json!({"host": "pg.example", "dbname": "perses", "user": "perses", "password": "word"});
    create(&space, "pg", login()).await;
    let (_world, operator) = (World::start(&space), Operator::start(&space));
    let database = json!({"type": "External", "external": {"secretRef": {"name": "pg"}, "maxConnections": 200}});
    space.create(&json!({"users": 10, "database": database})).await;
    space.settled().await;
    let deployments = ["perses-api", "perses-pgbouncer", "perses-redis"];
    let mut before = Vec::new();
    for name in deployments {
        before.push(identity(&space, Kind::Deployment, name).await);
    }

    secrets(&space).delete("pg", &DeleteParams::default()).await.unwrap();
    let message = space.condition("DatabaseReady", "False", "SecretNotFound").await;
    assert!(message.contains("Secret pg"), "{message}");
    let stack = space.until("the pods to count", |stack| stack.status.is_some()).await.status.unwrap();
    assert!(is_true(&stack.conditions, "Ready"), "its pods serve: {:?}", stack.conditions);
    assert_eq!(stack.endpoints.unwrap().database.as_deref(), Some("pg.example:5432"));
    is_repaired(&space, "perses-redis").await;
    is_repaired(&space, "perses-pgbouncer").await;
    // Something to delete would be deleted by now.
    space.change(&json!({"cache": {"type": "None"}})).await;
    operator.reconciled("waiting").await;
    for (name, before) in deployments.iter().zip(&before) {
        assert_eq!(identity(&space, Kind::Deployment, name).await, *before, "{name} stays as it is");
    }

    create(&space, "pg", login()).await;
    within("what is not wanted any more to go", DEADLINE, async || {
        space.get(Kind::Deployment, "perses-redis").await.is_none().then_some(())
    })
    .await;
    space.settled().await;
}

/// The server's configuration that the API pods mount now.
async fn configuration(space: &Space) -> Option<Value> {
    let api = space.get(Kind::Deployment, "perses-api").await?;
    let volumes = api["spec"]["template"]["spec"]["volumes"].as_array()?.clone();
    let config = volumes.iter().find(|volume| volume["name"] == "config")?;
    let secret = secrets(space).get(config["secret"]["secretName"].as_str()?).await.ok()?;
    serde_saphyr::from_str(std::str::from_utf8(&secret.data?.get("config.yaml")?.0).ok()?).ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_of_sign_in_waits_alone_and_is_not_taken_from_the_pods() {
    let space = Space::new("provider").await;
    let (_world, operator) = (World::start(&space), Operator::start(&space));
    let company =
        json!({"name": "company", "issuer": "https://idp.example", "client": {"secretRef": {"name": "client"}}});
    let auth = json!({"address": "https://perses.example", "oidc": [company]});
    space.create(&json!({"users": 10, "auth": auth})).await;
    let message = space.condition("AuthReady", "False", "SecretNotFound").await;
    assert!(message.contains("0 of 1 providers") && message.contains("Secret client"), "{message}");
    space.condition("Ready", "True", "PodsReady").await;
    let provider =
        async || Some(configuration(&space).await?["security"]["authentication"]["providers"]["oidc"][0].clone());
    assert!(provider().await.unwrap().is_null(), "the pods did not wait");

    create(&space, "client", json!({"clientId": "perses", "clientSecret": "word"})).await;
    space.condition("AuthReady", "True", "Configured").await;
    let stack = space.settled().await;
    assert_eq!(provider().await.unwrap()["client_id"], "perses");
    assert_eq!(stack.status.unwrap().auth.unwrap().providers, ["oidc/company"]);

    let before = identity(&space, Kind::Deployment, "perses-api").await;
    secrets(&space).delete("client", &DeleteParams::default()).await.unwrap();
    let message = space.condition("AuthReady", "False", "SecretNotFound").await;
    assert!(message.contains("Secret client"), "{message}");
    is_repaired(&space, "perses-redis").await;
    // Looked at again: what was configured is remembered in the status, not in the process.
    operator.stop().await;
    let operator = Operator::start(&space);
    operator.reconciled("waiting").await;
    assert_eq!(identity(&space, Kind::Deployment, "perses-api").await, before, "the pods stay as they are");
    create(&space, "client", json!({"clientId": "perses", "clientSecret": "another"})).await;
    space.condition("AuthReady", "True", "Configured").await;
    space.settled().await;
    assert_eq!(identity(&space, Kind::Deployment, "perses-api").await, before, "another client secret replaces no pod");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authorities_of_a_datasource_follow_their_config_map() {
    let space = Space::new("authority").await;
    let (_world, _operator) = (World::start(&space), Operator::start(&space));
    let datasource = json!({"name": "a", "url": "https://a.example", "tls": {"ca": {"configMap": {"name": "ca"}}}});
    space.create(&json!({"users": 10, "datasources": [datasource]})).await;
    let message = space.condition("DatasourcesReady", "False", "ConfigMapNotFound").await;
    assert!(message.contains("ConfigMap ca"), "{message}");
    let config_maps = space.api(Kind::ConfigMap);
    let pem = |text: &str| format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----");
    let config_map = json!({"metadata": {"name": "ca"}, "data": {"ca.crt": pem("b25l")}});
    config_maps.create(&PostParams::default(), &serde_json::from_value(config_map).unwrap()).await.unwrap();
    let authority = async |text: &str| {
        let data = secrets(&space).get("perses-provisioning").await.ok()?.data?;
        let found: Vec<Value> = serde_json::from_slice(&data.get("globalsecrets.json")?.0).ok()?;
        (found.first()?["spec"]["tlsConfig"]["ca"] == pem(text)).then_some(())
    };
    within("the authority", REPAIR, async || authority("b25l").await).await;
    let patch = Patch::Merge(json!({"data": {"ca.crt": pem("dHdv")}}));
    config_maps.patch("ca", &PatchParams::default(), &patch).await.unwrap();
    within("the other authority", REPAIR, async || authority("dHdv").await).await;
    space.condition("DatasourcesReady", "True", "Resolved").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_server_that_names_no_oauth_server_holds_back_the_users_of_openshift_only() {
    let space = Space::new("oauth").await;
    let (_world, _operator) = (World::start(&space), Operator::start(&space));
    space.create(&json!({"users": 10, "auth": {"address": "https://perses.example", "openshift": {}}})).await;
    let message = space.condition("AuthReady", "False", "OAuthServerUnknown").await;
    assert!(message.contains("/.well-known/oauth-authorization-server"), "{message}");
    space.condition("Ready", "True", "PodsReady").await;
}
