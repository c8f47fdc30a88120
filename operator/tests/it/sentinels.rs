//! Three Redis with sentinels as the operator sets them up, run by the real programs: whoever is away, a real server goes on
//! without a failed request, and what is cached is there again.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use e2e::load::{Load, Pace, Plan, Request};
use e2e::perses::Perses;
use e2e::services::{ApiServer, Part, RedisPodTemplate, RedisPods, USER, shared};
use k8s_openapi::api::core::v1::{Container, PodSpec, Secret};
use persesstack_operator::controllers::persesstack::observed::Capabilities;
use persesstack_operator::render::{self, Rendered};
use persesstack_operator::settings::Settings;
use serde_json::{Value, json};

use crate::cluster::within;

/// For a fail-over on a slow machine: five seconds until one counts as away, an election, a copy of the data.
const PATIENCE: Duration = Duration::from_mins(3);
const STACK: &str = "
apiVersion: persesstack.io/v1alpha1
kind: PersesStack
metadata: {name: perses, namespace: obs}
spec: {users: 5, database: {type: Standalone}, cache: {type: Sentinel}}
";

fn data(secret: &Secret) -> Files {
    secret.data.clone().unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect()
}

fn text(secret: &Secret, key: &str) -> String {
    String::from_utf8(data(secret)[key].clone()).unwrap()
}

/// Pods of Redis and their files.
fn built(rendered: &Rendered) -> (PodSpec, Files) {
    let cache = rendered.resources.cache.as_ref().unwrap();
    let set = cache.stateful_set.as_ref().unwrap().spec.as_ref().unwrap();
    (set.template.spec.clone().unwrap(), data(cache.config.as_ref().unwrap()))
}

/// The server's configuration.
fn configured(rendered: &Rendered) -> Value {
    let config = text(rendered.resources.api.config.as_ref().unwrap(), "config.yaml");
    serde_saphyr::from_str(&config).unwrap()
}

/// How the server signs in to Redis.
fn login(rendered: &Rendered) -> (String, String) {
    let secrets = &rendered.resources.retained.secrets;
    let secret = secrets.iter().find(|secret| secret.metadata.name.as_deref() == Some("perses-redis")).unwrap();
    (text(secret, "username"), text(secret, "password"))
}

/// Files of the pods by name.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// The pods as they are built.
pub(crate) struct Cache {
    pods: RedisPods,
    /// Probe and hook of the container of Redis.
    ready: Vec<String>,
    leave: Vec<String>,
    /// With what the pods sign in to each other.
    peer: String,
}

impl Cache {
    pub(crate) async fn new(pods: &PodSpec, files: Files) -> Self {
        let container = |name: &str| pods.containers.iter().find(|container| container.name == name).unwrap();
        let command = |container: &Container| container.command.clone().unwrap();
        let redis = container("redis");
        let known = String::from_utf8(files["pods"].clone()).unwrap();
        let hosts = known.lines().map(|line| line.split(' ').next().unwrap().to_owned());
        let peer = password(&files);
        let template = RedisPodTemplate {
            pods: hosts.map(|host| (host.split('.').next().unwrap().to_owned(), host)).collect(),
            server: command(redis),
            sentinel: command(container("sentinel")),
            folder: "/etc/perses/redis".to_owned(),
            files,
        };
        let hook = redis.lifecycle.as_ref().unwrap().pre_stop.as_ref().unwrap().exec.clone();
        let probe = redis.readiness_probe.as_ref().unwrap().exec.clone();
        Self {
            pods: RedisPods::new(template).await.unwrap(),
            ready: probe.unwrap().command.unwrap(),
            leave: hook.unwrap().command.unwrap(),
            peer,
        }
    }

    /// Other files, for pods that are made from now on.
    pub(crate) fn change(&mut self, files: Files) {
        self.peer = password(&files);
        self.pods.change(files);
    }

    /// Ends a pod and makes a new one, which has nothing of it.
    pub(crate) async fn replace(&mut self, pod: usize) {
        self.pods.replace(pod).await.unwrap();
    }

