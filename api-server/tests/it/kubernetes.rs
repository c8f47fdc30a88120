//! Sign-in and rights by a real kube-apiserver: service accounts, their tokens, and RBAC.

use std::time::Duration;

use axum::body::Body;
use axum::http::header;
use e2e::cluster::ControlPlane;
use e2e::services::Redis;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use perses_api_server::domain::document::Draft;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::backends::{draft, project};
use crate::http::{KEY, Reply, Server};
use crate::pod::until;

/// A control plane with accounts in the namespace `accounts`: `owner` may everything of Perses, `viewer` reads dashboards in
/// `team-a`, `editor` may everything in `team-b`, `nobody` nothing.
pub struct Cluster {
    control_plane: ControlPlane,
}

/// One for all tests.
pub async fn cluster() -> &'static Cluster {
    static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
    CLUSTER.get_or_init(Cluster::start).await
}

impl Cluster {
    async fn start() -> Self {
        let control_plane = ControlPlane::start().await.unwrap();
        let cluster = Self { control_plane };
        for name in ["accounts", "team-a", "team-b", "team-c"] {
            cluster.create::<Namespace>(None, json!({"metadata": {"name": name}})).await;
        }
        for name in ["owner", "viewer", "editor", "nobody", "temp"] {
            cluster.create::<ServiceAccount>(Some("accounts"), json!({"metadata": {"name": name}})).await;
        }
        let all = json!([
            {"apiGroups": ["perses.dev"], "resources": ["*"], "verbs": ["*"]},
            {"apiGroups": [""], "resources": ["secrets"], "verbs": ["*"]},
        ]);
        let impersonate =
            json!({"apiGroups": [""], "resources": ["users", "serviceaccounts"], "verbs": ["impersonate"]});
        let mut rules = all.as_array().unwrap().clone();
        rules.push(impersonate);
        cluster.create::<ClusterRole>(None, json!({"metadata": {"name": "perses-owner"}, "rules": rules})).await;
        cluster.create::<ClusterRoleBinding>(None, binding("perses-owner", "ClusterRole", "owner")).await;
        let reader = json!([{"apiGroups": ["perses.dev"], "resources": ["persesdashboards"], "verbs": ["get"]}]);
        for (namespace, name, rules) in
            [("team-a", "viewer", &reader), ("team-b", "editor", &all), ("team-c", "temp", &reader)]
        {
            cluster.create::<Role>(Some(namespace), json!({"metadata": {"name": name}, "rules": rules})).await;
            cluster.create::<RoleBinding>(Some(namespace), binding(name, "Role", name)).await;
        }
        cluster
    }

    /// Each test has a runtime of its own, and so a client.
    fn client(&self) -> Client {
        self.control_plane.client().unwrap()
    }

    async fn create<K>(&self, namespace: Option<&str>, object: Value)
    where
        K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::Serialize + DeserializeOwned,
    {
        let object: K = serde_json::from_value(object).unwrap();
        let api: Api<kube::core::DynamicObject> = match namespace {
            Some(namespace) => Api::namespaced_with(self.client(), namespace, &kube::api::ApiResource::erase::<K>(&())),
            None => Api::all_with(self.client(), &kube::api::ApiResource::erase::<K>(&())),
        };
        let object: kube::core::DynamicObject = serde_json::from_value(serde_json::to_value(&object).unwrap()).unwrap();
        api.create(&PostParams::default(), &object).await.unwrap();
    }

    /// A token of an account.
    pub async fn token(&self, account: &str) -> String {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client(), "accounts");
        let request: TokenRequest = serde_json::from_value(json!({"spec": {"audiences": []}})).unwrap();
        let made = accounts.create_token_request(account, &PostParams::default(), &request).await.unwrap();
        made.status.unwrap().token
    }

    /// The configuration of a server that asks this cluster.
    pub fn settings(&self, more: &Value) -> Value {
        let mut kubernetes = json!({"enable": true, "kubeconfig": self.control_plane.kubeconfig()});
        kubernetes.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"security": {
            "enable_auth": true, "encryption_key": KEY,
            "authentication": {"providers": {"kubernetes": {"enable": true}}},
            "authorization": {"provider": {"kubernetes": kubernetes}},
        }})
    }
}

