//! `plan` against a real API server: it says what would happen, and nothing happens.

use std::io::Write as _;
use std::process::{Command, Stdio};

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use persesstack_operator::client::{ClientOptions, build};
use persesstack_operator::plan::disruption::{Action, Disruption};
use persesstack_operator::plan::{ObjectPlan, PlanError, StackPlan, plan, report};
use persesstack_operator::settings::Settings;
use persesstack_operator::sizing::price::PriceTable;
use serde_json::{Value, json};

use crate::cluster::{DEADLINE, Operator, STACK, Space, World, control_plane, snapshot_versions, within};

/// The file with this spec, in the space's namespace.
fn file(spec: &Value) -> String {
    json!({"apiVersion": "persesstack.io/v1alpha1", "kind": "PersesStack", "metadata": {"name": STACK}, "spec": spec})
        .to_string()
}

async fn planned(space: &Space, text: &str) -> Result<StackPlan, PlanError> {
    let options = ClientOptions {
        user_agent: format!("plan-of-{}", space.namespace),
        dry_run_only: true,
        ..ClientOptions::default()
    };
    let client = build(control_plane().config(), &options).unwrap();
    plan(&client, text, &Settings::default(), &space.namespace, &PriceTable::default())
        .await
        .map(|mut all| all.remove(0))
}

fn object<'a>(plan: &'a StackPlan, kind: &str, name: &str) -> &'a ObjectPlan {
    let found = plan.objects.iter().find(|object| object.kind == kind && object.name == name);
    found.unwrap_or_else(|| panic!("{kind} {name} is not in the plan:\n{}", report::text(plan)))
}

/// Runs the program on a file; exit code and output.
fn program(arguments: &[&str], file: &str) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_persesstack-operator"));
    // Proxies are not meant for a cluster on this machine.
    for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env_remove(name);
    }
    command.env("KUBECONFIG", control_plane().kubeconfig()).args(arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(file.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Those of `kubectl diff`; the stack has 10 users.
fn exit_codes(space: &Space) {
    let arguments = ["plan", "-f", "-", "-n", space.namespace.as_str()];
    let (code, text, error) = program(&arguments, &file(&json!({"users": 10})));
    assert_eq!(code, 0, "{text}{error}");
    assert!(text.contains("nothing changes"), "{text}");
    let (code, text, _) = program(
        &[&arguments[..], &["-o", "json"]].concat(),
        &file(&json!({"users": 400, "database": {"type": "Standalone"}})),
    );
    let plans: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &plans[0]["disruption"]), (1, &json!("databaseRestart")));
    assert!(plans[0]["costAfter"]["most"].as_f64() > plans[0]["costBefore"]["most"].as_f64(), "{text}");
    let (code, text, _) = program(
        &[&arguments[..], &["-o", "table"]].concat(),
        &file(&json!({"users": 400, "database": {"type": "Standalone"}})),
    );
    assert!(
        code == 1
            && text.lines().any(|line| line.starts_with("change")
                && line.contains("StatefulSet perses-db")
                && line.contains("database restart")),
        "{text}"
    );
    for (arguments, spec, because) in [
        (&arguments[..], json!({"users": 0}), "at least 1"),
        (&["plan", "-f", "-", "--context", "nowhere"], json!({"users": 10}), "nowhere"),
        (&["explain", "-f", "-", "api.replicas"], json!({"users": 10}), "there are: api.requestRate"),
    ] {
        let (code, _, error) = program(arguments, &file(&spec));
        assert!(code == 2 && error.contains(because), "{code} {error}");
    }
}

