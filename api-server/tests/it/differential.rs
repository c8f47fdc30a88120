//! The same requests to the real Perses (Go, v0.54.0) and to this server: status and body must be alike, field by field.
//! The requests are in `tests/corpus`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use perses_api_server::domain::kind::Kind;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

/// A file of the corpus.
#[derive(Deserialize)]
struct Corpus {
    /// Documents that are on disk before the servers start.
    #[serde(default)]
    seed: Vec<Value>,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    /// Method, blank, path.
    r#do: String,
    body: Option<Value>,
    /// A body that is no JSON.
    raw: Option<String>,
    /// `Content-Type` when it is not JSON's.
    r#type: Option<String>,
    /// Who asks; nobody when absent.
    r#as: Option<String>,
    /// Why only the status is compared.
    only_status: Option<String>,
    differs: Option<Difference>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Difference {
    /// Our status.
    ours: u16,
    why: String,
}

/// One of the two servers, as a process.
struct Subject {
    base: String,
    log: PathBuf,
    _process: Child,
    _port: e2e::services::Port,
}

impl Subject {
    async fn start(program: &Path, folder: &Path, config: &Value, seed: &[Value]) -> Self {
        let database = folder.join("db");
        for document in seed {
            write_document(&database, document);
        }
        let mut config = config.clone();
        config["database"] = json!({"file": {"folder": database, "extension": "json"}});
        // Upstream looks for plugins at fixed places otherwise.
        for name in ["plugins", "archives"] {
            std::fs::create_dir_all(folder.join(name)).unwrap();
        }
        config["plugin"] = json!({"path": folder.join("plugins"), "archive_paths": [folder.join("archives")]});
        // JSON is YAML.
        std::fs::write(folder.join("config.yaml"), config.to_string()).unwrap();
        let port = e2e::services::Port::reserve().unwrap();
        let log = folder.join("log");
        let output = std::fs::File::create(&log).unwrap();
        let process = Command::new(program)
            .arg(format!("-config={}", folder.join("config.yaml").display()))
            .arg(format!("-web.listen-address=127.0.0.1:{}", port.number()))
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let subject = Self { base: format!("http://127.0.0.1:{}", port.number()), log, _process: process, _port: port };
        let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
        let probe = crate::http::client().build().unwrap();
        while probe.get(format!("{}/api/v1/health", subject.base)).send().await.is_err() {
            let log = std::fs::read_to_string(&subject.log).unwrap();
            assert!(tokio::time::Instant::now() < deadline, "{} does not answer:\n{log}", program.display());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        subject
    }

    async fn answer(&self, step: &Step, tokens: &Tokens) -> Answer {
        let (method, path) = step.r#do.split_once(' ').unwrap();
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let mut request = client.request(method, format!("{}{path}", self.base));
        if let Some(user) = &step.r#as {
            request = request.bearer_auth(tokens.of(&self.base, user));
        }
        if let Some(body) = step.body.as_ref().map(ToString::to_string).or_else(|| step.raw.clone()) {
            let kind = step.r#type.as_deref().unwrap_or("application/json");
            request = request.header("content-type", kind).body(body);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).map_or_else(|_| json!(text.trim()), comparable);
        Answer { status, body }
    }
}

struct Answer {
    status: u16,
    body: Value,
}

/// Access tokens by server and user.
#[derive(Default)]
struct Tokens(std::collections::HashMap<(String, String), String>);

impl Tokens {
    fn of(&self, base: &str, user: &str) -> &str {
        &self.0[&(base.to_owned(), user.to_owned())]
    }