fn binding(role: &str, kind: &str, account: &str) -> Value {
    json!({"metadata": {"name": role},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": "accounts"}]})
}

/// A user of the server.
struct User<'s> {
    server: &'s Server,
    token: String,
    acts_as: Option<String>,
}

impl User<'_> {
    async fn send(&self, method: &str, path: &str, body: Option<Value>) -> Reply {
        let mut request = self.server.builder(method, path);
        request = request.header(header::AUTHORIZATION, format!("Bearer {}", self.token));
        if let Some(other) = &self.acts_as {
            request = request.header("impersonate-user", other);
        }
        let request = request.header(header::CONTENT_TYPE, "application/json");
        self.server.raw(request.body(body.map_or_else(Body::empty, |body| body.to_string().into())).unwrap()).await
    }

    async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, None).await
    }

    async fn project(&self, name: &str) -> Reply {
        let body = json!({"kind": "Project", "metadata": {"name": name}, "spec": {}});
        self.send("POST", "/api/v1/projects", Some(body)).await
    }

    async fn names(&self, path: &str) -> Vec<String> {
        let list = self.get(path).await.ok();
        let names = list.as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }
}

async fn user<'s>(cluster: &Cluster, server: &'s Server, account: &str) -> User<'s> {
    User { server, token: cluster.token(account).await, acts_as: None }
}

fn dashboard(name: &str, project: &str) -> Value {
    json!({"kind": "Dashboard", "metadata": {"name": name, "project": project},
        "spec": {"duration": "1h", "panels": {}, "layouts": []}})
}

#[tokio::test]
async fn the_cluster_says_who_it_is_and_what_they_may() {
    let cluster = cluster().await;
    let server = Server::start(cluster.settings(&json!({}))).await;
    let owner = user(cluster, &server, "owner").await;
    let viewer = user(cluster, &server, "viewer").await;
    let editor = user(cluster, &server, "editor").await;
    let nobody = user(cluster, &server, "nobody").await;

    server.get("/api/v1/projects").await.assert_error(401, "missing or malformed jwt");
    let made_up = User { server: &server, token: "made.up.token".to_owned(), acts_as: None };
    made_up.get("/api/v1/projects").await.assert_error(401, "unauthorized: invalid authorization header");
    let me = viewer.get("/api/v1/user/whoami").await.ok();
    assert_eq!(
        me,
        json!({"kind": "User", "spec": {"nativeProvider": {}}, "metadata": {
        "name": "system:serviceaccount:accounts:viewer", "version": 0,
        "createdAt": "0001-01-01T00:00:00Z", "updatedAt": "0001-01-01T00:00:00Z"}})
    );

    for project in ["team-a", "team-c"] {
        owner.project(project).await.ok();
    }
    editor
        .project("team-a")
        .await
        .assert_error_with(403, "missing 'create' permission in 'team-a' project for 'Project' kind");
    editor.project("team-b").await.ok();
    for project in ["team-a", "team-b"] {
        let path = format!("/api/v1/projects/{project}/dashboards");
        owner.send("POST", &path, Some(dashboard("d", project))).await.ok();
    }
    assert_eq!(owner.names("/api/v1/projects").await, ["team-a", "team-b", "team-c"]);
    assert_eq!(viewer.names("/api/v1/projects").await, ["team-a"]);
    assert_eq!(editor.names("/api/v1/projects").await, ["team-b"]);
    assert!(nobody.names("/api/v1/projects").await.is_empty());
    assert_eq!(viewer.names("/api/v1/dashboards").await, ["d"]);

    viewer.get("/api/v1/projects/team-a/dashboards/d").await.ok();
    viewer.get("/api/v1/projects/team-a/folders").await.ok();
    viewer
        .get("/api/v1/projects/team-b/dashboards/d")
        .await
        .assert_error_with(403, "missing 'read' permission in 'team-b' project for 'Dashboard' kind");
    viewer.get("/api/v1/projects/team-a/secrets").await.assert_error_with(403, "'Secret' kind");
    let change = Some(dashboard("d", "team-a"));
    viewer
        .send("PUT", "/api/v1/projects/team-a/dashboards/d", change.clone())
        .await
        .assert_error_with(403, "missing 'update'");
    editor.send("PUT", "/api/v1/projects/team-a/dashboards/d", change).await.assert_error_with(403, "missing 'update'");
    let change = Some(dashboard("d", "team-b"));
    editor.send("PUT", "/api/v1/projects/team-b/dashboards/d", change).await.ok();
    editor.get("/api/v1/globaldatasources").await.assert_error_with(403, "GlobalDatasource");
    owner.get("/api/v1/globaldatasources").await.ok();

    // Rights of one's own.
    let path = |account: &str| format!("/api/v1/users/system%3Aserviceaccount%3Aaccounts%3A{account}/permissions");
    let read = |kind: &str| json!({"actions": ["read"], "scopes": [kind]});
    assert_eq!(
        viewer.get(&path("viewer")).await.ok(),
        json!({"*": null, "team-a": [
        read("Dashboard"), read("Variable"), read("EphemeralDashboard"), read("Folder")]})
    );
    viewer.get(&path("owner")).await.assert_error_with(403, "you can only retrieve your permissions");
    let all = owner.get(&path("owner")).await.ok();
    assert_eq!(all.as_object().unwrap().len(), 1, "what holds everywhere is said once: {all}");
    assert_eq!(all["*"][0], json!({"actions": ["*"], "scopes": ["Dashboard"]}));

    // Neither roles nor sign-in of this server.
    for (method, path) in [
        ("GET", "/api/v1/globalroles"),
        ("GET", "/api/v1/projects/team-a/roles"),
        ("POST", "/api/auth/refresh"),
        ("POST", "/api/auth/providers/native/login"),
    ] {
        let status = owner.send(method, path, None).await.status.as_u16();
        assert!(matches!(status, 404 | 405), "{method} {path}: {status}");
    }
    let shown = server.get("/api/config").await.ok();
    let providers = &shown["security"]["authentication"]["providers"];
    assert_eq!(providers, &json!({"enable_native": false, "kubernetes": {"enable": true}}));
}

