//! What the exporter beside Redis reads is there for the user that it signs in as, and comes out under the alerts' names.

use std::collections::BTreeSet;

use e2e::services::{Redis, RedisExporter};
use persesstack_operator::controllers::persesstack::build::monitoring::{Scope, prometheus_rule};
use persesstack_operator::controllers::persesstack::observed::Capabilities;
use persesstack_operator::render;
use persesstack_operator::settings::Settings;
use regex::Regex;
use serde_json::Value;

use crate::cluster::{DEADLINE, within};

const STACK: &str = "
apiVersion: persesstack.io/v1alpha1
kind: PersesStack
metadata: {name: perses, namespace: obs}
spec: {users: 5, database: {type: Standalone}, monitoring: {exporters: Enabled}}
";

fn object(kind: &str, name: &str) -> Value {
    let stacks = render::render(STACK, &Settings::default(), Capabilities::with(&[])).expect("render");
    let mut objects = render::objects(&stacks[0]).expect("objects").into_iter();
    objects.find(|object| object["kind"] == kind && object["metadata"]["name"] == name).expect("the object")
}

fn words(value: &Value) -> Vec<String> {
    value.as_array().expect("a list").iter().map(|word| word.as_str().expect("a word").to_owned()).collect()
}

/// The rules of the one user as they are built, with this password.
fn acl(password: &str) -> Vec<String> {
    let secret = object("Secret", "perses-redis");
    let lines = secret["stringData"]["users.acl"].as_str().expect("users.acl");
    let line = lines.lines().find_map(|line| line.strip_prefix("user perses ")).expect("the user");
    let rule = |rule: &str| if rule.starts_with('>') { format!(">{password}") } else { rule.to_owned() };
    line.split(' ').map(rule).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_exporter_reads_from_redis_what_the_alerts_ask_for() {
    let redis = Redis::start().await.unwrap();
    let rules = acl("word");
    let user: Vec<&str> = ["ACL", "SETUSER", "perses"].into_iter().chain(rules.iter().map(String::as_str)).collect();
    redis.cli(&user).await.unwrap();

    let deployment = object("Deployment", "perses-redis");
    let containers = deployment["spec"]["template"]["spec"]["containers"].as_array().unwrap();
    let exporter = containers.iter().find(|container| container["name"] == "exporter").unwrap();
    let variables: Vec<_> = exporter["env"].as_array().unwrap().iter().map(|env| env["name"].clone()).collect();
    assert_eq!(variables, ["REDIS_USER", "REDIS_PASSWORD"]);
    let env = [("REDIS_USER", "perses"), ("REDIS_PASSWORD", "word")];
    let exporter = RedisExporter::start(redis.port(), &words(&exporter["args"]), &env).await.unwrap();

    let alerts = prometheus_rule(&Scope::new("obs", "perses")).to_string();
    let metric = Regex::new(r"redis_[a-z_]+").unwrap();
    let asked: BTreeSet<&str> = metric.find_iter(&alerts).map(|found| found.as_str()).collect();
    assert!(asked.len() >= 3, "{asked:?}");
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let text = within("metrics of Redis", DEADLINE, async || {
        let answer = http.get(format!("http://{}/metrics", exporter.address())).send().await.ok()?;
        let text = answer.text().await.ok()?;
        text.contains("\nredis_up 1\n").then_some(text)
    })
    .await;
    for metric in asked {
        assert!(text.lines().any(|line| line.starts_with(&format!("{metric} "))), "{metric} is not in {text}");
    }
    // Its user may not see the slow log, and it goes on without.
    let refused = redis.cli(&["ACL", "LOG"]).await.unwrap();
    for pair in refused.lines().collect::<Vec<_>>().windows(2).filter(|pair| pair[0] == "object") {
        assert!(pair[1].starts_with("slowlog"), "it is refused {}", pair[1]);
    }
}