    async fn sign_in(&mut self, base: &str, user: &str, password: &str) {
        let body = json!({"login": user, "password": password}).to_string();
        let request = reqwest::Client::new().post(format!("{base}/api/auth/providers/native/login"));
        let answer = request.header("content-type", "application/json").body(body).send().await.unwrap();
        let answer: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        let token = answer["access_token"].as_str().unwrap_or_else(|| panic!("{base}, {user}: {answer}"));
        self.0.insert((base.to_owned(), user.to_owned()), token.to_owned());
    }
}

fn write_document(database: &Path, document: &Value) {
    let kind = Kind::parse(document["kind"].as_str().unwrap()).unwrap();
    let mut folder = database.join(kind.plural());
    if let Some(project) = document["metadata"]["project"].as_str() {
        folder = folder.join(project);
    }
    std::fs::create_dir_all(&folder).unwrap();
    let mut document = document.clone();
    for key in ["createdAt", "updatedAt"] {
        document["metadata"].as_object_mut().unwrap().entry(key).or_insert(json!("2026-01-01T00:00:00Z"));
    }
    document["metadata"].as_object_mut().unwrap().entry("version").or_insert(json!(0));
    let name = document["metadata"]["name"].as_str().unwrap();
    std::fs::write(folder.join(format!("{name}.json")), document.to_string()).unwrap();
}

/// Times of this run are alike, and lists have no order.
fn comparable(mut value: Value) -> Value {
    match &mut value {
        Value::Array(items) => {
            let mut items: Vec<Value> = items.drain(..).map(comparable).collect();
            if items.iter().all(|item| item.get("metadata").is_some()) {
                items.sort_by_key(|item| item["metadata"].to_string());
            }
            Value::Array(items)
        }
        Value::Object(members) => {
            members.iter_mut().map(|(key, member)| (key.clone(), comparable(member.take()))).collect()
        }
        Value::String(text) if text.starts_with("20") && text.parse::<jiff::Timestamp>().is_ok() => json!("<time>"),
        _ => value,
    }
}

/// Bodies are equal; of errors the texts, but for what upstream's framework puts around some of them, the place that ours
/// puts before, and what either adds behind.
fn same_body(theirs: &Value, ours: &Value) -> bool {
    let (Some(theirs), Some(ours)) = (message(theirs), message(ours)) else { return theirs == ours };
    let theirs = match theirs.split_once("message=").map(|(_, rest)| rest.split_once(", internal=")) {
        Some(Some((text, _))) => text,
        _ => theirs.strip_prefix("bad request: ").unwrap_or(theirs),
    };
    let ours = ours.strip_prefix("bad request: ").unwrap_or(ours);
    let ours = match ours.split_once(": ") {
        Some((place, rest)) if place.starts_with("spec") || place.starts_with("metadata.") => rest,
        _ => ours,
    };
    theirs.contains(ours) || ours.contains(theirs)
}

fn message(body: &Value) -> Option<&str> {
    body.as_object().filter(|members| members.len() == 1)?.get("message")?.as_str()
}

async fn compare(file: &str, config: Value, users: &[(&str, &str)]) {
    // An error means that another test was quicker.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(file)).unwrap();
    let corpus: Corpus = serde_saphyr::from_str(&text).unwrap();
    let program = tokio::task::spawn_blocking(e2e::build::upstream::ensure).await.unwrap().unwrap();
    // Upstream writes its lists' folder in lower case, the path to it included.
    let folder = |who: &str| {
        let name = format!("perses-differential-{}-{}-{who}", file.trim_end_matches(".yaml"), std::process::id());
        tempfile::Builder::new().prefix(&name).rand_bytes(0).tempdir().unwrap()
    };
    let (theirs_folder, ours_folder) = (folder("theirs"), folder("ours"));
    let theirs = Subject::start(&program, theirs_folder.path(), &config, &corpus.seed).await;
    let ours = Path::new(env!("CARGO_BIN_EXE_perses-api-server"));
    let ours = Subject::start(ours, ours_folder.path(), &config, &corpus.seed).await;
    let mut tokens = Tokens::default();
    for (user, password) in users {
        tokens.sign_in(&theirs.base, user, password).await;
        tokens.sign_in(&ours.base, user, password).await;
    }
    let mut wrong = Vec::new();
    for (number, step) in corpus.steps.iter().enumerate() {
        let (wanted, found) = (theirs.answer(step, &tokens).await, ours.answer(step, &tokens).await);
        let alike =
            wanted.status == found.status && (step.only_status.is_some() || same_body(&wanted.body, &found.body));
        let fine = match &step.differs {
            None => alike,
            Some(difference) => !alike && found.status == difference.ours,
        };
        if !fine {
            let kind = step.differs.as_ref().map_or_else(
                || "differs".to_owned(),
                |wanted| format!("the wanted difference ({}) is gone or another one", wanted.why),
            );
            wrong.push(format!(
                "{} {}{}: {kind}\n  upstream {} {}\n  ours     {} {}",
                number + 1,
                step.r#do,
                step.body.as_ref().map(|body| format!(" {body}")).unwrap_or_default(),
                wanted.status,
                wanted.body,
                found.status,
                found.body
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {} answers differ:\n{}", wrong.len(), corpus.steps.len(), wrong.join("\n"));
}

#[tokio::test]
async fn without_sign_in_answers_are_those_of_upstream() {
    compare("open.yaml", json!({}), &[]).await;
}

#[tokio::test]
async fn with_sign_in_and_roles_answers_are_those_of_upstream() {
    let config = json!({"security": {
        "enable_auth": true,
        "encryption_key": crate::http::KEY,
        "authentication": {"providers": {"enable_native": true}},
    }});
    let users = ["root", "ed", "vi", "nobody"].map(|user| (user, "sesame"));
    compare("roles.yaml", config, &users).await;
}