#[tokio::test]
async fn who_may_impersonate_acts_as_another() {
    let cluster = cluster().await;
    let server = Server::start(cluster.settings(&json!({}))).await;
    let owner = user(cluster, &server, "owner").await;
    for project in ["team-a", "team-b"] {
        owner.project(project).await.ok();
    }
    let account = |name: &str| Some(format!("system:serviceaccount:accounts:{name}"));
    let as_viewer = User { server: &server, token: owner.token.clone(), acts_as: account("viewer") };
    assert_eq!(as_viewer.names("/api/v1/projects").await, ["team-a"]);
    let me = as_viewer.get("/api/v1/user/whoami").await.ok();
    assert_eq!(me["metadata"]["name"], "system:serviceaccount:accounts:viewer");
    let as_ann = User { server: &server, token: owner.token.clone(), acts_as: Some("ann".to_owned()) };
    assert!(as_ann.names("/api/v1/projects").await.is_empty());
    let viewer = user(cluster, &server, "viewer").await;
    let climbing = User { acts_as: account("owner"), ..viewer };
    climbing.get("/api/v1/projects").await.assert_error_with(403, "you may not act as this user");
    let groups = server
        .builder("GET", "/api/v1/projects")
        .header(header::AUTHORIZATION, format!("Bearer {}", owner.token))
        .header("impersonate-group", "system:masters");
    server.raw(groups.body(Body::empty()).unwrap()).await.assert_error_with(403, "Impersonate-Group");
}

