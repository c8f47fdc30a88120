//! Perses' own client, v0.54.0, against our server as a process: on files, and on PostgreSQL behind PgBouncer in transaction
//! mode with a streaming replica.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use e2e::services::{USER, shared};
use e2e::wait::wait_until;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::backends::migrated;
use crate::browser::Browser;
use crate::http::KEY;
use crate::{http, kubernetes, sign_in};

/// Where the server keeps its documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Database {
    Files,
    Pooled,
}

impl Database {
    /// `database` of the configuration; a new one.
    async fn settings(self, folder: &Path) -> Value {
        if self == Self::Files {
            return json!({"file": {"folder": folder}});
        }
        let primary = shared::postgres().await.unwrap();
        let (pooler, replica) = (shared::pgbouncer().await.unwrap(), shared::replica().await.unwrap());
        let database = migrated(primary).await;
        json!({"postgres": {
            "host": "127.0.0.1", "port": pooler.port(), "dbname": database.dbname,
            "user": USER, "password": primary.password(),
            "replica": {"host": "127.0.0.1", "port": replica.port()}}})
    }
}

/// Each story is a test on each database.
macro_rules! stories {
    ($($story:ident),+ $(,)?) => {
        mod on_files {
            $(#[tokio::test]
            async fn $story() {
                super::$story(super::Database::Files).await;
            })+
        }
        mod behind_pgbouncer {
            $(#[tokio::test]
            async fn $story() {
                super::$story(super::Database::Pooled).await;
            })+
        }
    };
}

stories! {
    percli_signs_in_and_tells_who_it_is,
    percli_applies_reads_and_removes,
    percli_lints_previews_and_compares,
    percli_signs_in_at_a_provider,
    percli_uses_a_token_of_the_cluster,
}

/// The server process and a home for percli.
struct World {
    folder: TempDir,
    program: PathBuf,
    address: String,
    _server: Child,
    _port: e2e::services::Port,
}

impl World {
    async fn start(database: Database) -> Self {
        Self::start_with(database, json!({})).await
    }