#[test]
fn explain_answers_in_three_forms() {
    let stack = file(&json!({"users": 500, "database": {"type": "Standalone"}, "api": {"maxReplicas": 40}}));
    let (code, text, _) = program(&["explain", "-f", "-", "spec.api.maxReplicas"], &stack);
    assert_eq!(code, 0);
    assert!(text.starts_with("api.maxReplicas: 40\n  override: the model says 10\n  formula: 2 x ceil("), "{text}");
    let (_, table, _) = program(&["explain", "-f", "-", "pooler", "-o", "table"], &stack);
    let lines = table.lines().collect::<Vec<_>>();
    assert!(lines.len() == 9 && lines[1].starts_with("pooler.pgbouncer.replicas"), "{table}");
    let (_, json, _) = program(&["explain", "-f", "-", "-o", "json"], &stack);
    let all: Value = serde_json::from_str(&json).unwrap();
    let numbers = all[0]["numbers"].as_array().unwrap();
    for prefix in ["api.", "cache.", "pooler.", "database.", "demand.", "quota.", "cost."] {
        assert!(numbers.iter().any(|number| number["field"].as_str().unwrap().starts_with(prefix)), "{prefix}");
    }
    assert_eq!(all[0]["connectionBudget"]["state"], "holds");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_tells_everything_and_writes_nothing() {
    let space = Space::new("plan").await;
    let log = control_plane().audit();
    let mark = log.mark().unwrap();

    // Nothing is there yet.
    let first = planned(&space, &file(&json!({"users": 10}))).await.unwrap();
    assert!(first.new && first.cost_before.is_none() && first.objects.len() > 20, "{}", report::text(&first));
    assert!(first.objects.iter().all(|object| object.action == Action::Create), "{}", report::text(&first));
    assert_eq!(first.disruption, Disruption::None);
    assert!(space.objects().await.is_empty() && space.stacks().get_opt(STACK).await.unwrap().is_none());

    let (_world, operator) = (World::start(&space), Operator::start(&space));
    space.create(&json!({"users": 10})).await;
    space.settled().await;
    operator.stop().await;
    let before = snapshot_versions(&space).await;

    let same = planned(&space, &file(&json!({"users": 10}))).await.unwrap();
    assert!(!same.changes(), "{}", report::text(&same));
    exit_codes(&space);

    // A change of nearly everything.
    let spec = json!({"users": 40, "cache": {"type": "None"},
        "database": {"standalone": {"resources": {"limits": {"memory": "1Gi"}}}},
        "api": {"maxReplicas": 7, "config": {"security": {"authentication": {"access_token_ttl": "77m"}}}}});
    let text = report::text(&planned(&space, &file(&spec)).await.unwrap());
    let change = planned(&space, &file(&spec)).await.unwrap();
    assert_eq!(text, report::text(&change), "the same plan every time");
    let api = object(&change, "Deployment", "perses-api");
    assert_eq!((api.action, api.disruption), (Action::Change, Disruption::Roll));
    assert!(!api.changes.iter().any(|change| change.path == "spec.replicas"), "that is the autoscaler's: {text}");
    let scaler = object(&change, "HorizontalPodAutoscaler", "perses-api");
    assert_eq!(scaler.disruption, Disruption::None);
    let most = scaler.changes.iter().find(|change| change.path == "spec.maxReplicas").unwrap();
    assert_eq!(most.after.as_deref(), Some("7"));
    assert_eq!(object(&change, "StatefulSet", "perses-db").disruption, Disruption::DatabaseRestart);
    let settings =
        object(&change, "ConfigMap", "perses-db").changes.iter().find(|c| c.path == "data[postgresql.conf]").unwrap();
    assert!(settings.after.as_deref().unwrap().contains("shared_buffers = 256MB"), "{text}");
    assert_eq!(object(&change, "Deployment", "perses-redis").action, Action::Delete);
    assert_eq!(change.disruption, Disruption::DatabaseRestart);
    let config = change.objects.iter().find(|object| object.name.starts_with("perses-api-config-")).unwrap();
    let keys: Vec<_> = config.changes.iter().map(|change| change.path.as_str()).collect();
    assert!(keys.contains(&"config.yaml: security.authentication.access_token_ttl"), "{keys:?}");
    assert!(
        !text.contains("77m ") && !serde_json::to_string(&change.objects).unwrap().contains("77m"),
        "values of Secrets are masked"
    );
    let (old, new) = (change.cost_before.as_ref().unwrap(), &change.cost_after);
    assert!((old.most - same.cost_after.most).abs() < 1e-9 && (old.most - new.most).abs() > 0.01, "{text}");
    assert!(change.spec.iter().any(|field| field.path == "users" && field.before.as_deref() == Some("10")), "{text}");
    assert!(text.contains("disruption: database restart"), "{text}");

    assert_eq!(snapshot_versions(&space).await, before, "no object was written");
    let agent = format!("plan-of-{}", space.namespace);
    let events: Vec<_> = log.since(mark).unwrap().into_iter().filter(|event| event.user_agent == agent).collect();
    let writes: Vec<String> = events
        .iter()
        .filter(|e| e.is_write() && !e.request_uri.contains("dryRun=All"))
        .map(ToString::to_string)
        .collect();
    assert!(events.len() > 50 && writes.is_empty(), "{writes:#?}");
    space.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_refusals_and_what_is_missing_are_told() {
    let space = Space::new("planned").await;
    let maps: Api<ConfigMap> = Api::namespaced(space.client.clone(), &space.namespace);
    let stranger = serde_json::from_value(json!({"metadata": {"name": "perses-db"}})).unwrap();
    maps.create(&PostParams::default(), &stranger).await.unwrap();
    let with_stranger = planned(&space, &file(&json!({"users": 10}))).await.unwrap();
    assert_eq!(object(&with_stranger, "ConfigMap", "perses-db").action, Action::Foreign);

    // A Secret that is not there is waited for; in the file it is as good as there.
    let external = json!({"users": 10, "database": {"type": "External", "external": {"secretRef": {"name": "pg"}}}});
    let waiting = planned(&space, &file(&external)).await.unwrap();
    assert!(waiting.waits.as_ref().is_some_and(|waits| waits.contains("Secret pg")), "{:?}", waiting.waits);
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "pg"},
        "stringData": {"host": "pg.example", "dbname": "perses", "user": "perses", "password": "word-of-the-file"}});
    let whole = planned(&space, &format!("{}\n---\n{secret}", file(&external))).await.unwrap();
    assert!(whole.waits.is_none() && !report::text(&whole).contains("word-of-the-file"));
    let secrets: Api<Secret> = Api::namespaced(space.client.clone(), &space.namespace);
    assert!(secrets.get_opt("pg").await.unwrap().is_none());

    // What the API server refuses is told as it says it: the file does not take `external` away.
    space.create(&external).await;
    let switch = planned(&space, &file(&json!({"users": 10, "database": {"type": "Standalone"}}))).await.unwrap_err();
    assert!(switch.to_string().contains("external must be set when type is External"), "{switch}");
    let nowhere = file(&json!({"users": 10}))
        .replace("\"name\":\"perses\"", "\"name\":\"perses\",\"namespace\":\"no-such-namespace\"");
    let error = planned(&space, &nowhere).await.unwrap_err().to_string();
    assert!(error.contains("no-such-namespace") && error.contains("does the namespace exist"), "{error}");
    let undecided = planned(&space, &file(&json!({"users": 500}))).await;
    assert!(undecided.is_err());
    space.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_outside_the_namespace_is_planned_too() {
    let space = Space::new("planbound").await;
    let bindings: Api<ClusterRoleBinding> = Api::all(space.client.clone());
    let name = format!("persesstack:{}:{STACK}:system:auth-delegator", space.namespace);
    let with = file(&json!({"users": 10, "auth": {"kubernetes": {}}}));
    let action = |plan: &StackPlan| object(plan, "ClusterRoleBinding", &name).action;
    let first = planned(&space, &with).await.unwrap();
    assert_eq!(action(&first), Action::Create);
    assert!(bindings.get_opt(&name).await.unwrap().is_none(), "nothing is written");

    let operator = Operator::start(&space);
    space.create(&json!({"users": 10, "auth": {"kubernetes": {}}})).await;
    within("the binding", DEADLINE, async || bindings.get_opt(&name).await.unwrap()).await;
    operator.stop().await;
    let present = |plan: &StackPlan| plan.objects.iter().any(|object| object.kind == "ClusterRoleBinding");
    assert!(!present(&planned(&space, &with).await.unwrap()), "it is as wanted");
    let edit = Patch::Merge(json!({"subjects": []}));
    bindings.patch(&name, &PatchParams::default(), &edit).await.unwrap();
    let repair = planned(&space, &with).await.unwrap();
    let changes = &object(&repair, "ClusterRoleBinding", &name).changes;
    assert!(changes.iter().any(|change| change.path.starts_with("subjects")), "{changes:?}");
    // Without it in the spec it goes: the finalizer of the stack in the cluster says that there may be one.
    let without = planned(&space, &file(&json!({"users": 10}))).await.unwrap();
    assert_eq!(action(&without), Action::Delete);
    let theirs = Patch::Merge(json!({"metadata": {"labels": {"persesstack.io/namespace": "elsewhere"}}}));
    bindings.patch(&name, &PatchParams::default(), &theirs).await.unwrap();
    assert_eq!(action(&planned(&space, &with).await.unwrap()), Action::Foreign);
    assert!(!present(&planned(&space, &file(&json!({"users": 10}))).await.unwrap()), "somebody else's stays");
    bindings.delete(&name, &DeleteParams::default()).await.unwrap();
    space.remove().await;
}