#[tokio::test]
async fn answers_are_remembered_as_long_as_configured() {
    let cluster = cluster().await;
    let lives = json!({"authorizer_allow_ttl": "2s", "authorizer_deny_ttl": "1s", "qps": 50, "burst": 50});
    let server = Server::start(cluster.settings(&lives)).await;
    let owner = user(cluster, &server, "owner").await;
    owner.project("team-c").await.ok();
    let temp = user(cluster, &server, "temp").await;
    let path = "/api/v1/projects/team-c/dashboards";
    temp.get(path).await.ok();
    let misses = || {
        let text = server.state.metrics.encode().unwrap();
        let line =
            text.lines().find(|line| line.starts_with("perses_cache_requests_total{cache=\"authz\",tier=\"store\""));
        line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
    };
    let before = misses();
    assert!(before > 0);
    for _ in 0..20 {
        temp.get(path).await.ok();
    }
    // The answers live for two seconds: some of the twenty may have asked again, most have not.
    assert!(misses() - before <= 4, "{before} -> {}", misses());

    let bindings: Api<RoleBinding> = Api::namespaced(cluster.client(), "team-c");
    bindings.delete("temp", &DeleteParams::default()).await.unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while temp.get(path).await.status.as_u16() != 403 {
        assert!(tokio::time::Instant::now() < deadline, "a right that was taken away is kept");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn answers_are_shared_by_the_pods() {
    let cluster = cluster().await;
    let redis = Redis::start().await.unwrap();
    let pod = async |lives: Value| {
        let mut config = cluster.settings(&lives);
        config["cache"] = json!({"redis": {"addr": redis.address()}});
        Server::start(config).await
    };
    let count = |server: &Server, tier: &str, result: &str| -> u64 {
        let line = format!("perses_cache_requests_total{{cache=\"authz\",tier=\"{tier}\",result=\"{result}\"}} ");
        let text = server.state.metrics.encode().unwrap();
        text.lines().find_map(|found| found.strip_prefix(&line)).map_or(0, |number| number.parse().unwrap())
    };
    let path = "/api/v1/projects/team-a/dashboards";
    let (one, two) = (pod(json!({})).await, pod(json!({})).await);
    for server in [&one, &two] {
        server.state.store.create(team("team-a")).await.unwrap();
    }
    let (viewer, nobody) = (cluster.token("viewer").await, cluster.token("nobody").await);
    let user = |server, token: &String| User { server, token: token.clone(), acts_as: None };
    // What is asked before Redis is there is not shared.
    until("an answer in Redis", || async {
        user(&one, &viewer).get(path).await.ok();
        user(&one, &nobody).get(path).await.assert_error_with(403, "missing 'read'");
        !redis.cli(&["KEYS", "v1:authz:user:*:team-a"]).await.unwrap().trim().is_empty()
    })
    .await;
    let life: i64 = {
        let keys = redis.cli(&["KEYS", "v1:authz:user:*:team-a"]).await.unwrap();
        redis.cli(&["TTL", keys.lines().next().unwrap()]).await.unwrap().trim().parse().unwrap()
    };
    assert!((1..=120).contains(&life), "{life}");
    until("the other pod to take it", || async {
        user(&two, &viewer).get(path).await.ok();
        user(&two, &nobody).get(path).await.assert_error_with(403, "missing 'read'");
        count(&two, "l2", "hit") > 0
    })
    .await;

    // What is in there and makes no sense is not believed.
    let keys = redis.cli(&["KEYS", "v1:authz:user:*"]).await.unwrap();
    for key in keys.lines() {
        let fields = redis.cli(&["HKEYS", key]).await.unwrap();
        for field in fields.lines() {
            redis.cli(&["HSET", key, field, "2noise"]).await.unwrap();
        }
    }
    let three = pod(json!({})).await;
    three.state.store.create(team("team-a")).await.unwrap();
    user(&three, &viewer).get(path).await.ok();
    user(&three, &nobody).get(path).await.assert_error_with(403, "missing 'read'");
    assert_eq!(count(&three, "l2", "hit"), 0);

    // Without Redis it is slower, and right.
    redis.stop().await.unwrap();
    let four = pod(json!({})).await;
    four.state.store.create(team("team-a")).await.unwrap();
    user(&four, &viewer).get(path).await.ok();
    user(&four, &nobody).get(path).await.assert_error_with(403, "missing 'read'");
    assert!(count(&four, "store", "miss") > 0);
}

/// The project of a namespace.
fn team(name: &str) -> Draft {
    draft(&project(name), "{}")
}

#[tokio::test]
async fn a_cluster_that_is_away_is_an_error_and_no_pass() {
    let mut config = cluster().await.settings(&json!({}));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kubeconfig");
    let nowhere = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {}}], "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]});
    std::fs::write(&file, nowhere.to_string()).unwrap();
    config["security"]["authorization"]["provider"]["kubernetes"]["kubeconfig"] = json!(file);
    let server = Server::start(config).await;
    let anybody = User { server: &server, token: "x".to_owned(), acts_as: None };
    anybody.get("/api/v1/projects").await.assert_error_with(502, "the cluster's API server does not answer");
    server.get("/api/config").await.ok();
}