    /// With further settings; the first user is signed in.
    async fn start_with(database: Database, more: Value) -> Self {
        let world = Self::with(database, json!({"authentication": {"providers": {"enable_native": true}}}), more).await;
        let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
        while !world.run(&["login", &world.address, "-u", "admin", "-p", "secret"]).await.status.success() {
            let log = std::fs::read_to_string(world.path("log")).unwrap();
            assert!(tokio::time::Instant::now() < deadline, "no sign-in:\n{log}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        world
    }

    /// With this `security` and further settings; nobody is signed in.
    async fn with(database: Database, security: Value, more: Value) -> Self {
        let program = percli().await;
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("user"), "admin").unwrap();
        std::fs::write(path("password"), "secret").unwrap();
        std::fs::write(path("key"), KEY).unwrap();
        // JSON is YAML.
        let mut config = json!({"security": security, "database": database.settings(&path("db")).await});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        config["security"]["enable_auth"] = json!(true);
        config["security"]["encryption_key_file"] = json!(path("key"));
        if security["authentication"]["providers"]["enable_native"] == true {
            config["security"]["authentication"]["initial_admin"] =
                json!({"username_file": path("user"), "password_file": path("password")});
        }
        std::fs::write(path("config.yaml"), config.to_string()).unwrap();
        let port = e2e::services::Port::reserve().unwrap();
        let log = std::fs::File::create(path("log")).unwrap();
        // One dash and two, with and without a sub-command: as perses-operator and people call it.
        let server = Command::new(env!("CARGO_BIN_EXE_perses-api-server"))
            .arg(format!("-config={}", path("config.yaml").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{}", port.number()))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let address = format!("http://127.0.0.1:{}", port.number());
        Self { folder, program, address, _server: server, _port: port }
    }

    /// Waits until the server answers.
    async fn ready(&self) {
        let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
        let client = http::client().build().unwrap();
        while !client
            .get(format!("{}/readyz", self.address))
            .send()
            .await
            .is_ok_and(|answer| answer.status().is_success())
        {
            assert!(tokio::time::Instant::now() < deadline, "{}", std::fs::read_to_string(self.path("log")).unwrap());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Lists until one came from the replica.
    async fn reads_from_the_replica(&self) {
        let client = http::client().build().unwrap();
        wait_until("a list from the replica", Duration::from_mins(1), || async {
            self.percli(&["get", "projects"]).await;
            let metrics = client.get(format!("{}/metrics", self.address)).send().await?.text().await?;
            let line = r#"perses_db_reads_total{target="replica"} "#;
            Ok(metrics.lines().filter_map(|found| found.strip_prefix(line)).any(|number| number != "0"))
        })
        .await
        .unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(&self.program);
        command.arg("--percliconfig").arg(self.path("percli.json")).args(arguments);
        command.env("HOME", self.folder.path()).output().await.unwrap()
    }

    /// Runs percli, which must succeed; returns what it prints.
    async fn percli(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        let text = text(&output);
        assert!(output.status.success(), "percli {}: {text}", arguments.join(" "));
        text
    }

    /// Runs percli, which must fail; returns what it prints.
    async fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        let text = text(&output);
        assert!(!output.status.success(), "percli {} succeeded: {text}", arguments.join(" "));
        text
    }

    fn write(&self, name: &str, value: &Value) -> String {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).unwrap();
        std::fs::write(&path, value.to_string()).unwrap();
        path.display().to_string()
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// `PERCLI`, or the one that `make tools` builds.
async fn percli() -> PathBuf {
    if let Some(path) = std::env::var_os("PERCLI") {
        return path.into();
    }
    let built = tokio::task::spawn_blocking(|| e2e::build::go::PERCLI.ensure()).await.unwrap();
    built.unwrap().join("percli")
}

fn dashboard(name: &str, title: &str) -> Value {
    json!({"kind": "Dashboard", "metadata": {"name": name, "project": "team"}, "spec": {
        "display": {"name": title}, "duration": "1h",
        "panels": {"p": {"kind": "Panel", "spec": {"plugin": {"kind": "Markdown", "spec": {"text": "hello"}}}}},
        "layouts": [{"kind": "Grid", "spec": {"items": [
            {"x": 0, "y": 0, "width": 24, "height": 6, "content": {"$ref": "#/spec/panels/p"}}]}}]}})
}

async fn percli_signs_in_and_tells_who_it_is(database: Database) {
    let world = World::start(database).await;
    assert!(world.percli(&["whoami"]).await.contains("admin"));
    let version = world.percli(&["version"]).await;
    assert!(version.contains("server") && version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    let config = world.percli(&["config", "--online", "-o", "json"]).await;
    assert!(config.contains("\"enable_auth\": true") || config.contains("\"enable_auth\":true"), "{config}");
    world.percli(&["refresh"]).await;
    assert!(world.percli(&["whoami"]).await.contains("admin"));
    let refused = world.refused(&["login", &world.address, "-u", "admin", "-p", "wrong"]).await;
    assert!(refused.contains("wrong login or password"), "{refused}");
}

async fn percli_applies_reads_and_removes(database: Database) {
    let world = World::start(database).await;
    let first = world.write("first.json", &dashboard("first", "First dashboard"));
    // The project does not exist: percli knows that from our message and makes it.
    let refused = world.refused(&["apply", "-f", &first]).await;
    assert!(refused.contains("metadata.project \"team\" doesn't exist"), "{refused}");
    world.percli(&["apply", "-f", &first, "--force", "--create-project"]).await;
    assert!(world.percli(&["project", "team"]).await.contains("team"));
    assert!(world.percli(&["project"]).await.contains("team"));
    assert!(world.refused(&["project", "nowhere"]).await.contains("nowhere"));

    world.write(
        "all/project.json",
        &json!({"kind": "Project", "metadata": {"name": "team"}, "spec": {"display": {"name": "The team"}}}),
    );
    world.write("all/first.json", &dashboard("first", "First dashboard, changed"));
    world.write("all/second.json", &dashboard("second", "Second dashboard"));
    world.write("all/rest.json", &json!([
        {"kind": "Folder", "metadata": {"name": "f", "project": "team"}, "spec": {"items": [{"kind": "Dashboard", "name": "first"}]}},
        {"kind": "Datasource", "metadata": {"name": "d", "project": "team"}, "spec": {"default": true, "plugin": {
            "kind": "PrometheusDatasource", "spec": {"proxy": {"kind": "HTTPProxy", "spec": {"url": "http://prometheus:9090", "secret": "s"}}}}}},
        {"kind": "Secret", "metadata": {"name": "s", "project": "team"}, "spec": {"basicAuth": {"username": "u", "password": "sesame"}}},
        {"kind": "Variable", "metadata": {"name": "v", "project": "team"}, "spec": {"kind": "TextVariable", "spec": {"value": "x"}}},
        {"kind": "GlobalDatasource", "metadata": {"name": "gd"}, "spec": {"default": true, "plugin": {
            "kind": "PrometheusDatasource", "spec": {"directUrl": "http://prometheus:9090"}}}},
        {"kind": "GlobalSecret", "metadata": {"name": "gs"}, "spec": {"authorization": {"credentials": "sesame"}}},
        {"kind": "GlobalVariable", "metadata": {"name": "gv"}, "spec": {"kind": "TextVariable", "spec": {"value": "x"}}}
    ]));
    let folder = world.path("all").display().to_string();
    for _ in 0..2 {
        // The second time everything is updated.
        world.percli(&["apply", "-d", &folder]).await;
    }

    let list = world.percli(&["get", "dashboards"]).await;
    assert!(list.contains("first") && list.contains("second"), "{list}");
    let list = world.percli(&["get", "dashboards", "sec", "--all"]).await;
    assert!(!list.contains("first") && list.contains("second"), "{list}");
    for (kind, name) in [
        ("folders", "f"),
        ("datasources", "d"),
        ("secrets", "s"),
        ("variables", "v"),
        ("globaldatasources", "gd"),
        ("globalsecrets", "gs"),
        ("globalvariables", "gv"),
        ("projects", "team"),
        ("users", "admin"),
    ] {
        assert!(world.percli(&["get", kind]).await.contains(name), "{kind}");
        let described = world.percli(&["describe", kind, name, "-o", "json"]).await;
        let document: Value =
            serde_json::from_str(&described).unwrap_or_else(|error| panic!("{kind}: {error}: {described}"));
        assert_eq!(document["metadata"]["name"], name, "{described}");
        assert!(!described.contains("sesame") && !described.contains("$2"), "{described}");
    }
    let described: Value =
        serde_json::from_str(&world.percli(&["describe", "dashboard", "first", "-o", "json"]).await).unwrap();
    assert_eq!(described["spec"]["display"]["name"], "First dashboard, changed");
    assert_eq!(described["spec"], dashboard("first", "First dashboard, changed")["spec"], "as it was applied");
    assert_eq!(described["metadata"]["version"], 2);

    if database == Database::Pooled {
        world.reads_from_the_replica().await;
    }
    world.percli(&["delete", "dashboard", "first"]).await;
    assert!(world.refused(&["describe", "dashboard", "first"]).await.contains("not found"));
    world.percli(&["delete", "datasource", "--all"]).await;
    assert!(!world.percli(&["get", "datasources"]).await.contains("PrometheusDatasource"));
    world.percli(&["delete", "-f", &world.path("all/second.json").display().to_string()]).await;
    world.percli(&["delete", "project", "team"]).await;
    assert!(!world.percli(&["get", "projects"]).await.contains("team"));
}

async fn percli_lints_previews_and_compares(database: Database) {
    let plugins = tempfile::tempdir().unwrap();
    let module = plugins.path().join("sample");
    std::fs::create_dir_all(module.join("__mf")).unwrap();
    std::fs::write(module.join("mf-manifest.json"), r#"{"name": "Sample", "metaData": {}}"#).unwrap();
    let package = json!({"version": "1.2.3", "perses": {"schemasPath": "schemas", "plugins": [
        {"kind": "Panel", "spec": {"name": "SampleChart", "display": {"name": "Sample"}}}]}});
    std::fs::write(module.join("package.json"), package.to_string()).unwrap();
    let rule = json!({"name": "title", "target": "$.spec.display.name", "assertion": "value != 'Bad'", "message": "A title, please."});
    let more = json!({"plugin": {"path": plugins.path()}, "ephemeral_dashboard": {"enable": true},
        "dashboard": {"custom_lint_rules": [rule]}});
    let world = World::start_with(database, more).await;

    let listed: Value = serde_json::from_str(&world.percli(&["plugin", "list", "-o", "json"]).await).unwrap();
    let sample = listed.as_array().unwrap().iter().find(|one| one["metadata"]["name"] == "Sample").unwrap();
    assert_eq!((&sample["metadata"]["version"], &sample["status"]["isLoaded"]), (&json!("1.2.3"), &json!(true)));

    let good = world.write("good.json", &dashboard("d", "A title"));
    assert!(world.percli(&["lint", "-f", &good, "--online"]).await.contains("your resources look good"));
    // The rule comes from the server and is checked by percli; the rest is checked by the server.
    let untitled = world.write("untitled.json", &dashboard("d", "Bad"));
    let refused = world.refused(&["lint", "-f", &untitled, "--online"]).await;
    assert!(refused.contains("A title, please."), "{refused}");
    let mut broken = dashboard("d", "A title");
    broken["spec"]["layouts"][0]["spec"]["items"][0]["content"]["$ref"] = json!("#/spec/panels/none");
    let broken = world.write("broken.json", &broken);
    assert!(world.refused(&["lint", "-f", &broken, "--online"]).await.contains("none"));
    let datasource = json!({"kind": "GlobalDatasource", "metadata": {"name": "gd"}, "spec": {"default": true, "plugin": {
        "kind": "PrometheusDatasource", "spec": {"proxy": {"kind": "HTTPProxy", "spec": {"url": "no address"}}}}}});
    let datasource = world.write("datasource.json", &datasource);
    world.refused(&["lint", "-f", &datasource, "--online"]).await;

    let preview = async |file: &str| -> Value {
        let shown = world.percli(&["dac", "preview", "-f", file, "--ttl", "1h", "--prefix", "pr", "-o", "json"]).await;
        // Messages stand before and after.
        let json = &shown[shown.find('[').unwrap()..=shown.rfind(']').unwrap()];
        serde_json::from_str::<Value>(json).unwrap_or_else(|error| panic!("{error}: {shown}"))[0].take()
    };
    let project = json!({"kind": "Project", "metadata": {"name": "team"}, "spec": {}});
    world.percli(&["apply", "-f", &world.write("project.json", &project)]).await;
    world.percli(&["project", "team"]).await;
    let first = preview(&good).await;
    assert_eq!(first["preview"], format!("{}/projects/team/ephemeraldashboards/pr-d", world.address));
    assert!(first.get("current").is_none_or(|current| current == ""), "{first}");
    world.percli(&["apply", "-f", &good]).await;
    assert_eq!(preview(&good).await["current"], format!("{}/projects/team/dashboards/d", world.address));
    assert!(world.percli(&["get", "ephemeraldashboards"]).await.contains("pr-d"));
    let described = world.percli(&["describe", "ephemeraldashboard", "pr-d", "-o", "json"]).await;
    let described: Value = serde_json::from_str(&described).unwrap();
    assert_eq!((&described["metadata"]["version"], &described["spec"]["ttl"]), (&json!(1), &json!("1h")));

    let changed = world.write("changed.json", &dashboard("d", "Another title"));
    let built = world.path("built").display().to_string();
    world.percli(&["dac", "diff", "-f", &changed, "--dac.output_folder", &built]).await;
    let difference = std::fs::read_to_string(world.path("built/team-d.diff")).unwrap();
    assert!(difference.contains("Another title"), "{difference}");

    // What this server does not do says so.
    let grafana = world.write("grafana.json", &json!({"title": "x", "panels": []}));
    let refused = world.refused(&["migrate", "-f", &grafana, "--online"]).await;
    assert!(refused.contains("percli migrate --plugin.path"), "{refused}");
    // `dac setup` asks for the version and wants an SDK of that one; it fails only because there is no Go module here.
    let refused = world.refused(&["dac", "setup", "--language", "go"]).await;
    assert!(!refused.contains("version should be at least"), "{refused}");
}

async fn percli_signs_in_at_a_provider(database: Database) {
    let provider = sign_in::provider().await;
    let mut security = sign_in::settings(&provider)["security"].take();
    // Both kinds have one name there; percli looks for names alone.
    security["authentication"]["providers"]["oauth"][0]["slug_id"] = json!("plain");
    let world = World::with(database, security, json!({})).await;
    world.ready().await;
    world
        .percli(&[
            "login",
            &world.address,
            "--provider",
            "idp",
            "--client-id",
            "robot",
            "--client-secret",
            sign_in::SECRET,
        ])
        .await;
    assert!(world.percli(&["whoami"]).await.contains("robot"));
    let arguments = ["login", &world.address, "--provider", "idp", "--client-id", "robot", "--client-secret", "wrong"];
    assert!(world.refused(&arguments).await.contains("invalid_client"));

    for (slug, name) in [("idp", "ann"), ("plain", "annb")] {
        let mut percli = Command::new(&world.program)
            .arg("--percliconfig")
            .arg(world.path("percli.json"))
            .args(["login", &world.address, "--provider", slug])
            .env("HOME", world.folder.path())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        // "Go to <address> and enter this user code: <code>"
        let mut lines = BufReader::new(percli.stdout.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap().unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!((words[0], words[1]), ("Go", "to"), "{line}");
        Browser::new().enter_code(&format!("{}?user_code={}", words[2], words[words.len() - 1])).await;
        assert!(percli.wait().await.unwrap().success(), "{slug}");
        assert!(world.percli(&["whoami"]).await.contains(name), "{slug}");
        world.percli(&["refresh"]).await;
    }
}

async fn percli_uses_a_token_of_the_cluster(database: Database) {
    let cluster = kubernetes::cluster().await;
    let world = World::with(database, cluster.settings(&json!({}))["security"].take(), json!({})).await;
    world.ready().await;
    world.percli(&["login", &world.address, "--token", &cluster.token("owner").await]).await;
    assert!(world.percli(&["whoami"]).await.contains("system:serviceaccount:accounts:owner"));
    let project = json!({"kind": "Project", "metadata": {"name": "team-a"}, "spec": {}});
    world.percli(&["apply", "-f", &world.write("project.json", &project)]).await;
    world.percli(&["login", &world.address, "--token", &cluster.token("viewer").await]).await;
    assert!(world.percli(&["get", "projects"]).await.contains("team-a"));
    let refused = world.refused(&["delete", "project", "team-a"]).await;
    assert!(refused.contains("missing 'delete' permission in 'team-a' project for 'Project' kind"), "{refused}");
}