    /// What a pod does before it ends.
    pub(crate) async fn leave(&self, pod: usize) {
        let output = self.pods.run(pod, &self.leave).await.unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    pub(crate) async fn start(&self, pods: &[usize]) {
        for pod in pods {
            self.pods.start_pod(*pod).await.unwrap();
        }
    }

    pub(crate) async fn are_ready(&self, pods: &[usize]) {
        for pod in pods {
            let ready = async || self.pods.run(*pod, &self.ready).await.unwrap().status.success().then_some(());
            self.logged(&format!("pod {pod} to be ready"), ready).await;
        }
    }

    /// Waits for it, and shows what the containers wrote when it does not come.
    async fn logged<T: Debug>(&self, what: &str, look: impl AsyncFn() -> Option<T>) -> T {
        if let Ok(found) = tokio::time::timeout(PATIENCE, within(what, PATIENCE * 2, look)).await {
            return found;
        }
        for pod in 0..self.pods.count() {
            for part in Part::ALL {
                eprintln!("--- pod {pod} {part:?}\n{}", self.pods.log(pod, part));
            }
        }
        panic!("waited too long for {what}");
    }

    async fn ask(&self, pod: usize, part: Part, command: &[&str]) -> Option<String> {
        self.pods.cli(pod, part, ("peer", &self.peer), command).await.ok()
    }

    /// Who leads, when these sentinels agree and it says so itself.
    async fn leader(&self, sentinels: &[usize]) -> Option<usize> {
        let mut leader = None;
        for pod in sentinels {
            let answer = self.ask(*pod, Part::Sentinel, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "perses"]).await?;
            let found = self.pods.number(answer.lines().next()?)?;
            if leader.is_some_and(|leader| leader != found) {
                return None;
            }
            leader = Some(found);
        }
        let leader = leader?;
        self.ask(leader, Part::Server, &["ROLE"]).await?.starts_with("master").then_some(leader)
    }

    /// Waits until these sentinels agree on a leader that is none of `gone`.
    pub(crate) async fn led(&self, sentinels: &[usize], gone: &[usize]) -> usize {
        let look = async || self.leader(sentinels).await.filter(|leader| !gone.contains(leader));
        self.logged("a leader", look).await
    }

    async fn is_replica_of(&self, pod: usize, leader: usize) {
        let look = async || {
            let role = self.ask(pod, Part::Server, &["ROLE"]).await?;
            let mut lines = role.lines();
            let follows = lines.next() == Some("slave") && self.pods.number(lines.next()?) == Some(leader);
            follows.then_some(())
        };
        self.logged("a replica", look).await;
    }
}

fn password(files: &Files) -> String {
    String::from_utf8(files["password"].clone()).unwrap()
}

/// A real server with the part of its configuration that is about Redis, and how it signs in there.
pub(crate) struct Server {
    process: ApiServer,
    client: Perses,
    passwords: tempfile::TempDir,
    login: (String, String),
}

impl Server {
    pub(crate) async fn start(config: &Value, login: (String, String), cache: &Cache) -> Self {
        let passwords = tempfile::tempdir().unwrap();
        std::fs::write(passwords.path().join("password"), &login.1).unwrap();
        let redis = config["cache"]["redis"].to_string();
        let redis = redis.replace("/etc/perses/redis", &passwords.path().display().to_string());
        let redis: Value = serde_json::from_str(&redis).unwrap();
        assert_eq!(redis["sentinel"]["addrs"].as_array().unwrap().len(), cache.pods.count());
        // With files there would be nobody to share a cache with.
        let postgres = shared::postgres().await.unwrap();
        let database = postgres.create_database().await.unwrap();
        let more = json!({"cache": {"redis": redis}, "database": {"postgres": {
            "host": "127.0.0.1", "port": postgres.port(), "dbname": database.name, "user": USER,
            "password": postgres.password()}}});
        let process = ApiServer::start_with_hosts("admin", "password", &more, cache.pods.hosts()).await.unwrap();
        let client = process.client().await.unwrap();
        client.apply(&json!({"kind": "Project", "metadata": {"name": "p"}, "spec": {}})).await.unwrap();
        Self { process, client, passwords, login }
    }

    /// Gives the server another password, as a changed Secret does.
    pub(crate) fn sign_in_with(&mut self, login: (String, String)) {
        std::fs::write(self.passwords.path().join("password"), &login.1).unwrap();
        self.login = login;
    }

    /// Waits until a dashboard that nobody knew before is in the Redis of this pod.
    pub(crate) async fn caches_in(&self, cache: &Cache, pod: usize) {
        let name = shared::unique("d");
        self.client.apply(&dashboard(&name)).await.unwrap();
        let (key, path) = (format!("v1:dashboard:config:p:{name}"), format!("/api/v1/projects/p/dashboards/{name}"));
        let look = async || {
            // Put again: what the server has itself it does not write to Redis a second time.
            let answer = self.client.send(reqwest::Method::PUT, &path, Some(&dashboard(&name))).await.unwrap();
            answer.ok().unwrap();
            self.client.get(&path).await.unwrap().ok().unwrap();
            let login = (self.login.0.as_str(), self.login.1.as_str());
            let found = cache.pods.cli(pod, Part::Server, login, &["GET", &key]).await.ok()?;
            found.contains(&name).then_some(())
        };
        cache.logged("the server to fill the cache", look).await;
    }

    /// Reads and writes that must all succeed.
    pub(crate) async fn load(&self) -> Load {
        for number in 0..4 {
            self.client.apply(&dashboard(&format!("steady-{number}"))).await.unwrap();
        }
        let bearer = format!("Bearer {}", self.client.token().unwrap());
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        let path = |name: &str| format!("/api/v1/projects/p/dashboards/{name}");
        let read = (0..4).map(|n| Request::get("perses", &path(&format!("steady-{n}")), &headers));
        let body = dashboard("steady-0").to_string();
        let write = Request::new("PUT", "perses", &path("steady-0"), &headers, Some(body.as_bytes()));
        let requests: Vec<_> = read.chain([write]).collect();
        let plan = Plan::new(([127, 0, 0, 1], self.process.port()).into(), requests);
        Load::start(Plan { pace: Pace::PerSecond(50.0), connections: 8, ..plan }).unwrap()
    }
}

fn dashboard(name: &str) -> Value {
    json!({"kind": "Dashboard", "metadata": {"name": name, "project": "p"},
        "spec": {"duration": "1h", "layouts": [], "panels": {}, "variables": []}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_away_the_server_goes_on_and_the_cache_comes_back() {
    let rendered = render::render(STACK, &Settings::default(), Capabilities::with(&[])).unwrap().remove(0);
    let (pods, files) = built(&rendered);
    let mut cache = Cache::new(&pods, files).await;
    let all: Vec<usize> = (0..cache.pods.count()).collect();
    assert_eq!(all, [0, 1, 2]);
    cache.start(&all).await;
    cache.are_ready(&all).await;
    assert_eq!(cache.led(&all, &[]).await, 0, "where none knows, the first pod leads");

    let server = Server::start(&configured(&rendered), login(&rendered), &cache).await;
    server.caches_in(&cache, 0).await;
    let load = server.load().await;

    // The one that leads is killed: another takes over, and has what was cached.
    cache.pods.kill(0, Part::Server).await.unwrap();
    let second = cache.led(&all, &[0]).await;
    server.caches_in(&cache, second).await;
    // It comes back as a replica.
    cache.pods.start(0, Part::Server).await.unwrap();
    cache.is_replica_of(0, second).await;
    cache.are_ready(&all).await;

    // Without the sentinel beside it, two are left to agree.
    cache.pods.kill(second, Part::Sentinel).await.unwrap();
    cache.pods.kill(second, Part::Server).await.unwrap();
    let others: Vec<usize> = all.iter().copied().filter(|pod| *pod != second).collect();
    let third = cache.led(&others, &[second]).await;
    server.caches_in(&cache, third).await;
    // A new pod, which has nothing of the old one, learns who leads.
    cache.replace(second).await;
    cache.start(&[second]).await;
    cache.is_replica_of(second, third).await;
    assert_eq!(cache.led(&all, &[]).await, third);
    cache.are_ready(&all).await;

    // The one that is told to end hands over first: no five seconds pass until somebody notices.
    cache.leave(third).await;
    let fourth = cache.led(&all, &[third]).await;
    cache.is_replica_of(third, fourth).await;
    server.caches_in(&cache, fourth).await;
    // One that follows just goes.
    cache.leave(third).await;
    assert_eq!(cache.led(&all, &[]).await, fourth);

    // All at once, and the first of them does not come back: it leads nobody, and the two others agree on that.
    for pod in &all {
        cache.replace(*pod).await;
    }
    cache.start(&[1, 2]).await;
    let fifth = cache.led(&[1, 2], &[0]).await;
    server.caches_in(&cache, fifth).await;
    cache.start(&[0]).await;
    cache.is_replica_of(0, fifth).await;
    cache.are_ready(&all).await;

    let report = load.stop().await.unwrap();
    assert!(report.requests > 100, "{} requests", report.requests);
    assert_eq!(report.failed, 0, "{:?}", report.failures);
}
